"""What a grammar is made of, and the regular expression of its regular parts.

A grammar is a graph of nodes over UTF-8 bytes; `Ref` closes circles. A `Leaf` is what a lexer
takes in one piece. The same graph is written out for the library that fills the masks and walked
by `_grammar_walk`, so both mean one language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from bitcal_integrations.errors import BadRequest


@dataclass(frozen=True)
class Lit:
    """These bytes."""

    data: bytes


@dataclass(frozen=True)
class Byte:
    """One of these bytes."""

    allowed: frozenset[int]


@dataclass(frozen=True)
class Mark:
    """One special token, which no text spells."""

    token: int


@dataclass(frozen=True, eq=False)
class Seq:
    """All of these in order."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Alt:
    """One of these."""

    choices: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """From `least` to `most` of the body, which is never empty."""

    body: Node
    least: int
    most: int


@dataclass(frozen=True, eq=False)
class Leaf:
    """A regular part that is one lexeme, with its expression in the syntax of Rust's regex."""

    body: Node
    regex: str


@dataclass(eq=False)
class Ref:
    """A node that is still to be made when it is first named."""

    target: Node | None = None


Node: TypeAlias = "Lit | Byte | Mark | Seq | Alt | Repeat | Leaf | Ref"


def lit(text: str) -> Leaf:
    """A lexeme that is this text."""
    return leaf(raw(text))


def raw(text: str) -> Lit:
    try:
        return Lit(text.encode())
    except UnicodeEncodeError:
        raise BadRequest(
            f"{text!r:.100} has half of a surrogate pair: no text can hold it"
        ) from None


def spaced(text: str) -> Leaf:
    """The text and perhaps one space: models differ in whether they write one in JSON."""
    return leaf(Seq((raw(text), maybe(Lit(b" ")))))


def leaf(body: Node) -> Leaf:
    return Leaf(body, regex_of(body))


def maybe(body: Node) -> Repeat:
    return Repeat(body, 0, 1)


def alt(choices: Iterable[Node]) -> Node:
    found = tuple(choices)
    return found[0] if len(found) == 1 else Alt(found)


def ascii_bytes(first: int, last: int, but: str = "") -> Byte:
    return Byte(frozenset(range(first, last + 1)) - frozenset(but.encode()))


def digits(first: int = 0, last: int = 9) -> Byte:
    return ascii_bytes(ord("0") + first, ord("0") + last)


def regex_of(node: Node) -> str:
    """The expression of a regular node.

    >>> regex_of(Seq((Lit(b"a."), Repeat(digits(), 1, 3))))
    '(a\\\\.([0-9]){1,3})'
    """
    if isinstance(node, Leaf):
        return node.regex
    if isinstance(node, Lit):
        return "".join(_escaped(c) for c in node.data.decode())
    if isinstance(node, Byte):
        return f"[{_ranges(sorted(node.allowed))}]"
    if isinstance(node, Seq):
        return "(" + "".join(map(regex_of, node.parts)) + ")"
    if isinstance(node, Alt):
        return "(" + "|".join(map(regex_of, node.choices)) + ")"
    assert isinstance(node, Repeat), f"{type(node).__name__} is not regular"
    return f"({regex_of(node.body)}){{{node.least},{node.most}}}"


def _ranges(allowed: list[int]) -> str:
    """Bytes of ASCII as the inside of a character class."""
    parts: list[tuple[int, int]] = []
    for value in allowed:
        if parts and parts[-1][1] == value - 1:
            parts[-1] = (parts[-1][0], value)
        else:
            parts.append((value, value))
    shown = [(_escaped(chr(a)), _escaped(chr(b))) for a, b in parts]
    return "".join(a if a == b else f"{a}-{b}" for a, b in shown)


def _escaped(char: str) -> str:
    if char < " " or char == "\x7f":
        return f"\\x{ord(char):02x}"
    return f"\\{char}" if char.isascii() and not char.isalnum() and char not in ' "<>_,:;' else char


# ---- the characters of a JSON string -------------------------------------------------------------

_TAIL = Byte(frozenset(range(0x80, 0xC0)))
_UTF8 = tuple(
    Seq((Byte(frozenset(range(first, last + 1))), Byte(frozenset(range(low, high))), *tail))
    for first, last, low, high, tail in (
        (0xC2, 0xDF, 0x80, 0xC0, ()),
        (0xE0, 0xE0, 0xA0, 0xC0, (_TAIL,)),
        (0xE1, 0xEC, 0x80, 0xC0, (_TAIL,)),
        (0xED, 0xED, 0x80, 0xA0, (_TAIL,)),
        (0xEE, 0xEF, 0x80, 0xC0, (_TAIL,)),
        (0xF0, 0xF0, 0x90, 0xC0, (_TAIL, _TAIL)),
        (0xF1, 0xF3, 0x80, 0xC0, (_TAIL, _TAIL)),
        (0xF4, 0xF4, 0x80, 0x90, (_TAIL, _TAIL)),
    )
)
_HEX = Byte(frozenset(b"0123456789abcdefABCDEF"))
# Never half of a surrogate pair: a string with one cannot be written as UTF-8.
_UNICODE = Seq(
    (
        Lit(b"u"),
        Alt(
            (
                Seq((Byte(frozenset(b"0123456789abcefABCEF")), _HEX, _HEX, _HEX)),
                Seq((Byte(frozenset(b"dD")), digits(0, 7), _HEX, _HEX)),
            )
        ),
    )
)
ESCAPE = Seq((Lit(b"\\"), Alt((Byte(frozenset(b'"\\/bfnrt')), _UNICODE))))


def plain_char(without: frozenset[int] = frozenset(), beyond_ascii: bool = True) -> Leaf:
    """One character that stands for itself in a JSON string, but none of `without`."""
    banned = frozenset(b'"\\') | without
    allowed = Byte(frozenset(range(0x20, 0x80)) - banned)
    if not beyond_ascii:
        return leaf(allowed)
    out = _ranges(sorted(frozenset(range(0x80)) - allowed.allowed))
    return Leaf(Alt((allowed, *_UTF8)), f"[^{out}]")


CHAR = leaf(Alt((plain_char(), ESCAPE)))


def string(least: int, most: int) -> Leaf:
    """A JSON string of so many characters; an escape counts as one."""
    return leaf(Seq((Lit(b'"'), Repeat(CHAR, least, most), Lit(b'"'))))
