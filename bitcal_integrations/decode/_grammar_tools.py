"""How models write tool calls, and the grammar of such a call.

The format is read off the chat template: a model is held to the one it was trained with. Knows
texts and schemas, no tokens but the marks that a vocabulary has as single ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.decode._grammar_nodes import (
    Mark,
    Node,
    Repeat,
    Seq,
    alt,
    lit,
    maybe,
    spaced,
)
from bitcal_integrations.decode._grammar_schema import Bounds, compile_schema
from bitcal_integrations.decode._grammar_values import dump
from bitcal_integrations.decode._tool_text import ToolFormat
from bitcal_integrations.errors import BadRequest

MOST_CALLS = 8  # in one answer


@dataclass(frozen=True)
class Calls:
    """The grammar of an answer's calls, whole, and from behind the mark that opens the first."""

    whole: Node
    opened: Node


def calls_of(
    tools: Sequence[Mapping[str, Any]],
    form: ToolFormat,
    bounds: Bounds,
    mark: Callable[[str], int | None],
    many: bool,
) -> Calls:
    """One call of any of the tools, or with `many` up to MOST_CALLS."""
    body = alt(_call(tool["function"], form, bounds) for tool in tools)
    if form.opens:
        line = maybe(lit("\n"))
        body = Seq((line, body, line, _mark(form.closes, mark)))
    opens: tuple[Node, ...] = (_mark(form.opens, mark),) if form.opens else ()
    further: tuple[Node, ...] = ()
    if many and form.opens:
        further = (Repeat(Seq((maybe(lit("\n")), *opens, body)), 0, MOST_CALLS - 1),)
    opened = Seq((body, *further))
    return Calls(Seq((*opens, opened)), opened)


def _mark(text: str, mark: Callable[[str], int | None]) -> Node:
    token = mark(text)
    return lit(text) if token is None else Mark(token)


def _call(function: Mapping[str, Any], form: ToolFormat, bounds: Bounds) -> Node:
    name, parameters = function["name"], function.get("parameters")
    try:
        arguments = compile_schema(parameters or {"type": "object", "properties": {}}, bounds)
    except BadRequest as err:
        raise BadRequest(f"the parameters of the tool {name!r}: {err.message}", err.hint) from None
    parts = (lit("{"), spaced('"name":'), lit(dump(name)), spaced(","), spaced(f'"{form.key}":'))
    return Seq((*parts, arguments, lit("}")))
