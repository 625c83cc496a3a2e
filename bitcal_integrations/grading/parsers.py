"""Answer parsers: text -> the span that is the answer.

A parser is called with `ended=False` while the text still grows; it then answers only if nothing
that follows could change the answer, which is what lets decoding stop at a complete answer. It
knows nothing about tokens, models or what is right.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import _choice, _numbers
from bitcal_integrations.types import Answer

Parser: TypeAlias = Callable[..., "Answer | None"]  # (text, ended=True) -> Answer or None

_LEAD = r"####\s*(?:(?:<answer>|[Tt]he final answer is:?)\s*)?(?:\*\*)?(?:\\?\$\s*)?(?:\\boxed\{)?"
_MARKED, _MARKED_SO_FAR = _numbers.marked(_LEAD)


def _span(match: re.Match[str] | None, group: int = 1) -> Answer | None:
    if match is None or match.group(group) is None:
        return None
    return Answer(match.group(group), *match.span(group))


def first_line(text: str, ended: bool = True) -> Answer | None:
    """The first line that is not blank.

    >>> first_line("\\n Paris \\nand more").text
    'Paris'
    """
    match = re.search(r"\S[^\n]*", text)
    if match is None or (not ended and match.end() == len(text)):
        return None
    line = match.group().rstrip()
    return Answer(line, match.start(), match.start() + len(line))


def last_number(text: str, ended: bool = True) -> Answer | None:
    """The last number of a finished text; None where it could be read in two ways.

    >>> last_number("12 of 100, so -7.").text, last_number("it is 12 345")
    ('-7', None)
    """
    place = _numbers.last(text) if ended else None
    return Answer(text[slice(*place)], *place) if place else None


def gsm8k(text: str, ended: bool = True) -> Answer | None:
    """The number after the first `####` that has one; what "1,2" or "10-12" means is not guessed.

    >>> gsm8k("so #### $1,200.50").text, gsm8k("#### <answer>72</answer>").text
    ('1,200.50', '72')
    >>> gsm8k("#### 4", ended=False), gsm8k("#### 4.", ended=False)   # 45 or 4.5 may follow
    (None, None)
    """
    return _span((_MARKED if ended else _MARKED_SO_FAR).search(text))


def tiny(text: str, ended: bool = True) -> Answer | None:
    """What follows `####` if it is there, else the first line: the built-in model's form."""
    return gsm8k(text, ended) or (first_line(text) if ended and "####" not in text else None)


def regex(pattern: str) -> Parser:
    """A parser for the first match; its first group is the answer, or the whole match.

    A match that reaches the end of a growing text might still grow, so it waits.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as err:
        raise BadRequest(f"the pattern {pattern!r} is not a regular expression: {err}") from err

    def parse(text: str, ended: bool = True) -> Answer | None:
        match = compiled.search(text)
        if match is None or (not ended and match.end() == len(text)):
            return None
        return _span(match, 1 if compiled.groups else 0)

    return parse


def choice(text: str, ended: bool = True) -> Answer | None:
    """The lettered option that a finished text settles on: the last one it states.

    >>> choice("Either (A) or (B). Answer: B.").text, choice("A cat is on the mat.")
    ('B', None)
    """
    place = _choice.find(text) if ended else None
    return Answer(text[slice(*place)], *place) if place else None


def json_field(name: str) -> Parser:
    """A parser for the value of the first field of that name in a JSON text; null is no answer.

    >>> json_field("answer")('{"why": "6 x 7", "answer": 42}').text
    '42'
    """
    key = re.compile(re.escape(json.dumps(name, ensure_ascii=False)) + r"\s*:\s*(?=\S)")

    def parse(text: str, ended: bool = True) -> Answer | None:
        for match in key.finditer(text):
            found = _json_value(text, match.end(), ended)
            if found is not None or not ended:
                return found
        return None

    return parse


def _json_value(text: str, start: int, ended: bool) -> Answer | None:
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    if value is None or (not ended and end == len(text)):  # 4 may become 42
        return None
    if isinstance(value, str):  # the place of the words, without their quotes
        return Answer(value, start + 1, end - 1)
    return Answer(text[start:end], start, end)


PARSERS: dict[str, Parser] = {
    "choice": choice,
    "first_line": first_line,
    "gsm8k": gsm8k,
    "last_number": last_number,
    "tiny": tiny,
}
_MADE: dict[str, Callable[[str], Parser]] = {"json": json_field, "regex": regex}


def as_parser(what: str | Callable[..., Any] | None) -> Parser | None:
    """The parser for a name, `regex:PATTERN`, `json:FIELD` or a callable; None stays None."""
    if what is None:
        return None
    if isinstance(what, str):
        kind, _, rest = what.partition(":")
        if rest and kind in _MADE:
            return _MADE[kind](rest)
        if what not in PARSERS:
            allowed = ", ".join(sorted(PARSERS))
            raise UnknownName(
                f"{what!r} is not a parser: {allowed}, json:FIELD, regex:PATTERN or a callable"
            )
        return PARSERS[what]
    return _from_callable(what, _takes_ended(what))


def _takes_ended(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False
    return "ended" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _from_callable(function: Callable[..., Any], takes_ended: bool) -> Parser:
    """A user's `text -> answer`: an Answer, or a string that occurs in the text, or None.

    Without a parameter `ended` it cannot tell half an answer from a whole one, so it is asked only
    about texts that have ended.
    """

    def parse(text: str, ended: bool = True) -> Answer | None:
        if takes_ended:
            return _checked(function(text, ended=ended), text)
        return _checked(function(text), text) if ended else None

    return parse


def _checked(found: Any, text: str) -> Answer | None:
    if found is None:
        return None
    if isinstance(found, Answer):
        if not 0 <= found.start <= found.end <= len(text):
            raise BadRequest(f"the parser returned {found!r}, outside a text of {len(text)}")
        return found
    if not isinstance(found, str):
        raise BadRequest(f"a parser returns a string, an Answer or None, not {found!r:.100}")
    start = text.rfind(found)
    if start < 0 or not found:
        raise BadRequest(f"the parser returned {found!r:.100}, which is not part of the text")
    return Answer(found, start, start + len(found))
