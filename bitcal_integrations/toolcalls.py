"""Tool calls and structured values in an answer's text, and how sure the model was of each part.

Reads texts and the log-probabilities of their tokens; it runs no model and knows no framework. A
part's confidence is the model's own probability of it, from the distribution before any grammar:
the product over the tokens where the grammar left a choice. It is not calibrated, and None where
the model had nothing to choose.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from bitcal_integrations.types import Generation, Request

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BLANK = re.compile(r"[\s;]*")  # what may stand between two calls, and inside their marks


@dataclass(frozen=True)
class ToolCall:
    """One call: the tool's name and arguments, and the characters of Generation.raw it takes."""

    id: str
    name: str
    arguments: dict[str, Any]
    start: int
    end: int
    confidence: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The call as OpenAI's clients send it back, with the arguments as JSON text."""
        function = {"name": self.name, "arguments": json.dumps(self.arguments, ensure_ascii=False)}
        return {"id": self.id, "type": "function", "function": function}


def tool_calls_of(generation: Generation, request: Request) -> tuple[ToolCall, ...]:
    """The complete calls of the request's tools, in order; none with tool_choice="none".

    A call is `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, or a text that is nothing
    but such objects ("parameters" is read like "arguments").
    """
    names = {tool["function"]["name"] for tool in request.tools}
    if not names or request.tool_choice == "none":
        return ()
    seed = json.dumps([request.to_dict()["prompt"], generation.raw], default=str)
    calls = []
    for start, end, name, arguments in _spans(generation, names):
        digest = hashlib.sha256(f"{start}|{seed}".encode()).hexdigest()[:24]
        sure = _confidence(generation, start, end)
        calls.append(ToolCall(f"call_{digest}", name, arguments, start, end, sure))
    return tuple(calls)


def content_of_tools(generation: Generation, request: Request | None = None) -> str:
    """The text beside the calls, without the white space around them.

    Without a request every object of a call's shape counts as one, whatever tool it names.
    """
    if request is not None and (not request.tools or request.tool_choice == "none"):
        return generation.text
    names = None if request is None else {tool["function"]["name"] for tool in request.tools}
    at, parts = generation.content_start, []
    for start, end, _, _ in _spans(generation, names):
        parts.append(generation.raw[at:start])
        at = end
    parts.append(generation.raw[at:])
    return "\n".join(p for part in parts if (p := part.strip())) if len(parts) > 1 else parts[0]


def visible_length(text: str) -> int:
    """How much of a growing content may be shown: up to where a call begins or could begin.

    >>> visible_length("It is 4."), visible_length('Wait. <tool_call>{"na'), visible_length("a <to")
    (8, 6, 2)
    """
    if text.lstrip()[:1] == "{":
        return 0
    at = text.find(_OPEN)
    if at >= 0:
        return at
    sizes = range(min(len(_OPEN) - 1, len(text)), 0, -1)
    return len(text) - next((n for n in sizes if _OPEN.startswith(text[-n:])), 0)


def field_confidence(
    generation: Generation, request: Request, call: ToolCall | None = None
) -> dict[str, float | None]:
    """The confidence of each leaf of the text's JSON value, or of a call's arguments.

    The keys are paths like "people[0].name", "" for a value that has no parts. A text that is no
    complete JSON gives none.
    """
    start = generation.content_start if call is None else generation.raw.index("{", call.start)
    try:
        found = list(_leaves(generation.raw, _skip(generation.raw, start), ""))
    except ValueError:
        return {}
    if call is not None:
        heads = ("arguments", "parameters")
        found = [
            (path.removeprefix(head).removeprefix("."), first, last)
            for path, first, last in found
            for head in heads
            if path.startswith(head)
        ]
    return {path: _confidence(generation, first, last) for path, first, last in found}


# ---- where things stand in the text --------------------------------------------------------------


def _spans(
    generation: Generation, names: set[str] | None
) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """(start, end, name, arguments) of each call; names None takes any."""
    raw, at = generation.raw, generation.content_start
    if raw.find(_OPEN, at) < 0:
        yield from _bare(raw, at, names)
        return
    while (start := raw.find(_OPEN, at)) >= 0:
        at = start + len(_OPEN)
        found = _call_at(raw, _skip(raw, at), names)
        if found is not None:
            at = _skip(raw, found[0])
            at = at + len(_CLOSE) if raw.startswith(_CLOSE, at) else found[0]
            yield start, at, *found[1:]


def _bare(
    raw: str, at: int, names: set[str] | None
) -> Iterator[tuple[int, int, str, dict[str, Any]]]:
    """Calls without marks, which must be all that the text holds."""
    calls = []
    while (at := _skip(raw, at)) < len(raw):
        found = _call_at(raw, at, names)
        if found is None:
            return
        calls.append((at, *found))
        at = found[0]
    yield from calls


def _call_at(raw: str, at: int, names: set[str] | None) -> tuple[int, str, dict[str, Any]] | None:
    """(end, name, arguments) of the call whose object begins here."""
    try:
        value, end = _DECODER.raw_decode(raw, at)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters"))
    if not isinstance(arguments, dict) or (names is not None and value["name"] not in names):
        return None
    return end, value["name"], arguments


def _skip(raw: str, at: int) -> int:
    blank = _BLANK.match(raw, at)
    return blank.end() if blank else at


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _leaves(raw: str, at: int, path: str) -> Iterator[tuple[str, int, int]]:
    """(path, start, end) of every leaf of the value at `at`; an empty list or object is one."""
    value, end = _DECODER.raw_decode(raw, at)
    if not isinstance(value, (dict, list)) or not value:
        yield path, at, end
        return
    at = _skip(raw, at + 1)
    index = 0
    while raw[at] not in "]}":
        if isinstance(value, dict):
            key, at = _DECODER.raw_decode(raw, at)
            at = _skip(raw, _skip(raw, at) + 1)
            step = f"{path}.{key}" if path else key
        else:
            step = f"{path}[{index}]"
        yield from _leaves(raw, at, step)
        at = _skip(raw, _DECODER.raw_decode(raw, at)[1])
        at = _skip(raw, at + 1) if raw[at] == "," else at
        index += 1


def _confidence(generation: Generation, start: int, end: int) -> float | None:
    """The probability of these characters, over the tokens where there was a choice."""
    chosen = [
        step.logprob
        for step in generation.steps
        if not step.forced
        and (step.start < end and step.end > start if step.end > step.start
             else start < step.start < end)
    ]  # fmt: skip
    return math.exp(math.fsum(chosen)) if chosen else None
