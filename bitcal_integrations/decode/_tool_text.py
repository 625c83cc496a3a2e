"""The texts of tool calls: which format a chat template shows, and messages with calls as text.

Knows no grammar and no tokens; what is generated is held to a format in `_grammar_tools`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ToolFormat:
    """A call is `opens`, {"name": ..., KEY: {...}}, `closes`; `begins` finds one in a text.

    What follows from the group `call` on is the call, without `opens`.
    """

    opens: str
    closes: str
    key: str
    begins: re.Pattern[str]


HERMES = ToolFormat(
    "<tool_call>", "</tool_call>", "arguments", re.compile(r"<tool_call>(?P<call>)")
)
LLAMA = ToolFormat("", "", "parameters", re.compile(r'^\s*(?P<call>)\{\s?"name"'))
_SHOWS_LLAMA = re.compile(r'"name\\?"\s*:[^}]{0,60}\\?"parameters\\?"\s*:')


def format_of(template: str | None) -> ToolFormat:
    """The format that a chat template shows; Hermes' where it shows none.

    >>> format_of('Respond in the format {"name": function name, "parameters": {}}') is LLAMA
    True
    """
    shown = template or ""
    return LLAMA if HERMES.opens not in shown and _SHOWS_LLAMA.search(shown) else HERMES


def introduced(
    messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], form: ToolFormat
) -> list[dict[str, Any]]:
    """The messages with the tools in their system turn, where a template does not take them."""
    if not tools:
        return messages
    call = f'{form.opens}{{"name": ..., "{form.key}": {{...}}}}{form.closes}'
    lines = [json.dumps(tool["function"], ensure_ascii=False, default=dict) for tool in tools]
    text = "\n".join([f"To use one of these tools, reply with {call} and nothing else:", *lines])
    if messages[0]["role"] == "system":
        system, *rest = messages
        return [{**system, "content": f"{system['content']}\n\n{text}".lstrip()}, *rest]
    return [{"role": "system", "content": text}, *messages]


def merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turns of one role in a row as one turn.

    >>> [m["content"] for m in merged([{"role": "user", "content": c} for c in "ab"])]
    ['a\\n\\nb']
    """
    out: list[dict[str, Any]] = []
    for message in messages:
        if out and out[-1]["role"] == message["role"]:
            out[-1] = {**out[-1], "content": f"{out[-1]['content']}\n\n{message['content']}"}
        else:
            out.append(dict(message))
    return out


def with_parsed_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose calls have their arguments as a dict, which templates write as JSON."""
    out = dict(message)
    if out.get("tool_calls"):
        out["tool_calls"] = [_parsed(call) for call in out["tool_calls"]]
    return out


def _parsed(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function", call))
    if isinstance(function.get("arguments"), str):
        with suppress(ValueError):  # what a model once wrote is shown as it wrote it
            function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**call, "type": "function", "function": function} if "function" in call else function


def as_text(message: Mapping[str, Any], form: ToolFormat) -> dict[str, Any]:
    """A message without calls or the role of a tool, saying the same in its content."""
    if message["role"] == "tool":
        name = message.get("name")
        said = f"The tool {name} answered" if name else "The tool answered"
        return {"role": "user", "content": f"{said}: {message['content']}"}
    calls = message.get("tool_calls") or ()
    kept = {key: message[key] for key in ("role", "content")}
    if calls:
        texts = [kept["content"]] if kept["content"] else []
        kept["content"] = "\n".join([*texts, *(_written(call, form) for call in calls)])
    return kept


def _written(call: Mapping[str, Any], form: ToolFormat) -> str:
    function = _parsed(call)
    function = function.get("function", function)
    shown = {"name": function.get("name"), form.key: function.get("arguments", {})}
    return f"{form.opens}{json.dumps(shown, ensure_ascii=False)}{form.closes}"
