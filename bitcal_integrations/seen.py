"""Which prompts a profile has learned from, so that nobody takes them for news afterwards.

Each prompt is kept as four bytes. Under `fit` stands what a calibrator was fitted on, under
`certify` what its certificates were made on, and under `probe` what a probe was fitted on, where
labels have come to `fit` since. Knows prompts only.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from bitcal_integrations.dataset import prompt_digest
from bitcal_integrations.types import Prompt

MOST_MARKS, MARK = 20_000, 4  # prompts that are told apart afterwards, bytes for each
FIT, CERTIFY, PROBED = "fit", "certify", "probe"


def marked(prompts: Iterable[tuple[str, Prompt]]) -> dict[str, str]:
    """Marks of prompts, each with its part, where a report must leave them out."""
    found: dict[str, list[Prompt]] = {FIT: [], CERTIFY: []}
    for part, prompt in prompts:
        found.setdefault(part, []).append(prompt)
    return {part: marks_of(found[part]) for part in (FIT, CERTIFY) if found[part]}


def part_of(prompt: Prompt, seen: Mapping[str, str]) -> str:
    """The part that a prompt was in: fit or certify, else report, as all that is new."""
    parts = (FIT, CERTIFY)
    return next((p for p in parts if is_marked(prompt, seen.get(p, ""))), "report")


def probed(seen: Mapping[str, str]) -> str:
    """Marks of what a probe was fitted on, in a profile that has one."""
    return seen.get(PROBED, seen.get(FIT, ""))


def with_labels(seen: Mapping[str, str], marks: str, probe: bool) -> dict[str, str]:
    """With more prompts in `fit`, of which the probe (where there is one) has seen none.

    >>> seen = {"fit": marks_of(["old"])}
    >>> more = with_labels(seen, marks_of(["new"]), probe=True)
    >>> part_of("new", more), is_marked("old", probed(more)), is_marked("new", probed(more))
    ('fit', True, False)
    """
    kept = {PROBED: probed(seen)} if probe else {}
    return {**seen, FIT: marks_together(seen.get(FIT, ""), marks), **kept}


def marks_of(prompts: Iterable[Prompt]) -> str:
    """Prompts as four bytes each, by which `is_marked` knows them again; empty for too many.

    >>> marks = marks_of(["Is 1 even?", "Is 2 even?"])
    >>> len(marks), is_marked("Is 2 even?", marks), is_marked("Is 3 even?", marks)
    (12, True, False)
    """
    return _written({bytes.fromhex(prompt_digest(prompt))[:MARK] for prompt in prompts})


def marks_together(*marks: str) -> str:
    """The marks of all these prompts."""
    return _written(frozenset[bytes]().union(*map(_marks, marks)))


def _written(marks: Collection[bytes]) -> str:
    return b64encode(b"".join(sorted(marks))).decode() if len(marks) <= MOST_MARKS else ""


def is_marked(prompt: Prompt, marks: str) -> bool:
    return bytes.fromhex(prompt_digest(prompt))[:MARK] in _marks(marks)


@lru_cache(maxsize=16)
def _marks(text: str) -> frozenset[bytes]:
    data = b64decode(text)
    return frozenset(data[at : at + MARK] for at in range(0, len(data), MARK))
