"""A scripted llm of LlamaIndex and what its tests share: no weights, answers in microseconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    LogProb,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.base.response.schema import Response
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers.base import BaseEventHandler
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.schema import QueryBundle

from bitcal_integrations.chains.records import record_of_bitcal
from bitcal_integrations.llama_index.collector import Call, start_call
from bitcal_integrations.types import Record

# A text, an error to raise, or a tool call as a dict {"name": ..., **arguments}.
Said = Any


def bitcal(value: float | None, **more: Any) -> dict[str, Any]:
    """The dict that travels, for an answer of this confidence."""
    known = value is not None
    return {
        "confidence": value, "calibrated": known, "low": value, "high": value, "raw": value,
        "signals": {}, "profile": "scripted" if known else None, "task": "default",
        "finish": "stop", "decision": None, "reason": "" if known else "not scripted", **more,
    }  # fmt: skip


def record(value: float | None, text: str = "so") -> Record:
    return record_of_bitcal(bitcal(value), text)


class ScriptedLLM(FunctionCallingLLM):
    """Gives `script` in turn, the last entry for ever: pairs of what is said and how sure.

    With `ours=False` it is another model: no `bitcal`, but log-probabilities where `logprobs`
    maps a text to them. `asked` keeps every prompt, `closed` counts streams left early.
    """

    name: str = "scripted"
    ours: bool = True
    calls_tools: bool = True
    logprobs: dict[str, Any] = Field(default_factory=dict)
    _script: list[tuple[Said, float | None]] = PrivateAttr()
    _asked: list[str] = PrivateAttr(default_factory=list)
    _closed: list[int] = PrivateAttr(default_factory=list)

    def __init__(self, script: Sequence[tuple[Said, float | None]], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._script = list(script)

    @property
    def asked(self) -> list[str]:
        return self._asked

    @property
    def closed(self) -> int:
        return len(self._closed)

    @classmethod
    def class_name(cls) -> str:
        return "ScriptedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.name, is_chat_model=True, context_window=4096, num_output=64,
            is_function_calling_model=self.calls_tools,
        )  # fmt: skip

    def _next(self, prompt: str) -> tuple[Said, float | None]:
        self._asked.append(prompt)
        said, value = self._script[min(len(self._asked), len(self._script)) - 1]
        if isinstance(said, BaseException):
            raise said
        return said, value

    def _raw(self, said: Said, value: float | None) -> dict[str, Any] | None:
        if not self.ours:
            return {"usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        raw = {"confidence": value, "bitcal": bitcal(value)}
        return {**raw, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}

    def _logprobs(self, said: Said) -> list[list[LogProb]] | None:
        rows = self.logprobs.get(said) if isinstance(said, str) else None
        return rows and [[LogProb(token=t, logprob=p) for t, p in row] for row in rows]

    def _message(self, said: Said) -> ChatMessage:
        blocks: list[Any] = [TextBlock(text=said)] if isinstance(said, str) else []
        if isinstance(said, dict):
            kwargs = {k: v for k, v in said.items() if k != "name"}
            name = said["name"]
            blocks = [ToolCallBlock(tool_call_id="1", tool_name=name, tool_kwargs=kwargs)]
        return ChatMessage(role="assistant", blocks=blocks)

    def _answer(self, prompt: str, chat: bool) -> Any:
        call = start_call()
        try:
            said, value = self._next(prompt)
        except BaseException:
            call.end(None)
            raise
        call.end(record_of_bitcal(bitcal(value), str(said)) if self.ours else None)
        raw, logprobs = self._raw(said, value), self._logprobs(said)
        if chat:
            return ChatResponse(message=self._message(said), raw=raw, logprobs=logprobs)
        return CompletionResponse(text=said, raw=raw, logprobs=logprobs)

    def _pieces(self, prompt: str, chat: bool) -> Iterator[Any]:
        return self._told(start_call(), prompt, chat)  # the call begins before it is read

    def _told(self, call: Call, prompt: str, chat: bool) -> Iterator[Any]:
        text = ""
        try:
            said, value = self._next(prompt)
            for word in [f"{w} " for w in said.split()] if isinstance(said, str) else []:
                text += word
                if chat:
                    yield ChatResponse(message=self._message(text), delta=word)
                else:
                    yield CompletionResponse(text=text, delta=word)
            last = self._raw(said, value)
            message = self._message(said if isinstance(said, dict) else text)
            call.end(record_of_bitcal(bitcal(value), str(said)) if self.ours else None)
            if chat:
                yield ChatResponse(message=message, delta="", raw=last)
            else:
                yield CompletionResponse(text=text, delta="", raw=last)
        except GeneratorExit:
            self._closed.append(1)
            raise
        finally:
            call.end(None)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages[-1].content or "", True)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._answer(prompt, False)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        return self._pieces(messages[-1].content or "", True)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self._pieces(prompt, False)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages[-1].content or "", True)

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        return self._answer(prompt, False)

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def gen() -> Any:
            for piece in self._pieces(messages[-1].content or "", True):
                yield piece

        return gen()

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        async def gen() -> Any:
            for piece in self._pieces(prompt, False):
                yield piece

        return gen()

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages.append(ChatMessage(role="user", content=str(user_msg)))
        return {"messages": messages}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        blocks = [b for b in response.message.blocks if isinstance(b, ToolCallBlock)]
        if not blocks and error_on_no_tool_call:
            raise ValueError("no tool call")
        return [
            ToolSelection(tool_id="1", tool_name=b.tool_name, tool_kwargs=dict(b.tool_kwargs))
            for b in blocks
        ]


class ScriptedEngine(BaseQueryEngine):
    """A query engine that answers with the next of `answers`; errors among them are raised."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(None)
        self.answers, self.asked = list(answers), []

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Any:
        self.asked.append(query_bundle.query_str)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        return self._query(query_bundle)


def response(text: str, value: float | None, nodes: Any = (), **metadata: Any) -> Response:
    """An engine's response that carries its confidence."""
    keys = {"confidence": value, "bitcal": bitcal(value)}
    return Response(text, list(nodes), {**metadata, **keys})


class Events(BaseEventHandler):
    """Keeps the class names of the events it sees, in order."""

    names: list[str] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.names.append(event.class_name())


@contextmanager
def events() -> Iterator[list[str]]:
    """The names of all events of a block."""
    handler, root = Events(names=[]), get_dispatcher()
    root.event_handlers.append(handler)
    try:
        yield handler.names
    finally:
        root.event_handlers.remove(handler)
