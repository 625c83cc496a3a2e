"""Numbers as people write them: where one stands in a text, and its value.

It knows signs, currency, thousands set apart, decimals, powers of ten and fractions. What can be
read in two ways ("1,2", "12 345", "10-12") is no number here: None is better than a guess.
"""

from __future__ import annotations

import re

_DOLLAR = r"\\?\$\s*"
_THIN = "\u00a0\u2009\u202f"  # spaces that do not break a line: they only set thousands apart
# Commas only where thousands (or lakhs) are set apart: "1,2" is two numbers. An ordinary space
# sets thousands apart only where a group begins with 0: "12 345" may be two numbers.
_WHOLE = (
    r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)"
    rf"|\d{{1,3}}(?:[{_THIN}]\d{{3}})+(?!\d)"
    r"|[1-9]\d{0,2}(?=(?: \d{3})* 0\d\d(?!\d))(?: \d{3})+(?!\d)"
    r"|\d+)"
)
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d+)?|\.\d+)"
_MIXED = r"\d+ [1-9]\d*/\d+"
_UNSIGNED = rf"(?:{_MIXED}|{_DECIMAL}(?:[eE][-+−]?\d+|/\d+)?)"
NUMBER = rf"[-−]?{_UNSIGNED}"
_MONEY = rf"(?:[-−]{_DOLLAR}{_UNSIGNED}|{NUMBER})"  # the sign of "-$5" is part of it

# What goes on with a number: a power, a decimal, or an operator, a mark or a space and digits.
_MARKS = "−–—+*×/^:,-"
_SPACES = r"[^\S\n]{0,3}"
_GOES_ON = rf"(?:[eE][-+−]?\d|\.\d|{_SPACES}[{_MARKS}]?{_SPACES}\d)"
# In a growing text: what follows is there already, and does not go on.
_OVER = (
    rf"(?=\n|\.\D|[eE][^\d+−-]|[^\s\d.eE{_MARKS}]|{_SPACES}(?:[^\S\n][^\s\d{_MARKS}]|[^\S\n]\n)"
    rf"|{_SPACES}[{_MARKS}]{_SPACES}(?:\n|[^\s\d]))"
)

_FREE = re.compile(rf"(?<![\w.])({_MONEY})")
_INSIDE = re.compile(rf"(?<![\w.,])(?<!\d:)({_MONEY})(?!\w|[.:]\d|,\d{{3}})")
_ALL = re.compile(rf"\s*(?:([-−])|\+)?\s*(?:{_DOLLAR})?({NUMBER})\s*[%.]?\s*")


def marked(lead: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns for a number behind a lead: in a whole text, and in one that still grows."""
    whole = rf"{lead}\+?({_MONEY})(?!{_GOES_ON})"
    return re.compile(whole), re.compile(whole + _OVER)


def last(text: str) -> tuple[int, int] | None:
    """The place of the last number of a text; None where it could be read in two ways.

    >>> last("12 of 100"), last("it is -$5"), last("12 345"), last("at 12:30")
    ((6, 9), (6, 9), None, None)
    """
    places = [match.span(1) for match in _FREE.finditer(text)]
    if not places:
        return None
    start, end = places[-1]
    if len(places) > 1:
        joint = text[places[-2][1] : start]
        groups = re.fullmatch(r"\d{1,3} \d{3}", text[places[-2][0] : end])
        if joint == ":" or groups:
            return None
    return None if re.match(r"\.\d", text[end:]) else (start, end)


def inside(text: str) -> list[float]:
    """The value of every number that stands in a text as one.

    >>> inside("about 1,200 of -7, not v2.5 or 12:30")
    [1200.0, -7.0]
    """
    values = (as_number(match.group(1)) for match in _INSIDE.finditer(text))
    return [value for value in values if value is not None]


def as_number(text: str) -> float | None:
    """The value of a number as people write it, or None.

    >>> as_number("$1,200.50"), as_number("5 1/2"), as_number("+7"), as_number("1e3")
    (1200.5, 5.5, 7.0, 1000.0)
    >>> as_number("many"), as_number("1,2")
    (None, None)
    """
    match = _ALL.fullmatch(text)
    if match is None:
        return None
    written = match.group(2).replace("−", "-")
    sign = -1.0 if bool(match.group(1)) != written.startswith("-") else 1.0
    written, whole = written.removeprefix("-"), 0.0
    if re.fullmatch(_MIXED, written):
        first, written = written.split(" ")
        whole = float(first)
    above, _, below = re.sub(r"[,\s]", "", written).partition("/")
    if below and float(below) == 0:
        return None
    return sign * (whole + float(above) / float(below or 1))
