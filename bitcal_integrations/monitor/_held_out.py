"""Is a new way to say P(right) better than the old one? Compared on labels it was not fitted on.

Every label is predicted by a fit that has not seen its question; the differences of the squared
errors are paired, weighed by how probable it was that the answer was labelled, and their interval
knows which answers share a question. Knows arrays; no calibrator, record or store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.calibrators._auto import folds_of
from bitcal_integrations.monitor._sampling import Estimated, weighted_mean

Predict: TypeAlias = "Callable[[np.ndarray], np.ndarray]"  # row numbers -> P(right) of each
Fit: TypeAlias = "Callable[[np.ndarray], Predict]"  # row numbers -> the same for any rows


@dataclass(frozen=True)
class Compared:
    """Brier scores of old and new on the same labels, and new minus old with its 95% interval."""

    old: float
    new: float
    change: Estimated
    p_new: np.ndarray

    @property
    def better(self) -> bool:
        """Whether the new one is clearly better: its whole interval lies below 0."""
        return self.change.high < 0


def crossed(fit: Fit, groups: np.ndarray) -> np.ndarray:
    """P(right) of every row by a fit on the other folds; a group is never on both sides."""
    fold = folds_of(groups)
    out = np.empty(len(groups))
    for held in range(fold.max() + 1):
        rows = np.flatnonzero(fold == held)
        out[rows] = fit(np.flatnonzero(fold != held))(rows)
    return out


def compare(
    p_old: np.ndarray, p_new: np.ndarray, y: np.ndarray, chance: np.ndarray, groups: np.ndarray
) -> Compared:
    old, new = (p_old - y) ** 2, (p_new - y) ** 2
    return Compared(
        weighted_mean(old, chance).value,
        weighted_mean(new, chance).value,
        weighted_mean(new - old, chance, groups=groups),
        p_new,
    )


def summary_of(
    p: np.ndarray, y: np.ndarray, chance: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    """Every metric by name, of all answers like these.

    Where some answers were likelier to be labelled than others, only what can be weighed is
    known: the accuracy and the Brier score; None stands for the rest.
    """
    plain = metrics.summary(p, y, groups=groups)
    if np.ptp(chance) == 0:
        return plain
    right = weighted_mean(y, chance, groups=groups).value
    brier = weighted_mean((p - y) ** 2, chance, groups=groups)
    known = {
        "n": plain["n"], "accuracy": right, "base_brier": right * (1 - right),
        "brier": brier.value, "brier_low": max(0.0, brier.low), "brier_high": brier.high,
    }  # fmt: skip
    return {**dict.fromkeys(plain), **known}
