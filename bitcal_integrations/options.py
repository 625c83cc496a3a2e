"""What a request may ask for: the rule of each option, and which prompts are texts.

It checks values and quotes the wrong one; it knows no model, so it cannot say what fits into one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from bitcal_integrations.errors import BadRequest


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number, or one below `least`."""
    if not _is_int(value) or value < least:
        raise BadRequest(f"{name}={value!r} must be a whole number from {least} up")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, default=_mapping, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _mapping(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _is_early_stop(value: Any) -> bool:
    """A name, or a plan or certificate, which live in a part that this one does not know."""
    if value is None or isinstance(value, str):
        return value is None or value in EARLY_STOPS
    plan = hasattr(value, "to_dict") and (hasattr(value, "verdict") or hasattr(value, "plan"))
    return plan or isinstance(value, Mapping)


EARLY_STOPS = ("conservative", "balanced", "fast")
TOOLS = "a list of {'type': 'function', 'function': {'name', 'description', 'parameters'}} dicts"
CHOICES = ("auto", "any", "none")

_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("max_new_tokens", lambda v: _is_int(v) and v >= 1, "a whole number of at least 1"),
    (
        "temperature",
        lambda v: _is_number(v) and (v == 0 or v >= 1e-5),
        "0, which is greedy, or a number of at least 1e-5",
    ),
    ("top_p", lambda v: v is None or (_is_number(v) and 0 < v <= 1), "a number in (0, 1] or None"),
    (
        "seed",
        lambda v: v is None or (_is_int(v) and 0 <= v < 2**63),
        "a whole number from 0 to 2**63 - 1, or None",
    ),
    (
        "stop",
        lambda v: isinstance(v, tuple) and all(isinstance(s, str) and s for s in v),
        "a string or a list of non-empty strings",
    ),
    ("top_logprobs", lambda v: _is_int(v) and 0 <= v <= 100, "a whole number from 0 to 100"),
    (
        "hidden_layer",
        lambda v: v is None or (_is_int(v) and v >= 0),
        "the number of a layer, 0 for the usual one, or None",
    ),
    ("loop_stop", lambda v: isinstance(v, bool), "True or False"),
    ("chat", lambda v: v is None or isinstance(v, bool), "True, False or None"),
    ("chat_template_kwargs", lambda v: isinstance(v, Mapping), "a dict"),
    ("parser", lambda v: v is None or isinstance(v, str) or callable(v), "a name or a callable"),
    ("task", lambda v: isinstance(v, str), "a string"),
    (
        "early_stop",
        _is_early_stop,
        f"{', '.join(EARLY_STOPS)}, a StopPlan, a StopCertificate (or its to_dict), or None",
    ),
    ("tools", lambda v: isinstance(v, tuple) and all(isinstance(t, Mapping) for t in v), TOOLS),
    (
        "response_schema",
        lambda v: v is None or (isinstance(v, Mapping) and _is_json(v)),
        "a JSON schema as a dict of plain values, or None",
    ),
)


def check_options(request: Any) -> None:
    """Refuse an option that cannot be served, quoting it and naming what is allowed."""
    for name, allowed, words in _RULES:
        value = getattr(request, name)
        if not allowed(value):
            raise BadRequest(f"{name}={value!r:.300} is not allowed: it must be {words}")
    names = [_tool_name(tool) for tool in request.tools]
    choice = request.tool_choice
    if len(set(names)) < len(names):
        raise BadRequest(f"the names of the tools must differ: {', '.join(names)}")
    if choice is not None and (not names or choice not in (*CHOICES, *names)):
        choices = ", ".join([*CHOICES, *names]) if names else "None without tools"
        raise BadRequest(f"tool_choice={choice!r} is not allowed: it must be {choices}")


def _tool_name(tool: Mapping[str, Any]) -> str:
    """The name in a tool's definition, which is checked as far as it will be read."""
    function = tool.get("function")
    if tool.get("type", "function") == "function" and isinstance(function, Mapping):
        name, parameters = function.get("name"), function.get("parameters")
        usable = isinstance(name, str) and name and name not in CHOICES
        if usable and (parameters is None or isinstance(parameters, Mapping)) and _is_json(tool):
            return str(name)
    raise BadRequest(
        f"the tool {tool!r:.200} is not allowed: it must be {TOOLS[len('a list of ') : -1]} of "
        f"plain values, with a name other than {', '.join(CHOICES)}"
    )


def plain(value: Any) -> Any:
    """The Python number in a number of numpy or torch."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def content_of(message: Mapping[str, Any]) -> str:
    """The text of a message: a string, or the text parts that chat clients send."""
    content = message["content"]
    if content is None and message.get("tool_calls"):
        return ""
    parts = [content] if isinstance(content, str) else content
    if isinstance(parts, (list, tuple)):
        texts = [p.get("text") if isinstance(p, Mapping) else p for p in parts]
        known = [text for text in texts if isinstance(text, str)]
        if len(known) == len(texts):
            return encodable("".join(known))
    raise BadRequest(
        f"the content {content!r:.100} is no string and no list of {{'type': 'text', 'text'}} parts"
    )


def encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as err:
        raise BadRequest(
            f"the text has {text[err.start]!r} at {err.start}, half of a surrogate pair"
        ) from None
    return text
