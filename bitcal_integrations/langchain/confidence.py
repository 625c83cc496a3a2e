"""get_confidence(x): how sure an answer is, from any object of LangChain that can carry it.

Reads what the chat model wrote under `bitcal`, or another model's log-probabilities. It asks no
model and changes nothing; what carries no confidence is unknown, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation, LLMResult

from bitcal_integrations.chains.records import (
    EMPTY,
    record_of_bitcal,
    record_of_logprobs,
    unknown_record,
)
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Confidence, Record

if TYPE_CHECKING:
    from bitcal_integrations.profile import Profile

KNOWN = (
    "AIMessage, AIMessageChunk, ChatGeneration, Generation, ChatResult, LLMResult, Record, "
    "Confidence, or a dict with the key 'bitcal', 'raw' (structured output) or 'messages' (state)"
)
# Where the hosted models' clients say how an answer ended.
ENDS = ("finish_reason", "stop_reason", "done_reason")
Pairs = Sequence[tuple[Any, Any]]  # as they came: record_of_logprobs checks them


def get_confidence(x: Any, *, profile: Profile | None = None, task: str = "default") -> Confidence:
    """How sure the answer in `x` is; unknown, with the reason, where nothing says it.

    `profile` scores the answers of other models by their log-probabilities. A type that has no
    place for a confidence, such as the text after an output parser, is refused.

    >>> get_confidence(AIMessage("Paris")).reason
    'the message carries no confidence and no log-probabilities'
    """
    if isinstance(x, Confidence):
        return x
    record = find_record(x, profile=profile, task=task)
    if record is None:
        raise BadRequest(
            f"no confidence can be read from {x!r:.80} of type {type(x).__name__}; it is read "
            f"from {KNOWN}",
            "An output parser drops it: read it from the message before the parser.",
        )
    return record.confidence


def find_record(x: Any, *, profile: Profile | None = None, task: str = "default") -> Record | None:
    """The Record of the answer in `x`; None for a type that has no place for one."""
    if isinstance(x, Record):
        return x
    if isinstance(x, BaseMessage):
        return _of_message(x, profile, task)
    if isinstance(x, Generation):
        return _of_generation(x, profile, task)
    if isinstance(x, (ChatResult, LLMResult)):
        first = _first(x.generations)
        return find_record(first, profile=profile, task=task) if first else _empty()
    if isinstance(x, Mapping):
        return _of_mapping(x, profile, task)
    return None


def text_of(x: Any) -> str:
    """The words of an output, whatever it is wrapped in.

    >>> text_of(AIMessage("Paris")), text_of({"raw": AIMessage("Rome")}), text_of("Oslo")
    ('Paris', 'Rome', 'Oslo')
    """
    if isinstance(x, BaseMessage):
        return str(x.text)
    if isinstance(x, Mapping) and (message := message_in(x)) is not None:
        return str(message.text)
    return x if isinstance(x, str) else str(x)


def message_in(x: Mapping[Any, Any]) -> BaseMessage | None:
    """The model's message in a structured output with `raw`, or the last one of a state."""
    if isinstance(raw := x.get("raw"), BaseMessage):
        return raw
    messages = x.get("messages")
    if isinstance(messages, (list, tuple)):
        return next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)
    return None


def _of_message(message: BaseMessage, profile: Profile | None, task: str) -> Record:
    metadata = message.response_metadata
    usage = getattr(message, "usage_metadata", None) or metadata.get("usage_metadata") or {}
    about: dict[str, Any] = {
        "model": str(metadata.get("model_name") or metadata.get("model") or ""),
        "prompt_tokens": int(usage.get("input_tokens") or 0),
    }
    n_tokens = int(usage.get("output_tokens") or 0)
    text = str(message.text)
    if isinstance(bitcal := metadata.get("bitcal"), Mapping) and "confidence" in bitcal:
        known = metadata.get("record_id")
        return record_of_bitcal(bitcal, text, n_tokens=n_tokens, record_id=known, **about)
    tokens, tops = _logprobs(metadata.get("logprobs"))
    finish = next((w for name in ENDS if isinstance(w := metadata.get(name), str)), "stop")
    if tokens:
        return record_of_logprobs(
            text, tokens, tops=tops, profile=profile, task=task, finish=finish, **about
        )
    reason = "the message carries no confidence and no log-probabilities"
    if not text.strip() and not getattr(message, "tool_calls", ()):
        reason = EMPTY
    return unknown_record(text, reason=reason, n_tokens=n_tokens, finish=finish, **about)


def _of_generation(generation: Generation, profile: Profile | None, task: str) -> Record:
    if isinstance(generation, ChatGeneration) and "bitcal" in generation.message.response_metadata:
        return _of_message(generation.message, profile, task)
    metadata = generation.generation_info or {}
    if isinstance(generation, ChatGeneration):
        message = generation.message
        known = {**message.response_metadata, **metadata}
        return _of_message(message.model_copy(update={"response_metadata": known}), profile, task)
    return _of_message(AIMessage(generation.text, response_metadata=metadata), profile, task)


def _of_mapping(x: Mapping[Any, Any], profile: Profile | None, task: str) -> Record | None:
    if isinstance(bitcal := x.get("bitcal"), Mapping) and "confidence" in bitcal:
        return record_of_bitcal(bitcal, str(x.get("text", "")), record_id=x.get("record_id"))
    if {"confidence", "calibrated"} <= set(x):
        return record_of_bitcal(x, "")
    if (message := message_in(x)) is not None:
        return _of_message(message, profile, task)
    return _empty() if "messages" in x or "raw" in x else None


def _empty() -> Record:
    return unknown_record("", reason="there is no answer of a model in it")


def _first(generations: Sequence[Any]) -> Any:
    """The first generation of a ChatResult's list or of an LLMResult's list of lists."""
    first = generations[0] if generations else None
    return _first(first) if isinstance(first, list) else first


def _logprobs(found: Any) -> tuple[Pairs, Sequence[Pairs]]:
    """Tokens and alternatives with their log-probabilities, as OpenAI and Ollama shape them."""
    content = found.get("content") if isinstance(found, Mapping) else found
    if not isinstance(content, (list, tuple)) or not all(isinstance(c, Mapping) for c in content):
        return (), ()
    tops = [[_pair(t) for t in c.get("top_logprobs") or ()] for c in content]
    return [_pair(c) for c in content], tops


def _pair(item: Any) -> tuple[Any, Any]:
    return (item.get("token"), item.get("logprob")) if isinstance(item, Mapping) else (item, None)
