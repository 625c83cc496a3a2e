"""Which answers to label next, and what labels chosen like that say of all answers.

Every answer has a number in [0, 1) that its id alone decides. Within a stratum of confidence the
answers with the smallest numbers are chosen, so that asking for more later only adds to them, and
the probability that an answer was chosen is known. Numpy only; it knows no record or store.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.metrics import Z95, group_numbers, wilson

AUDIT = 0.01
# Shares of the answers, by confidence: the last stratum holds the most confident.
STRATA = (0.2, 0.4, 0.6, 0.8, 0.95)
TOP = 2  # so many times as many labels go to the most confident as to another stratum


@dataclass(frozen=True)
class Choice:
    """An answer to be labelled, the probability of being chosen, and why it was."""

    id: str
    probability: float
    why: str


def draw(id_: str, seed: int = 0) -> float:
    """The number of an answer: uniform over ids, always the same for one.

    >>> draw("a") == draw("a") != draw("a", seed=1)
    True
    """
    return int.from_bytes(sha256(f"{seed}|{id_}".encode()).digest()[:8], "big") / 2**64


def choose(
    ids: Sequence[str],
    confidence: Any,
    n: int,
    *,
    picked: Mapping[str, float] | None = None,
    audit: float = AUDIT,
    seed: int = 0,
) -> list[Choice]:
    """Choices among these answers, of which about `n` are not in `picked` yet.

    `confidence` is NaN where it is unknown; those are a stratum of their own. The audit takes the
    share `audit` of all answers whatever their confidence, even where that is more than `n`.
    `picked` maps answers chosen before to their probability; what raises that is among the choices
    again.
    """
    _check(n, audit)
    before = picked or {}
    p = np.asarray(confidence, dtype=float).reshape(-1)
    if p.size != len(ids):
        raise BadRequest(f"{p.size} confidences were given for {len(ids)} answers")
    u = np.array([draw(i, seed) for i in ids])
    fresh = np.array([i not in before for i in ids], dtype=bool)
    found = []
    strata = _strata(p)
    for (words, inside), wanted in zip(strata, _budgets(strata, fresh, n), strict=True):
        order = inside[np.argsort(u[inside])]
        taken = _prefix(fresh[order], u[order], wanted, audit)
        chance = max(audit, taken / order.size) if taken > (u[order] < audit).sum() else audit
        for i in order[:taken]:
            probability = max(chance, before.get(ids[i], 0.0))
            if fresh[i] or probability > before[ids[i]]:
                found.append(Choice(ids[i], probability, "audit" if u[i] < audit else words))
    return found


def _check(n: Any, audit: Any) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise BadRequest(f"n={n!r} is not allowed: it is the number of answers to label, 0 or more")
    if isinstance(audit, bool) or not isinstance(audit, (int, float)) or not 0 <= audit <= 1:
        raise BadRequest(f"audit={audit!r} is not allowed: it is a share in [0, 1]")


def _strata(p: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Words and members of each stratum from low to high; those without a confidence come first."""
    unknown = np.flatnonzero(np.isnan(p))
    found = [("no confidence", unknown)] if unknown.size else []
    known = np.flatnonzero(~np.isnan(p))
    if not known.size:
        return found
    edges = np.unique(np.quantile(p[known], STRATA))
    where = np.searchsorted(edges, p[known], side="left")
    for k in np.unique(where):
        inside = known[where == k]
        found.append((f"confidence {p[inside].min():.2f} to {p[inside].max():.2f}", inside))
    return found


def _budgets(strata: Sequence[tuple[str, np.ndarray]], fresh: np.ndarray, n: int) -> list[int]:
    """How many fresh answers to take of each stratum; what one has not goes to the others."""
    free = [int(fresh[inside].sum()) for _, inside in strata]
    weights = [1] * (len(strata) - 1) + [TOP]
    given = [0] * len(strata)
    for _ in range(min(n, sum(free))):
        open_ = [k for k, most in enumerate(free) if given[k] < most]
        given[max(open_, key=lambda k: (weights[k] / (given[k] + 1), k))] += 1
    return given


def _prefix(fresh: np.ndarray, u: np.ndarray, wanted: int, audit: float) -> int:
    """How many of a stratum's answers, by their number, are chosen."""
    enough = np.searchsorted(np.cumsum(fresh), wanted) + 1 if wanted else 0
    return int(max(enough, (u < audit).sum()))


@dataclass(frozen=True)
class Estimated:
    """A mean over all answers from `n` labelled ones, worth `effective` drawn evenly; 95%."""

    value: float
    low: float
    high: float
    n: int
    effective: float


def weighted_mean(
    values: Any, probability: Any, share: bool = False, groups: Any = None
) -> Estimated:
    """The mean of all answers from those that were chosen with these probabilities (Hajek).

    Each label stands for 1 / probability answers. `share` says that values are 0 or 1: the
    interval is then Wilson's for as many labels as these are worth. Rows of one of the `groups`
    vary together.

    >>> weighted_mean([1, 0], [0.5, 0.1], share=True).value  # one stands for 2, one for 10
    0.16666666666666666
    """
    v, pi = (np.asarray(a, dtype=float) for a in (values, probability))
    if v.ndim != 1 or v.shape != pi.shape or not v.size:
        raise CalibrationError(f"{v.shape} values need one probability each, not {pi.shape}")
    if not ((pi > 0) & (pi <= 1)).all():
        bad = pi[~((pi > 0) & (pi <= 1))][0]
        raise CalibrationError(f"an answer was chosen with the probability {bad}: it is in (0, 1]")
    where = np.arange(v.size) if groups is None else group_numbers(groups, v.size)
    w = 1 / pi
    mean = float(w @ v / w.sum())
    sums, each = np.bincount(where, w * (v - mean)), np.bincount(where, w)
    lone = sums.size / max(1, sums.size - 1)
    spread = float(sums @ sums) / w.sum() ** 2 * lone
    effective = float(w.sum() ** 2 / (each @ each))  # Kish's, of groups
    if not share:
        half = Z95 * math.sqrt(spread)
        return Estimated(mean, mean - half, mean + half, v.size, effective)
    if spread > 0:
        effective = float(mean * (1 - mean) / spread)
    n = max(1, round(effective))
    return Estimated(mean, *wilson(mean * n, n), v.size, effective)
