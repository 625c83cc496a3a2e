"""Which lettered option a text settles on. It knows how people state a choice, not the options.

A statement ("the answer is C", "**C**", "C is correct") counts more than a letter that stands
alone, that more than a letter in brackets, that more than a line of a list; within a kind the
last one wins. A lower-case letter, "A" or "I" may be a word, so what follows has to rule that out.
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


def find(text: str) -> tuple[int, int] | None:
    """The place of the letter that is chosen, or None."""
    for pattern in (_STATED, _ALONE, _BRACKETS, _LISTED):
        found = list(pattern.finditer(text))
        if found:
            group = next(i for i, g in enumerate(found[-1].groups(), 1) if g)
            return found[-1].span(group)
    return None
