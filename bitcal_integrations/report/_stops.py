"""What ending early has saved, counted from the rows that a stop was in force for.

A saving is an expectation: nobody knows how long an answer that was ended would have become. It
comes from the promise of the plan in force, which was measured on runs to their end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bitcal_integrations.report._rows import number
from bitcal_integrations.report.evaluation import Ended, Stops
from bitcal_integrations.types import Labelled

OWN_END = "its own end"
LEVELS = ("settled", "hopeless", OWN_END)


def stops(rows: Sequence[Labelled]) -> Stops | None:
    """The numbers, or None where no row was asked for with an early stop."""
    held = [(row, row.stop) for row in rows if row.stop is not None]
    if not held:
        return None
    by_level: dict[str, list[Labelled]] = {level: [] for level in LEVELS}
    for row, stop in held:
        by_level[stop.get("level") or OWN_END].append(row)
    known = [
        (row.tokens, share)
        for row, stop in held
        if (share := number(stop.get("saving"))) is not None and share < 1
    ]
    full = sum(tokens / (1 - share) for tokens, share in known)
    spent = sum(tokens for tokens, _ in known)
    return Stops(
        ended=tuple(_ended(level, found) for level, found in by_level.items() if found),
        tokens=sum(row.tokens for row, _ in held),
        probe_tokens=sum(int(stop.get("probe_tokens") or 0) for _, stop in held),
        promised=len(known),
        saved=round(full - spent) if known else None,
        share=1 - spent / full if full else None,
        promises=_different([stop.get("promise") for _, stop in held]),
    )


def _different(promises: Sequence[Mapping[str, Any] | None]) -> tuple[Mapping[str, Any], ...]:
    """Each whole promise once, in the order they came."""
    found: list[Mapping[str, Any]] = []
    for promise in promises:
        if promise and {"max_loss", "delta", "n"} <= set(promise) and promise not in found:
            found.append(promise)
    return tuple(found)


def _ended(level: str, rows: Sequence[Labelled]) -> Ended:
    verdicts = Counter(row.correct for row in rows)
    tokens = sum(row.tokens for row in rows) / len(rows)
    return Ended(level, len(rows), verdicts[True], verdicts[False], verdicts[None], tokens)
