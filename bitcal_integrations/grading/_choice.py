"""Which lettered option a text settles on. It knows how people state a choice, not the options.

A statement ("the answer is C", "**C**", "C is correct") counts more than a letter that stands
alone, that more than a letter in brackets, that more than a line of a list; within a kind the
last one wins. A lower-case letter, "A" or "I" may be a word, so what follows has to rule that out.
A letter that is joined to another ("A or B", "neither A nor B", "A, B and C") settles on nothing.
"""

from __future__ import annotations

import re

# What may stand behind a letter that could be a word: the end, a mark, a dash, or a reason.
_CLOSED = (
    r"(?=[^\S\n]*(?:$|\n|[.,:;!?)\]}*_\"`<$\\])"
    r"|[^\S\n]+(?:[-–—]\s|(?:because|since|as|for|which|and)\b))"
)
_LETTER = rf"(?:([B-HJ])(?![\w'’+#-])|([AI]|[a-j]){_CLOSED})"
_MARKS = r"[\s*_(\[{\"'`$]{0,9}"  # bounded, as all that repeats: a long text must not take long
_CUE = (
    r"(?i:(?<![\w/])(?:answer|(?:correct|right|best|final)\s+(?:choice|option|letter))(?![a-z])"
    r"(?:[\s*_]{0,9}(?:is|would\s+be|should\s+be|must\s+be|[:=>→-])){0,5}"
    r"|\b(?:choose|pick|select|go\s+with)\b|####)"
    rf"{_MARKS}(?i:(?:option|choice|letter)\b)?{_MARKS}"
)
_STATED = re.compile(
    rf"{_CUE}(?:\\boxed\{{)?(?:\\text\{{)?\(?{_LETTER}"
    r"|\\boxed\{\s*(?:\\text\{)?\(?([A-Ja-j])\)?\}"
    r"|\*\*\(?([A-J])(?:[.):]|\*\*)"
    r"|(?<![\w'’])([A-J])[)\]*\"]*\s+is\s+(?:the\s+)?(?:most\s+)?(?:correct|right|best|answer)\b"
)
_ALONE = re.compile(
    r"^[^\S\n]{0,9}[\"'(\[]{0,3}([A-Ja-j])[\"')\].]{0,4}[^\S\n]*$"
    r"|(?<![\w'’.-])([A-J])[.)\]\"'*]{0,9}\s*\Z",
    re.MULTILINE,
)
_BRACKETS = re.compile(r"(?<!\w)[(\[]([A-Ja-j])[)\]]")
_LISTED = re.compile(r"^[^\S\n]{0,9}[>*-]{0,3}[^\S\n]{0,9}([A-Ja-j])\s?[.):](?=\s|$)", re.MULTILINE)


_OPEN, _SHUT = r"[(\[*_\"'{]{0,4}(?:option\s)?[(\[*_\"'{]{0,4}", r"[)\]*_\"'}]{0,4}"
_OR = rf"{_SHUT}(?:\s{{0,2}}[/&]|,?\s{{1,2}}(?:or|nor|and/or))\s{{0,2}}{_OPEN}"
_AND = rf"{_SHUT}(?:,|,?\s{{1,2}}and)\s{{1,2}}{_OPEN}"  # also begins a new clause: "B, and A is"
_END = rf"{_SHUT}\.?{_SHUT}[^\S\n]{{0,3}}(?:\n|\Z)"
_AFTER_OR = re.compile(rf"(?<![\w'’])[A-Ja-j]{_OR}\Z")
_AFTER_AND = re.compile(rf"(?<![\w'’])[A-Ja-j]{_AND}\Z")
_BEFORE = re.compile(rf"{_OR}[A-J](?![\w'’])|{_AND}[A-J]{_END}")
_ENDS = re.compile(_END)


def find(text: str) -> tuple[int, int] | None:
    """The place of the letter that is chosen, or None."""
    for pattern in (_STATED, _ALONE, _BRACKETS, _LISTED):
        found = list(pattern.finditer(text))
        if found:
            group = next(i for i, g in enumerate(found[-1].groups(), 1) if g)
            place = found[-1].span(group)
            if not _joined(text, *place):
                return place
            if pattern is _STATED:
                return None
    return None


def _joined(text: str, start: int, end: int) -> bool:
    """Whether another letter stands beside this one, so that it is one of several."""
    before = text[max(0, start - 24) : start]
    one_of_list = _AFTER_AND.search(before) and _ENDS.match(text, end)
    return bool(_AFTER_OR.search(before) or one_of_list or _BEFORE.match(text, end))
