"""Records as LangChain's generations, whole or in chunks, with the confidence under `bitcal`.

Chunks are added up by LangChain: texts and lists may stand in each, everything else stands in the
last one only. Every dict is fresh, so that nobody who changes one changes a cached answer. Knows
Records and LangChain's classes, no model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk

from bitcal_integrations.toolcalls import (
    ToolCall,
    content_of_tools,
    field_confidence,
    tool_calls_of,
    visible_length,
)
from bitcal_integrations.types import Record, Step


class Wanted(NamedTuple):
    """What of an answer is wanted: its log-probabilities; only the first of its tool calls."""

    logprobs: bool = False
    one_call: bool = False


def chat_generation(record: Record, wanted: Wanted) -> ChatGeneration:
    """The whole answer as a message with its confidence."""
    calls = _calls(record, wanted)
    info = _info(record, calls)
    if wanted.logprobs:
        info["logprobs"] = _logprobs(record.generation.steps)
    message = AIMessage(
        content_of(record),
        additional_kwargs=_thoughts(record.generation.reasoning),
        tool_calls=[tool_call(name=c.name, args=c.arguments, id=c.id) for c in calls],
        usage_metadata=usage_of(record),
        response_metadata=copy.deepcopy(info),
    )
    return ChatGeneration(message=message, generation_info=info)


def llm_generation(record: Record, wanted: Wanted) -> Generation:
    """The whole answer as text; what a message has beside it stands in `generation_info`."""
    info = {**_info(record, ()), "usage_metadata": dict(usage_of(record))}
    if wanted.logprobs:
        info["logprobs"] = _logprobs(record.generation.steps)
    return Generation(text=record.text, generation_info=info)


class ChatChunks:
    """The chunks of one streamed message.

    Where tools may be called, text that is or could become a call is held back, so that the
    chunks add up to what the whole message says. `at_once` gives the log-probabilities with the
    last chunk, for LangChain's event protocol, which keeps the last value of a key.
    """

    def __init__(self, tools: bool, wanted: Wanted, at_once: bool) -> None:
        self._tools, self._wanted = tools, wanted
        self._each = wanted.logprobs and not at_once
        self._text = self._shown = ""

    def of_step(self, step: Step) -> ChatGenerationChunk | None:
        """What a token adds; None where that is nothing to be seen."""
        new = "" if step.reasoning else self._release(step.text)
        thoughts = _thoughts(step.text if step.reasoning else None)
        info = {"logprobs": _logprobs([step])} if self._each else {}
        if not (new or thoughts or info):
            return None
        message = AIMessageChunk(
            content=new, additional_kwargs=thoughts, response_metadata=dict(info)
        )
        return ChatGenerationChunk(message=message, generation_info=info)

    def _release(self, text: str) -> str:
        if not self._tools:
            return text
        self._text += text
        ready = self._text[: visible_length(self._text)].strip()
        new, self._shown = ready[len(self._shown) :], ready
        return new

    def last(self, record: Record) -> ChatGenerationChunk:
        """The last chunk: the calls, and everything that may stand in one chunk only."""
        calls = _calls(record, self._wanted)
        rest = content_of(record)[len(self._shown) :] if self._tools else ""
        info = _info(record, calls)
        if self._wanted.logprobs:
            info["logprobs"] = _logprobs(() if self._each else record.generation.steps)
        message = AIMessageChunk(
            content=rest,
            tool_call_chunks=[
                tool_call_chunk(name=c.name, args=_json(c.arguments), id=c.id, index=index)
                for index, c in enumerate(calls)
            ],
            usage_metadata=usage_of(record),
            response_metadata=copy.deepcopy(info),
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message, generation_info=info)


def llm_chunk(step: Step, wanted: Wanted) -> GenerationChunk | None:
    """What a token adds to a text; None where that is nothing to be seen."""
    text = "" if step.reasoning else step.text
    info = {"logprobs": _logprobs([step])} if wanted.logprobs else None
    return GenerationChunk(text=text, generation_info=info) if text or info else None


def last_llm_chunk(record: Record, wanted: Wanted) -> GenerationChunk:
    info = {**_info(record, ()), "usage_metadata": dict(usage_of(record))}
    if wanted.logprobs:
        info["logprobs"] = _logprobs(())
    return GenerationChunk(text="", generation_info=info)


def content_of(record: Record) -> str:
    """The text beside the tool calls."""
    if not _may_call(record.request):
        return record.text
    return content_of_tools(record.generation, record.request).strip()


def _calls(record: Record, wanted: Wanted) -> tuple[ToolCall, ...]:
    calls = tool_calls_of(record.generation, record.request)
    return calls[:1] if wanted.one_call else calls


def _may_call(request: Any) -> bool:
    return bool(request.tools) and request.tool_choice != "none"


def usage_of(record: Record) -> UsageMetadata:
    """The tokens of the prompt and of the answer."""
    generation = record.generation
    usage: dict[str, Any] = {
        "input_tokens": generation.prompt_tokens,
        "output_tokens": generation.n_tokens,
        "total_tokens": generation.prompt_tokens + generation.n_tokens,
    }
    if generation.reasoning is not None:
        thought = sum(step.reasoning for step in generation.steps)
        usage["output_token_details"] = {"reasoning": thought}
    return cast("UsageMetadata", usage)


def _info(record: Record, calls: Iterable[ToolCall]) -> dict[str, Any]:
    return {
        "bitcal": bitcal_of(record, calls),
        "finish_reason": record.generation.finish_reason,
        "model_name": record.model,
        "record_id": record.id,
    }


def bitcal_of(record: Record, calls: Iterable[ToolCall] = ()) -> dict[str, Any]:
    """`record.bitcal()`, with the confidence of each call and of each field of a JSON answer."""
    out = record.bitcal()
    generation, request = record.generation, record.request
    if request.response_schema is not None:
        out["fields"] = field_confidence(generation, request)
    found = [
        {
            "name": call.name,
            "confidence": call.confidence,
            "fields": field_confidence(generation, request, call),
        }
        for call in calls
    ]
    return {**out, "tool_calls": found} if found else out


def _thoughts(text: str | None) -> dict[str, Any]:
    """Reasoning where LangChain looks for it when it makes content blocks."""
    return {"reasoning_content": text} if text else {}


def _logprobs(steps: Iterable[Step]) -> dict[str, Any]:
    """Log-probabilities of the visible tokens as OpenAI's clients give them."""
    return {"content": [_token(step) for step in steps if not step.reasoning]}


def _token(step: Step) -> dict[str, Any]:
    ids = zip(step.top, step.top_text, strict=True)
    top = [_spelt(text, logprob) for (_, logprob), text in ids]
    return {**_spelt(step.text, step.logprob), "top_logprobs": top}


def _spelt(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": float(logprob), "bytes": list(text.encode())}


def _json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(arguments, ensure_ascii=False)
