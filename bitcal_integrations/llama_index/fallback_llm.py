"""ConfidenceFallbackLLM: an llm whose unsure answers are asked again of the next llm.

An llm like any other, for chat and completion, sync, async and as a stream, with tools where
every llm has them. It knows how to ask llms and which answer the Cascade chose; what a confidence
is worth is the policy's. Every llm fires its own events, so tokens are counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SerializeAsAny
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection

from bitcal_integrations.chains.cascade import Cascade, check_handle
from bitcal_integrations.decide.policy import Policy
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index._course import (
    arun,
    check_names,
    check_scored_by,
    given,
    live_last,
    policy_of,
    run,
)
from bitcal_integrations.llama_index._llm_stream import adrafts, drafts, routed
from bitcal_integrations.llama_index._records import as_mapping, record_of
from bitcal_integrations.llama_index._structured import astructured, structured
from bitcal_integrations.llama_index.collector import collect, note
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Record


class ConfidenceFallbackLLM(FunctionCallingLLM):
    """Asks the first llm; where its answer fails or is not certain enough, the next.

    `policy` is a number, a Certificate or a Policy, `min_confidence` the short form (0.7 without
    either). `on_exhausted` says what to give when no answer was accepted: "best" (an answer of
    unknown confidence counts as better than one judged too low), "last", "raise", "review" (the
    best, marked `review`), "abstain", or a sentence of your own. `handle` are the errors that pass
    on to the next llm, by default those of an engine and LowConfidenceError. `scored_by` maps the
    number or name of another llm to the Profile that its log-probabilities are read with.

    The answer is the chosen llm's own, with the attempts in `raw["bitcal"]["route"]`. A stream
    holds drafts back until they are judged; the last llm's is shown as it comes, so there "best"
    means "last".
    """

    llms: list[SerializeAsAny[LLM]] = Field(description="The llms, in the order they are asked.")
    on_exhausted: str = Field(default="best", description="What to give when none is accepted.")

    _policy: Policy = PrivateAttr()
    _names: list[str] = PrivateAttr()
    _handle: tuple[type[Exception], ...] | None = PrivateAttr()
    _scored_by: dict[int, Profile] = PrivateAttr()

    def __init__(
        self,
        llms: Sequence[LLM],
        *,
        policy: Any = None,
        min_confidence: float | None = None,
        on_exhausted: str = "best",
        on_unknown: str | None = None,
        handle: Sequence[type[Exception]] | type[Exception] | None = None,
        names: Sequence[str] | None = None,
        scored_by: dict[int | str, Profile] | None = None,
        **kwargs: Any,
    ) -> None:
        if not llms or not all(isinstance(llm, LLM) for llm in llms):
            raise BadRequest(f"llms={llms!r:.100} must be a list of at least one LLM of LlamaIndex")
        super().__init__(llms=list(llms), on_exhausted=on_exhausted, **kwargs)
        self._policy = policy_of(policy, min_confidence, on_unknown)
        self._names = check_names(names, [llm.metadata.model_name for llm in self.llms])
        self._handle = None if handle is None else check_handle(handle)
        self._scored_by = check_scored_by(scored_by, self._names)
        if "callback_manager" in kwargs:
            self.callback_manager = kwargs["callback_manager"]
        self._cascade()  # refuses wrong arguments now, not at the first question

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "callback_manager":  # the llms are who calls back
            for llm in self.llms:
                llm.callback_manager = value

    @classmethod
    def class_name(cls) -> str:
        return "ConfidenceFallbackLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The first llm's, with the smallest context and tools only where every llm has them.

        The context less `num_output` is the room that every llm has for a prompt.
        """
        every = [llm.metadata for llm in self.llms]
        context = min(m.context_window for m in every)
        return every[0].model_copy(
            update={
                "context_window": context,
                "num_output": context - min(m.context_window - m.num_output for m in every),
                "is_function_calling_model": all(m.is_function_calling_model for m in every),
                "model_name": " | ".join(self._names),
            }
        )

    # ---- the eight endpoints ---------------------------------------------------------------------

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._first(lambda llm: llm.chat(messages, **kwargs), _said)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._first(lambda llm: llm.complete(prompt, formatted, **kwargs), _completed)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return await self._afirst(lambda llm: llm.achat(messages, **kwargs), _said)

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        return await self._afirst(
            lambda llm: llm.acomplete(prompt, formatted, **kwargs), _completed
        )

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        return drafts(self, lambda llm: llm.stream_chat(messages, **kwargs), _said)

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        return drafts(
            self, lambda llm: llm.stream_complete(prompt, formatted, **kwargs), _completed
        )

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        return adrafts(self, lambda llm: llm.astream_chat(messages, **kwargs), _said)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        return adrafts(
            self, lambda llm: llm.astream_complete(prompt, formatted, **kwargs), _completed
        )

    # ---- tools: every llm writes and reads its own calls -----------------------------------------

    def chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> ChatResponse:
        self._need_tools()
        return self._first(lambda llm: llm.chat_with_tools(tools, *args, **kwargs), _said)

    async def achat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> ChatResponse:
        self._need_tools()
        return await self._afirst(lambda llm: llm.achat_with_tools(tools, *args, **kwargs), _said)

    def stream_chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> ChatResponseGen:
        self._need_tools()
        return drafts(self, lambda llm: llm.stream_chat_with_tools(tools, *args, **kwargs), _said)

    async def astream_chat_with_tools(
        self, tools: Any, *args: Any, **kwargs: Any
    ) -> ChatResponseAsyncGen:
        self._need_tools()
        return adrafts(self, lambda llm: llm.astream_chat_with_tools(tools, *args, **kwargs), _said)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The calls in an answer of ours, read by the llm that wrote them."""
        route = as_mapping(response.raw).get("bitcal", {}).get("route", {})
        chosen = route.get("chosen")
        if isinstance(chosen, int):
            llm: Any = self.llms[chosen]
            found: list[ToolSelection] = llm.get_tool_calls_from_response(
                response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
            )
            return found
        if error_on_no_tool_call:
            raise ValueError("the answer is no llm's own, so it holds no tool call")
        return []

    def structured_predict(self, *args: Any, **kwargs: Any) -> Any:
        """The schema's value from the first llm that is certain enough, in that llm's own way.

        Where a sentence would be given instead, LowConfidenceError is raised.
        """
        return structured(self, *args, **kwargs)

    async def astructured_predict(self, *args: Any, **kwargs: Any) -> Any:
        """`structured_predict` for an event loop."""
        return await astructured(self, *args, **kwargs)

    def _prepare_chat_with_tools(self, tools: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        raise BadRequest(
            f"each of the llms {', '.join(self._names)} prepares tools in its own way: "
            "call chat_with_tools of ConfidenceFallbackLLM"
        )

    def _need_tools(self) -> None:
        without = [n for n, llm in zip(self._names, self.llms, strict=True) if not _calls(llm)]
        if without:
            raise BadRequest(f"tools need every llm to call functions, and {without[0]!r} does not")

    # ---- one question ----------------------------------------------------------------------------

    def _cascade(self, on_exhausted: str | None = None) -> Cascade:
        more = {} if self._handle is None else {"handle": self._handle}
        return Cascade(self._policy, self._names, on_exhausted or self.on_exhausted, **more)

    def _streaming_cascade(self) -> tuple[Cascade, bool]:
        """The course of a stream, and whether its last llm is shown as it comes."""
        live = live_last(self._policy, self.on_exhausted)
        return self._cascade("last" if live else None), live

    def _record(self, index: int, answer: Any) -> Record:
        return record_of(answer, model=self._names[index], profile=self._scored_by.get(index))

    def _first(self, ask: Callable[[Any], Any], as_answer: Callable[[str], Any]) -> Any:
        cascade = self._cascade()
        with collect(hide=True):
            answers = run(cascade, lambda i: ask(self.llms[i]), self._record)
        return self._given(cascade, answers, as_answer)

    async def _afirst(self, ask: Callable[[Any], Any], as_answer: Callable[[str], Any]) -> Any:
        cascade = self._cascade()
        with collect(hide=True):
            answers = await arun(cascade, lambda i: ask(self.llms[i]), self._record)
        return self._given(cascade, answers, as_answer)

    def _given(
        self,
        cascade: Cascade,
        answers: dict[int, Any],
        as_answer: Callable[[str], Any],
    ) -> Any:
        """The chosen answer, or the sentence that stands for it, with the route."""
        outcome = cascade.outcome()
        record = given(cascade, outcome)
        note(record, route=cascade.provenance())
        answer = as_answer(outcome.text or "") if outcome.index is None else answers[outcome.index]
        return routed(answer, record, cascade)

    # ---- copies ----------------------------------------------------------------------------------

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        raise BadRequest(
            "a ConfidenceFallbackLLM cannot be written as a dict: its policy and its llms are "
            "objects",
            "Write to_dict() of each llm and policy, and make it anew of what they are read as.",
        )

    def __reduce__(self) -> Any:
        """Made anew, because LlamaIndex's way takes what cannot be pickled out of the original."""
        more = self.model_fields_set - {"llms", "on_exhausted", "callback_manager"}
        arguments = {name: getattr(self, name) for name in more} | {
            "policy": self._policy, "on_exhausted": self.on_exhausted, "handle": self._handle,
            "names": self._names, "scored_by": self._scored_by,
        }  # fmt: skip
        return partial(type(self), **arguments), (self.llms,)


def _said(text: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=text)


def _completed(text: str) -> CompletionResponse:
    return CompletionResponse(text=text, delta=text)


def _calls(llm: LLM) -> bool:
    return isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model
