"""Where the tokens of another model stand in its text, from their spelling alone.

Servers give tokens as strings, with special tokens among them and characters that are cut into
bytes; the text may have lost its leading white space, or the reasoning before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeAlias

# first character, one past the last, and whether the characters are shown with this token
Place: TypeAlias = "tuple[int, int, bool]"
CUT = 8  # characters that one unreadable token may stand for, at most
_BYTES = re.compile(r"\\x[0-9a-fA-F]{2}|�")  # part of a character, so it stands for one at least


def ranges(text: str, tokens: Sequence[str]) -> list[Place | None]:
    """The place of each token; None for what came before the text.

    Tokens that share a character share its range, and the last of them shows it. What follows the
    text (an end token, a stop string) stands behind it with no width.

    >>> ranges("Paris.", ["\\n", "Par", "is", ".", "<end>"])
    [None, (0, 3, True), (3, 5, True), (5, 6, True), (6, 6, True)]
    >>> ranges("a✓b", ["a", "\\\\xe2\\\\x9c", "\\\\x93", "b"])
    [(0, 1, True), (1, 2, False), (1, 2, True), (2, 3, True)]
    """
    offset = _offset(text, tokens)
    return _walked(text, tokens) if offset is None else _cut(text, tokens, offset)


def _offset(text: str, tokens: Sequence[str]) -> int | None:
    """Where the text begins in what the tokens spell: with the first of them, else as late as
    possible, since reasoning comes before; None where they do not spell it."""
    spelt = "".join(tokens)
    starts = [0, *accumulate(map(len, tokens))][:-1]
    begins = [*zip(starts, tokens, strict=True)]
    for start, token in begins[:1] + begins[:0:-1]:
        for at in (start, start + len(token) - len(token.lstrip())):
            if spelt.startswith(text, at):
                return at
    return None


def _cut(text: str, tokens: Sequence[str], offset: int) -> list[Place | None]:
    """Places where the tokens spell the text, with more before or behind it."""
    places: list[Place | None] = []
    at = -offset
    for token in tokens:
        start, at = at, at + len(token)
        before = at <= 0 and start < 0
        inside = min(max(start, 0), len(text)), min(max(at, 0), len(text))
        places.append(None if before else (*inside, True))
    return places


def _walked(text: str, tokens: Sequence[str]) -> list[Place | None]:
    """Places where some tokens do not read as the text: those share what lies between others."""
    places: list[Place | None] = []
    at, waiting = 0, list[str]()
    for token in tokens:
        least = 1 if any(map(_BYTES.search, waiting)) else 0
        found = text.find(token, at + least, at + CUT * len(waiting) + len(token)) if token else -1
        if found < 0:
            waiting.append(token)
            continue
        places += _shared(at, found, len(waiting))
        at = found + len(token)
        places.append((found, at, True))
        waiting = []
    return places + _shared(at, len(text), len(waiting))


def _shared(start: int, end: int, n: int) -> list[Place | None]:
    return [(start, end, index == n - 1) for index in range(n)]
