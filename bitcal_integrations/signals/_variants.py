"""The same question put another way, so that a firm answer stays: what `perturb` asks.

It reads prompts as text: lettered option lines and the context blocks of common RAG prompts. It
knows no model, and where it recognises nothing it only adds a line before the question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bitcal_integrations.grading import as_parser, choice
from bitcal_integrations.types import Answer, Prompt, Request

OTHER_TEMPLATE = "Please answer the following.\n\n"
_LETTERS = "ABCDEFGHIJ"
_OPTION = re.compile(r"^([^\S\n]*\(?)([A-J])([.):][^\S\n]*)(\S.*)$", re.MULTILINE)
# An option that speaks of others or of its place means something else elsewhere.
_BOUND = re.compile(r"\b(?:above|below|previous|(?:both|and|or|neither)\s+\(?[A-J]\b)")
_NAMES = "context|documents?|passages?|sources?"
_MANY = re.MULTILINE | re.IGNORECASE
# How a block of context begins and ends; the last kind also ends with its text.
_CONTEXTS = (
    (re.compile(r"^-{5,}[^\S\n]*\n", _MANY), re.compile(r"\n-{5,}[^\S\n]*$", _MANY), False),
    (re.compile(rf"<(?:{_NAMES})>"), re.compile(r"</"), False),
    (
        re.compile(rf"^(?:new\s)?(?:{_NAMES})[^\S\n]?:", _MANY),
        re.compile(r"\n[^\S\n]{0,9}(?:question|query|original answer|answer)\b", _MANY),
        True,
    ),
)


def variant(request: Request) -> Request:
    """The request with options moved on, else with a passage less, else in another template."""
    request = replace(request, top_logprobs=0)
    options = lettered(_last_user(request.prompt))
    if options:
        moved = _replaced(request.prompt, lambda text: rotated(text, lettered(text)))
        return replace(request, prompt=moved, parser=turned_back(request.parser, len(options)))
    shorter = _replaced(request.prompt, without_last_passage, anywhere=True)
    if shorter != request.prompt:
        return replace(request, prompt=shorter)
    return replace(request, prompt=_replaced(request.prompt, lambda text: OTHER_TEMPLATE + text))


def _last_user(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    said = [str(m["content"]) for m in prompt if m["role"] == "user"]
    return said[-1] if said else ""


def _replaced(prompt: Prompt, change: Callable[[str], str], anywhere: bool = False) -> Prompt:
    """The prompt with its last user text changed; with `anywhere`, the last text that changes."""
    if isinstance(prompt, str):
        return change(prompt)
    turns = [dict(m) for m in prompt]
    for turn in reversed(turns):
        if turn["role"] == "user" or (anywhere and turn["role"] != "assistant"):
            before = str(turn["content"])
            turn["content"] = change(before)
            if not anywhere or turn["content"] != before:
                break
    return tuple(turns)


def lettered(text: str) -> list[re.Match[str]]:
    """The last run of option lines "A. ...", "B. ..."; empty where there is none to move.

    >>> [m.group(4) for m in lettered("Which?\\nA. red\\nB. blue\\nAnswer:")]
    ['red', 'blue']
    """
    run: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        at = _LETTERS.index(match.group(2))
        run = [match] if at == 0 else ([*run, match] if at == len(run) and run else [])
    fixed = any(_BOUND.search(m.group(4)) for m in run)
    return run if len(run) > 1 and not fixed else []


def rotated(text: str, options: list[re.Match[str]]) -> str:
    """Every option one letter further, the last one first: none keeps its letter.

    >>> text = "A. red\\nB. blue\\nC. green"
    >>> rotated(text, lettered(text)).splitlines()
    ['A. green', 'B. red', 'C. blue']
    """
    out, done = "", 0
    for place, moved in zip(options, [options[-1], *options], strict=False):
        out += text[done : place.start(4)] + moved.group(4)
        done = place.end(4)
    return out + text[done:]


def turned_back(parser: Any, n: int) -> Callable[..., Answer | None]:
    """The request's parser (else `choice`), with the letter that the option had before."""
    parse = as_parser(parser) or choice

    def parse_back(text: str, ended: bool = True) -> Answer | None:
        found = parse(text, ended=ended)
        match = re.match(r"\s*\(?([A-Ja-j])(?=[).:\]*]|\s*$)", found.text) if found else None
        if found is None or match is None:
            return found
        at = _LETTERS.index(match.group(1).upper())
        letter = _LETTERS[(at - 1) % n] if at < n else match.group(1)
        words = found.text[: match.start(1)] + letter + found.text[match.end(1) :]
        return Answer(words, found.start, found.end)

    return parse_back


def without_last_passage(text: str) -> str:
    """The text with the last passage of its context left out, where the context has several.

    >>> without_last_passage("Context: Rome is old.\\n\\nOslo is cold.\\nQuestion: Where?")
    'Context: Rome is old.\\nQuestion: Where?'
    """
    for begins, ends, open_end in _CONTEXTS:
        start = begins.search(text)
        end = ends.search(text, start.end()) if start else None
        if start and (end or open_end):
            block = text[start.end() : end.start() if end else None].rstrip()
            gaps = list(re.finditer(r"\n[^\S\n]*\n\s*", block))
            if gaps and block[: gaps[-1].start()].strip():
                last = start.end() + gaps[-1].start()
                return text[:last] + text[start.end() + len(block) :]
    return text
