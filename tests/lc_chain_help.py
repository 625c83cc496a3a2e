"""Chat models with scripted answers and confidence, for the tests of LangChain's chain parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    LLMResult,
)
from langchain_core.tools import BaseTool
from pydantic import Field

from bitcal_integrations import types

Say = Callable[[str], "tuple[str, float | None] | Exception"]


def bitcal(value: float | None, tokens: int = 3) -> dict[str, Any]:
    """What ChatBitCal writes under `bitcal` for an answer of this confidence."""
    reason = "" if value is not None else "no profile"
    confidence = types.Confidence(value, value is not None, raw=value or 0.5, reason=reason)
    generation = types.Generation("x", "stop", n_tokens=tokens)
    return types.Record(types.Request("?"), generation, confidence).bitcal()


class Scripted(BaseChatModel):
    """Answers the text of the last message by `say`, word by word when streamed.

    `asked` holds the questions; `mute` leaves `bitcal` out, as another model does.
    """

    say: Any
    model: str = "scripted"
    mute: bool = False
    calls: list[Any] = Field(default_factory=list)
    temperature: float | None = 0.0
    asked: list[str] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _message(self, messages: list[BaseMessage], options: dict[str, Any]) -> AIMessage:
        question = str(messages[-1].text)
        self.asked.append(question)
        self.options.append(options)
        said = self.say(question)
        if isinstance(said, Exception):
            raise said
        text, value, *calls = said
        metadata: dict[str, Any] = {"model_name": self.model, "finish_reason": "stop"}
        if not self.mute:
            metadata["bitcal"] = bitcal(value)
        tool_calls: list[Any] = []
        if calls:
            name, arguments, score = calls
            tool_calls = [{"name": name, "args": arguments, "id": f"call_{len(self.asked)}"}]
            metadata["bitcal"]["tool_calls"] = [{"name": name, "confidence": score, "fields": {}}]
        n = len(text.split())
        usage: Any = {"input_tokens": 5, "output_tokens": n, "total_tokens": 5 + n}
        return AIMessage(
            text, response_metadata=metadata, usage_metadata=usage, tool_calls=tool_calls
        )

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        message = self._message(messages, kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _chunks(self, message: AIMessage) -> Iterator[ChatGenerationChunk]:
        words = message.text.split(" ") if message.text else []
        for at, word in enumerate(words):
            piece = word if at == 0 else f" {word}"
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        calls: Any = [
            {"name": c["name"], "args": str(c["args"]).replace("'", '"'), "id": c["id"], "index": 0}
            for c in message.tool_calls
        ]
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                response_metadata=message.response_metadata,
                usage_metadata=message.usage_metadata,
                tool_call_chunks=calls,
                chunk_position="last",
            )
        )

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._chunks(self._message(messages, kwargs)):
            if run_manager:
                run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(self._message(messages, kwargs)):
            await asyncio.sleep(0)
            if run_manager:
                await run_manager.on_llm_new_token(str(chunk.text), chunk=chunk)
            yield chunk

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        names = [t.name if isinstance(t, BaseTool) else str(t) for t in tools]
        return self.bind(tool_names=names)


def always(text: str, value: float | None, model: str = "scripted", **more: Any) -> Scripted:
    """A model that gives one answer whatever it is asked."""
    return Scripted(say=lambda _: (text, value), model=model, **more)


def low(question: str) -> tuple[str, float]:
    """Sure of questions that say so."""
    return f"small: {question}", 0.9 if "easy" in question else 0.3


def small_model() -> Scripted:
    return Scripted(say=low, model="small")


def big_model() -> Scripted:
    return Scripted(say=lambda q: (f"big: {q}", 0.95), model="big")


def fails(error: Exception) -> Scripted:
    return Scripted(say=lambda _: error)


def added(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


async def six_ways(runnable: Any, question: Any) -> dict[str, Any]:
    """The answer by each way of asking."""
    return {
        "invoke": runnable.invoke(question),
        "batch": runnable.batch([question])[0],
        "stream": added(list(runnable.stream(question))),
        "ainvoke": await runnable.ainvoke(question),
        "abatch": (await runnable.abatch([question]))[0],
        "astream": added([chunk async for chunk in runnable.astream(question)]),
    }


class Completion(BaseLLM):
    """A text-completion model that answers all prompts of a batch at once."""

    @property
    def _llm_type(self) -> str:
        return "completion"

    def _generate(self, prompts: list[str], *args: Any, **kwargs: Any) -> LLMResult:
        answers = [low(prompt) for prompt in prompts]
        return LLMResult(
            generations=[
                [Generation(text=text, generation_info={"bitcal": bitcal(value)})]
                for text, value in answers
            ]
        )


class Watching(BaseCallbackHandler):
    """Writes down every run with its name, tags and metadata, and every custom event."""

    def __init__(self) -> None:
        self.runs: list[tuple[Any, Any, Any]] = []
        self.events: list[tuple[str, Any]] = []
        self.ended: list[str] = []

    def _started(self, *args: Any, **kwargs: Any) -> None:
        name = kwargs.get("name") or args[0]["name"]
        self.runs.append((name, kwargs.get("tags"), kwargs.get("metadata")))

    on_chain_start = on_chat_model_start = _started

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.ended.append("ok")

    def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
        self.ended.append(type(error).__name__)

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        self.events.append((name, data))
