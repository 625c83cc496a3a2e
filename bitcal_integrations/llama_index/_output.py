"""Records and Steps as LlamaIndex's responses, whole or chunk by chunk.

What a response says beside its text is in `raw`, plain JSON; nothing is put into the message's
`additional_kwargs`, because other parts of LlamaIndex print those into later prompts. It asks no
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    ThinkingBlock,
    ToolCallBlock,
)

from bitcal_integrations.toolcalls import (
    ToolCall,
    content_of_tools,
    field_confidence,
    tool_calls_of,
    visible_length,
)
from bitcal_integrations.types import Generation, Record, Step

Shape: TypeAlias = Literal["chat", "completion"]


def response_of(record: Record, shape: Shape, delta: str | None = None) -> Any:
    """The response that holds all of a record; `delta` where it is the last chunk of a stream."""
    calls = _calls(record)
    text = text_of(record)
    about: dict[str, Any] = {
        "raw": raw_of(record, text, calls),
        "logprobs": logprobs_of(record.generation),
    }
    if shape == "completion":
        return CompletionResponse(text=text, delta=delta, **about)
    message = _message(text)
    if record.generation.reasoning:
        message.blocks.insert(0, ThinkingBlock(content=record.generation.reasoning))
    for call in calls:
        message.blocks.append(
            ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments)
        )
    return ChatResponse(message=message, delta=delta, **about)


def text_of(record: Record) -> str:
    """What the model says beside its tool calls."""
    if not record.request.tools:
        return record.text
    return content_of_tools(record.generation, record.request).strip()


def raw_of(record: Record, text: str, calls: tuple[ToolCall, ...]) -> dict[str, Any]:
    """Text, usage, finish reason, confidence and `bitcal`, as values that JSON can hold."""
    generation = record.generation
    bitcal = record.bitcal()
    if record.request.tools:
        bitcal["tool_calls"] = [{"name": c.name, "confidence": c.confidence} for c in calls]
    if record.request.response_schema is not None:
        bitcal["fields"] = field_confidence(generation, record.request)
    return {
        "text": text,
        "model": record.model,
        "usage": {
            "prompt_tokens": generation.prompt_tokens,
            "completion_tokens": generation.n_tokens,
            "total_tokens": generation.prompt_tokens + generation.n_tokens,
        },
        "finish_reason": generation.finish_reason,
        "confidence": bitcal["confidence"],
        "bitcal": bitcal,
        "record_id": record.id,
    }


def logprobs_of(generation: Generation) -> list[list[LogProb]]:
    """Per token of the text the chosen one first, then the alternatives that were asked for."""
    return [
        [
            _logprob(generation.raw[step.start : step.end], step.logprob),
            *(
                _logprob(text, value)
                for (token_id, value), text in zip(step.top, step.top_text, strict=True)
                if token_id != step.token_id
            ),
        ]
        for step in generation.steps
        if not step.reasoning
    ]


def _logprob(token: str, value: float) -> LogProb:
    return LogProb(token=token, logprob=value, bytes=list(token.encode()))


def _message(text: str) -> ChatMessage:
    return ChatMessage(content=text, role=MessageRole.ASSISTANT)


def _calls(record: Record) -> tuple[ToolCall, ...]:
    return tool_calls_of(record.generation, record.request)


class Chunks:
    """A stream's chunks: cumulative text and delta, and last an empty delta with everything.

    With tools a text is shown up to where a call could begin, since a call is no text.
    """

    def __init__(self, shape: Shape, tools: bool = False) -> None:
        self._shape = shape
        self._tools = tools
        self._text = ""
        self._shown = ""

    def of_step(self, step: Step) -> Iterator[Any]:
        """The chunk of one token; none while its text is held back."""
        if step.reasoning:
            if step.text and self._shape == "chat":
                yield ChatResponse(
                    message=_message(self._shown),
                    delta="",
                    additional_kwargs={"thinking_delta": step.text},
                )
            return
        self._text += step.text
        text = self._text
        if self._tools:
            text = text.lstrip()
            text = text[: visible_length(text)].rstrip()
        yield from self._grown(text)

    def of_record(self, record: Record) -> Iterator[Any]:
        """What was held back, then the last chunk."""
        yield from self._grown(text_of(record))
        yield response_of(record, self._shape, delta="")

    def _grown(self, text: str) -> Iterator[Any]:
        if len(text) <= len(self._shown) or not text.startswith(self._shown):
            return
        delta, self._shown = text[len(self._shown) :], text
        if self._shape == "completion":
            yield CompletionResponse(text=text, delta=delta)
        else:
            yield ChatResponse(message=_message(text), delta=delta)
