"""The grammar of a request's schema or tools, compiled once per model and size of budget.

The masks come from llguidance (extra `tools`): it has no dependencies, reads its masks off any
fast tokenizer, and takes a grammar as text, which `_grammar_walk` can then read too. It knows no
rows; how a text is held to its grammar is in `constraint`.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcal_integrations.decode import _grammar_walk as walk
from bitcal_integrations.decode._grammar_lark import to_lark
from bitcal_integrations.decode._grammar_nodes import Node, Seq, alt, lit, maybe
from bitcal_integrations.decode._grammar_schema import Bounds, compile_schema, open_ends
from bitcal_integrations.decode._grammar_tools import calls_of
from bitcal_integrations.decode._grammar_vocabulary import Vocabulary
from bitcal_integrations.decode._tool_text import ToolFormat
from bitcal_integrations.decode.prompt import THINK
from bitcal_integrations.errors import BadRequest

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from bitcal_integrations.types import Request

MOST_GRAMMARS = 64  # kept per model, the last used


@dataclass(frozen=True)
class Grammar:
    """A compiled grammar: `required` if the whole text follows it, else from a call's mark on."""

    vocabulary: Vocabulary
    start: walk.State
    costs: walk.Costs
    lark: str
    tokens: float  # of the shortest text
    required: bool
    form: ToolFormat | None

    def matcher(self) -> LLMatcher:
        return self.vocabulary.matcher(self.lark)


class Grammars:
    """The grammars of one model, compiled once per schema and size of budget."""

    def __init__(self, tokenizer: Any, width: int, eos: Iterable[int]) -> None:
        self.vocabulary = Vocabulary(tokenizer, width, eos)
        self.eos = sorted(eos)
        self.thinking = {
            token: self.ids_of(close)
            for start, close in THINK
            for token in self.vocabulary.alone(start)
        }
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def ids_of(self, mark: str) -> list[int]:
        """The tokens of a reasoning mark."""
        return self.vocabulary.alone(mark) or self.vocabulary.spell(mark.encode()) or []

    def of(self, request: Request, form: ToolFormat, limit: int, behind: bool) -> Grammar:
        """The grammar of a request; `behind`: its text stands behind a block of reasoning."""
        schema, tools, choice = request.response_schema, request.tools, request.tool_choice
        if choice not in (None, "auto", "any", "none"):
            tools = tuple(tool for tool in tools if tool["function"]["name"] == choice)
        tools = () if choice == "none" else tools
        bounds = _bounds(limit, [schema, *(tool["function"] for tool in tools)])
        asked = [schema, tools, choice, form.key, form.opens, bounds.text, bounds.items, behind]
        key = json.dumps(asked, default=dict)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._compile(schema, tools, choice, form, bounds, behind)
                while len(self._kept) > MOST_GRAMMARS:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _compile(
        self,
        schema: Mapping[str, Any] | None,
        tools: tuple[Mapping[str, Any], ...],
        choice: str | None,
        form: ToolFormat,
        bounds: Bounds,
        behind: bool,
    ) -> Grammar:
        open_choice = choice in (None, "auto", "none")
        roots: list[Node] = []
        if schema is not None and open_choice:
            roots.append(compile_schema(schema, bounds))
        required = bool(roots) or not open_choice
        if tools:
            many = choice in (None, "auto", "any")
            calls = calls_of(tools, form, bounds, self.vocabulary.mark, many)
            roots.append(calls.whole if required else calls.opened)
        root = alt(roots)
        if required and (behind or self.vocabulary.strips_space):
            blanks = [lit(" ")] if not behind else [lit(" "), lit("\n"), lit("\n\n")]
            root = Seq((maybe(alt(blanks)), root))
        costs = walk.Costs(root, self.vocabulary)
        tokens = costs.of(root)
        if tokens == walk.NEVER:
            raise BadRequest(
                "no text can follow the schema: it never ends, or has characters that this "
                "model's tokenizer cannot write"
            )
        lark = to_lark(root)
        self.vocabulary.matcher(lark)  # an error of the library comes here, not in the worker
        return Grammar(
            self.vocabulary,
            walk.start(root),
            costs,
            lark,
            tokens,
            required,
            form if tools else None,
        )


def _bounds(limit: int, schemas: list[Any]) -> Bounds:
    """What open strings and lists may take of a budget; powers of two, so that few differ."""
    share = max(1, limit // open_ends(schemas))
    return Bounds(_power(max(32, 4 * share)), _power(max(4, share // 8)))


def _power(value: int) -> int:
    return 1 << (value.bit_length() - 1)
