"""The Record of a message that may call tools, with the confidence of every call.

A step that calls tools is as sure as the model was of the calls themselves, not of the words
around them. Knows messages, no policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult

from bitcal_integrations.langchain.confidence import find_record, message_in
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Record

OF_CALLS = "the model's own probability of its tool calls"


@dataclass(frozen=True)
class StepRecord(Record):
    """A Record with the (name, confidence) of each tool call in the message."""

    calls: tuple[tuple[str, float | None], ...] = ()


def step_record(
    message: AIMessage, profile: Profile | None = None, task: str = "default"
) -> StepRecord:
    """The Record of a model's step; with tool calls, as sure as the least sure of them."""
    record = find_record(message, profile=profile, task=task)
    assert record is not None  # a message always has a place for one
    calls = calls_of(message)
    confidence = record.confidence
    if calls:
        values = [value for _, value in calls]
        known = [value for value in values if value is not None]
        value = min(known) if len(known) == len(values) else None
        reason = OF_CALLS if value is not None else "a tool call of unknown confidence"
        confidence = replace(
            confidence, value=value, calibrated=False, low=None, high=None, interval=None,
            reason=reason,
        )  # fmt: skip
    return StepRecord(
        record.request, record.generation, confidence, record.decision, record.timing,
        record.model, record.id, calls,
    )  # fmt: skip


def calls_of(message: AIMessage) -> tuple[tuple[str, float | None], ...]:
    """Name and confidence of each tool call, in order; None where nothing says it."""
    told = (message.response_metadata.get("bitcal") or {}).get("tool_calls") or ()
    scores = [c.get("confidence") if isinstance(c, Mapping) else None for c in told]
    if len(scores) != len(message.tool_calls):
        scores = [None] * len(message.tool_calls)
    names = [str(call["name"]) for call in message.tool_calls]
    return tuple(zip(names, scores, strict=True))


def find_step(x: Any, *, profile: Profile | None = None, task: str = "default") -> Record | None:
    """`find_record`, but where the answer calls tools, as sure as the least sure call."""
    message = _message_of(x)
    if isinstance(message, AIMessage) and message.tool_calls:
        return step_record(message, profile, task)
    return find_record(x, profile=profile, task=task)


def _message_of(x: Any) -> BaseMessage | None:
    if isinstance(x, (ChatResult, LLMResult)) and x.generations:
        first: Any = x.generations[0]
        x = (first[0] if first else None) if isinstance(first, list) else first
    if isinstance(x, ChatGeneration):
        return x.message
    if isinstance(x, Mapping):
        return message_in(x)
    return x if isinstance(x, BaseMessage) else None
