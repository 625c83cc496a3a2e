"""ChatBitCal: a quantized model of this process as LangChain's chat model.

Translates messages in, asks the shared CalibratedModel, translates Records out. What one call
means to the model is decided below; what to do with the confidence, in the chain parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from importlib.util import find_spec
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.chat_model_stream import AsyncChatModelStream
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.model_profile import ModelProfile
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool

from bitcal_integrations.decode.prompt import encode
from bitcal_integrations.langchain import _model, _structured
from bitcal_integrations.langchain._base import BitCalModel, given_out
from bitcal_integrations.langchain._batch import ask, gather
from bitcal_integrations.langchain._bound import BoundChat, WithFallback
from bitcal_integrations.langchain._messages import turns_of
from bitcal_integrations.langchain._output import ChatChunks, chat_generation
from bitcal_integrations.types import Record


class ChatBitCal(WithFallback, BitCalModel, BaseChatModel):
    """A local quantized chat model whose every answer carries the probability that it is right.

    Instantiate, by name or with a model that `load` gave (`profile` is the measured profile, as in
    `load`; afterwards the attribute `profile` holds LangChain's own description of the model):

        chat = ChatBitCal(model="bitcal-tiny", weights="qint4", max_tokens=64)
        chat = ChatBitCal(model=load("bitcal-tiny"))

    A model that is named is loaded when it is first used, and shared by equal arguments. Options of
    every call: max_tokens, temperature, top_p, seed, stop, task, parser, logprobs, top_logprobs,
    early_stop (a preset of the profile, a StopPlan or a StopCertificate).

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> chat = ChatBitCal(model=ToyModel({"Capital of France?": ("Paris", 0.9)}))
    >>> message = chat.invoke("Capital of France?")
    >>> message.text, message.response_metadata["bitcal"]["confidence"]
    ('Paris', 0.9)

    The confidence is the same on invoke, stream (in the last chunk), batch, their async twins,
    astream_events and cache hits; unknown it is None, with its `reason`. `batch` and `abatch` are
    one batch of the model. With the extra `tools`, `bind_tools` and `with_structured_output` give
    calls and objects that are valid by construction, each with a confidence of its own.

        chain = chat.with_confidence_fallback([stronger], min_confidence=0.7)

    asks `stronger` where this model is not sure enough. `timeout`, `max_retries` and `api_key` are
    accepted and do nothing: no network is asked.
    """

    @property
    def _llm_type(self) -> str:
        return "bitcal-chat"

    def _resolve_model_profile(self) -> ModelProfile:
        grammar = find_spec("llguidance") is not None
        profile = ModelProfile(
            text_inputs=True, text_outputs=True, open_weights=True,
            tool_calling=grammar, tool_choice=grammar, structured_output=grammar,
        )  # fmt: skip
        if not _model.is_name(self.model) and (context := getattr(self.model, "context", None)):
            profile["max_input_tokens"] = context
        return profile

    def _loaded_now(self) -> None:
        context = getattr(self.calibrated_model, "context", None)
        if self.profile is not None and context and "max_input_tokens" not in self.profile:
            self.profile = ModelProfile(**{**self.profile, "max_input_tokens": context})

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """The tokens of the whole prompt as the model gets it, chat template and tools included."""
        if self.custom_get_token_ids is not None:
            return super().get_num_tokens_from_messages(messages, tools)
        options = _structured.tool_options(tools) if tools else {}
        request = self.calibrated_model.request_of(turns_of(messages), **options)
        return len(encode(self._tokenizer(), request).ids)

    # ---- one conversation ---------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options, wanted = self._options(stop, kwargs)
        record = ask(self.calibrated_model, turns_of(messages), options)
        return ChatResult(generations=[chat_generation(record, wanted)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        options, wanted = self._options(stop, kwargs)
        model = await self._aready()
        record = await model.aask(turns_of(messages), **options)
        return ChatResult(generations=[chat_generation(record, wanted)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        options, wanted = self._options(stop, kwargs)
        # Only the event protocol passes a run manager here.
        chunks = ChatChunks(_may_call(options), wanted, run_manager is not None)
        with closing(self.calibrated_model.stream(turns_of(messages), **options)) as events:
            for event in events:
                chunk = _chunk(chunks, event)
                if chunk is not None:
                    if run_manager:
                        run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        options, wanted = self._options(stop, kwargs)
        # Only the event protocol passes a run manager here.
        chunks = ChatChunks(_may_call(options), wanted, run_manager is not None)
        model = await self._aready()
        async with aclosing(model.astream(turns_of(messages), **options)) as events:
            async for event in events:
                chunk = _chunk(chunks, event)
                if chunk is not None:
                    if run_manager:
                        await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                    yield chunk

    # ---- many, and caches ---------------------------------------------------------------------

    def generate(self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any) -> LLMResult:
        """An answer to each conversation, asked as one batch; see BaseChatModel.generate."""
        run_id = kwargs.pop("run_id", None)  # of the first, as in the base class

        def one(index: int) -> LLMResult:
            own = {**kwargs, "run_id": run_id if index == 0 else None}
            return BaseChatModel.generate(self, [messages[index]], *args, **own)

        if len(messages) == 1:
            return one(0)
        results = gather(one, range(len(messages)))
        runs = [run for result in results for run in result.run or ()]
        generations = [result.generations[0] for result in results]
        return LLMResult(generations=generations, llm_output={}, run=runs or None)

    async def agenerate(
        self, messages: list[list[BaseMessage]], *args: Any, **kwargs: Any
    ) -> LLMResult:
        await self._aready()
        return await super().agenerate(messages, *args, **kwargs)

    def astream_events(
        self,
        input: Any,
        config: RunnableConfig | None = None,
        *,
        version: Any = "v2",
        **kwargs: Any,
    ) -> Any:
        """Events while the answer comes; see BaseChatModel.astream_events."""
        events = super().astream_events
        if version != "v3":
            return events(input, config, version=version, **kwargs)

        async def begun() -> AsyncChatModelStream:
            await self._aready()
            return await events(input, config, version="v3", **kwargs)

        return begun()

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        named = {name: _model.key_of(value) for name, value in kwargs.items()}
        return super()._get_llm_string(stop=stop, **named)

    def _generate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return given_out(super()._generate_with_cache(*args, **kwargs), self.cache)

    async def _agenerate_with_cache(self, *args: Any, **kwargs: Any) -> ChatResult:
        return given_out(await super()._agenerate_with_cache(*args, **kwargs), self.cache)

    # ---- tools and structured output ----------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """A model that may call these tools; needs the extra `tools`.

        `tool_choice` is "auto" (default), "any" (it must call one), "none", or the name of one.
        Calls are valid by construction: a grammar holds the model to the tools' schemas, so
        `strict` changes nothing.
        """
        bound = _structured.tool_options(tools, tool_choice, parallel_tool_calls)
        return self.bind(**bound, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: str = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[Any, Any]:
        """Answers as objects of a schema: pydantic, TypedDict, JSON schema or an OpenAI function.

        `method` is "json_schema", "json_mode" (the same here: a grammar holds the model to the
        schema either way) or "function_calling". With `include_raw` the message stays, and with it
        `bitcal["fields"]`, the confidence of each field.
        """
        return _structured.structured(self, schema, method, include_raw, kwargs)

    def bind(self, **kwargs: Any) -> BoundChat:
        return BoundChat(bound=self, kwargs=kwargs, config={})

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> BoundChat:
        own = cast("RunnableConfig", {**(config or {}), **kwargs})
        return BoundChat(bound=self, kwargs={}, config=own)


def _may_call(options: Mapping[str, Any]) -> bool:
    return bool(options.get("tools")) and options.get("tool_choice") != "none"


def _chunk(chunks: ChatChunks, event: Any) -> ChatGenerationChunk | None:
    return chunks.last(event) if isinstance(event, Record) else chunks.of_step(event)
