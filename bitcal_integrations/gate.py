"""Whether a changed model answers better, by the same questions before and after.

It passes if the Brier score falls by more than chance explains and right answers do not get fewer.
Knows examples and numbers; knows neither models nor what was changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.dataset import Example, read_examples, split
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.grading import as_grader
from bitcal_integrations.types import Labelled

# What is left of the file, half of it, is the certify and the report part of fit_profile with the
# same seed: a profile of the recovered model may be measured on the same file, and stays honest.
SHARES = (0.25, 0.25)
FEWEST = 30  # groups of questions, for a standard error that means something
ERRORS = 2.0  # standard errors by which held-out Brier must improve
MOST_LOST = 0.01  # of all answers, that have no confidence any more


@dataclass(frozen=True)
class Change:
    """A mean before and after, their difference and its standard error, paired by question and
    clustered by group."""

    before: float
    after: float
    difference: float
    error: float
    n: int
    groups: int


def held_apart(
    examples: Any,
    *,
    grader: Any = "normalised",
    group_id: str | Callable[[Mapping[str, Any]], Any] | None = None,
    parts: Sequence[float] = SHARES,
    seed: int = 0,
) -> tuple[list[Example], list[Example]]:
    """The prompts to learn from and the labelled questions of the gate; no group is in both."""
    as_grader(grader)
    if len(parts) != 2 or not all(0 < s < 1 for s in parts) or sum(parts) > 1 + 1e-9:
        raise BadRequest(
            f"parts={tuple(parts)!r} is not allowed: two shares above 0, of prompts to learn from "
            "and of held-out questions, that add up to 1 or less"
        )
    found = read_examples(examples, group_id=group_id, need_gold=False, any_gold=callable(grader))
    place = split(found, (*parts, max(0.0, 1 - sum(parts))), seed)
    learning = [e for e in found if place[e.id] == "fit"]
    held_out = [e for e in found if place[e.id] == "certify" and e.gold is not None]
    if all(e.gold is None for e in found):
        raise CalibrationError(f"none of {len(found)} examples has a right answer to judge by")
    groups = len({e.group for e in held_out})
    if groups < FEWEST or not learning:
        raise CalibrationError(
            f"{len(found)} examples in {len({e.group for e in found})} groups are too few: "
            f"{groups} groups with right answers would be held out, and {FEWEST} are needed",
            f"Give labelled examples in {math.ceil(FEWEST / parts[1])} groups or more.",
        )
    learning.sort(key=lambda e: sha256(f"{seed}|{e.id}".encode()).digest())
    return learning, held_out


def judge(before: Sequence[Labelled], after: Sequence[Labelled]) -> dict[str, Any]:
    """Whether the answers after are better than those before to the same questions, and why."""
    pairs = [
        (b, a)
        for b, a in zip(before, after, strict=True)
        if b.correct is not None and a.correct is not None
    ]
    known = [(b, a) for b, a in pairs if None not in (b.confidence.raw, a.confidence.raw)]
    brier, accuracy = _change(known, _squared), _change(pairs, _right)
    summaries = [_summary([pair[side] for pair in known]) for side in (0, 1)]
    had_none, have_none = (sum(r.confidence.raw is None for r in side) for side in (before, after))
    kept, why = _verdict(brier, accuracy, (had_none, have_none, len(before)))
    return {
        "kept": kept,
        "why": why,
        "brier": brier,
        "accuracy": accuracy,
        "auroc": tuple(found["auroc"] for found in summaries),
        "ece": tuple(found["ece"] for found in summaries),
        "unknown": (had_none, have_none),
    }


def _verdict(brier: Change, accuracy: Change, unknown: tuple[int, int, int]) -> tuple[bool, str]:
    if brier.groups < FEWEST:
        return False, (
            f"{brier.groups} groups of held-out questions have a confidence before and after, and "
            f"{FEWEST} are needed"
        )
    if brier.difference >= -ERRORS * brier.error or brier.difference >= 0:
        return False, (
            f"held-out Brier changed by {brier.difference:+.4f}, and {ERRORS:g} standard errors "
            f"are {ERRORS * brier.error:.4f}"
        )
    if accuracy.difference < -1e-12:
        return False, (
            f"the share of right answers fell from {accuracy.before:.4f} to {accuracy.after:.4f}"
        )
    had_none, have_none, n = unknown
    if have_none - had_none > MOST_LOST * n:  # they are not scored: leaving some out is no gain
        return False, (
            f"{have_none} of {n} answers have no confidence, and before {had_none} had none"
        )
    return True, (
        f"held-out Brier fell by {-brier.difference:.4f}, more than {ERRORS:g} standard errors "
        f"({ERRORS * brier.error:.4f})"
    )


def _right(row: Labelled) -> float:
    return float(bool(row.correct))


def _squared(row: Labelled) -> float:
    assert row.confidence.raw is not None
    return (row.confidence.raw - _right(row)) ** 2


def _summary(rows: Sequence[Labelled]) -> dict[str, Any]:
    p, y = [r.confidence.raw for r in rows], [_right(r) for r in rows]
    return {
        "auroc": metrics.auroc(p, y) if 0 < sum(y) < len(y) else None,
        "ece": metrics.ece(p, y) if rows else None,
    }


def _change(
    pairs: Sequence[tuple[Labelled, Labelled]], measure: Callable[[Labelled], float]
) -> Change:
    if not pairs:
        return Change(math.nan, math.nan, math.nan, math.inf, 0, 0)
    before, after = (np.array([measure(pair[side]) for pair in pairs]) for side in (0, 1))
    groups = [b.group for b, _ in pairs]
    error = clustered_error(after - before, groups)
    means = float(before.mean()), float(after.mean())
    return Change(*means, means[1] - means[0], error, len(pairs), len(set(groups)))


def clustered_error(off: np.ndarray, groups: Sequence[str]) -> float:
    """The standard error of a mean where rows of one group count as one draw.

    >>> clustered_error(np.array([1.0, 1, 0, 0]), ["a", "a", "b", "b"])
    0.5
    """
    where = metrics.group_numbers(list(groups), len(off))
    sums = np.bincount(where, weights=off - off.mean())
    if len(sums) < 2:
        return math.inf
    return math.sqrt(len(sums) / (len(sums) - 1) * float(np.sum(sums**2))) / len(off)
