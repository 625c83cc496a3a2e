"""Regular expressions of a schema as grammar nodes for what stands between a string's quotes.

The expression is read by Python's own parser and must hold for the whole string; a repeat without
an end gets one. Look-arounds, back references and classes beyond ASCII are refused.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from bitcal_integrations.decode._grammar_nodes import (
    Byte,
    Leaf,
    Lit,
    Node,
    Repeat,
    Seq,
    alt,
    leaf,
    plain_char,
)

_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")
_CLASSES = {
    "CATEGORY_DIGIT": set(b"0123456789"),
    "CATEGORY_SPACE": set(b" \t\n\r"),
    "CATEGORY_WORD": set(b"0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"),
}
_TWO = r"[0-5]\d"
_DAY = (
    r"[12]\d{3}-((0[13578]|1[02])-(0[1-9]|[12]\d|3[01])|(0[469]|11)-(0[1-9]|[12]\d|30)"
    r"|02-(0[1-9]|1\d|2[0-8]))"
)
_TIME = rf"([01]\d|2[0-3]):{_TWO}:{_TWO}(\.\d{{1,6}})?(Z|[+-](0\d|1[0-3]):{_TWO})"
_NAME = r"[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
_BYTE = r"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
# Each takes less than its format allows (no leap day, http alone), never more.
FORMATS = {
    "date": _DAY,
    "time": _TIME,
    "date-time": f"{_DAY}T{_TIME}",
    "duration": r"P(\d{1,4}D)?T\d{1,2}H\d{1,2}M\d{1,2}S",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": rf"[A-Za-z0-9]([A-Za-z0-9_+-]{{0,40}}[A-Za-z0-9])?@({_NAME}\.){{1,3}}[A-Za-z]{{2,8}}",
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "uri": rf"https?://({_NAME}\.){{1,3}}[A-Za-z]{{2,8}}(/[A-Za-z0-9_.~-]{{1,40}}){{0,8}}",
}


def pattern(text: Any, most: int) -> Node:
    """The node of an expression; ValueError says what in it is not supported."""
    if not isinstance(text, str):
        raise ValueError("it must be a string")
    try:
        parsed = _parser.parse(text)
    except (re.error, OverflowError, RecursionError) as err:
        raise ValueError(str(err)) from None
    return _sequence(list(parsed), most, True, True)


def _sequence(items: Sequence[tuple[Any, Any]], most: int, first: bool, last: bool) -> Node:
    parts = []
    for index, (kind, value) in enumerate(items):
        at_start, at_end = first and index == 0, last and index == len(items) - 1
        if str(kind) == "AT":
            begins, ends = str(value) == "AT_BEGINNING", str(value) == "AT_END"
            if not (begins and at_start) and not (ends and at_end):
                raise ValueError(f"{str(value).lower()} inside it")
            continue
        parts.append(_node(str(kind), value, most, at_start, at_end))
    return parts[0] if len(parts) == 1 else Seq(tuple(parts))


def _node(kind: str, value: Any, most: int, first: bool, last: bool) -> Node:
    if kind == "LITERAL":
        return _char(value)
    if kind == "NOT_LITERAL":
        return plain_char(frozenset({value} if value < 128 else ()))
    if kind == "ANY":
        return plain_char()
    if kind == "IN":
        return _set(value)
    if kind == "BRANCH":
        return alt(_sequence(list(items), most, first, last) for items in value[1])
    if kind == "SUBPATTERN":
        return _sequence(list(value[-1]), most, first, last)
    if kind in ("MAX_REPEAT", "MIN_REPEAT"):
        least, limit, body = value
        node = _sequence(list(body), most, False, False)
        if _can_be_empty(node):
            raise ValueError("a repeat of what may be empty")
        return Repeat(node, int(least), max(int(least), min(int(limit), most)))
    raise ValueError(kind.lower().replace("_", " "))


def _char(code: int) -> Lit:
    return Lit(json.dumps(chr(code), ensure_ascii=False)[1:-1].encode())


def _set(items: Sequence[tuple[Any, Any]]) -> Node:
    """A class of characters; what is outside a negated one stands for itself, never escaped."""
    negated = bool(items) and str(items[0][0]) == "NEGATE"
    codes: set[int] = set()
    outside: set[int] = set()
    for kind, value in items[1:] if negated else items:
        if str(kind) == "LITERAL":
            codes.add(value)
        elif str(kind) == "RANGE":
            codes.update(range(value[0], value[1] + 1))
        else:
            name = str(value).replace("NOT_", "")
            (outside if "NOT_" in str(value) else codes).update(_CLASSES[name])
    if outside and (negated or codes):
        raise ValueError("a class with an inverted class beside others")
    if negated or outside:
        return plain_char(frozenset(c for c in codes | outside if c < 128))
    if any(code > 127 for code in codes) and len(codes) > 256:
        raise ValueError("a wide class beyond ASCII")
    return _one_of(codes)


def _one_of(codes: set[int]) -> Leaf:
    plain = frozenset(c for c in codes if 0x20 <= c < 0x80) - set(b'"\\')
    choices: list[Node] = [Byte(plain)] if plain else []
    choices += [_char(code) for code in sorted(codes - plain)]
    if not choices:
        raise ValueError("an empty class")
    return leaf(alt(choices))


def _can_be_empty(node: Node) -> bool:
    if isinstance(node, Seq):
        return all(map(_can_be_empty, node.parts))
    if isinstance(node, Repeat):
        return node.least == 0 or _can_be_empty(node.body)
    choices = getattr(node, "choices", ())
    return any(map(_can_be_empty, choices)) or (isinstance(node, Leaf) and _can_be_empty(node.body))
