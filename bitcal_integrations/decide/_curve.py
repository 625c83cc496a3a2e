"""The deferral curve: what accuracy is lost when only a share of the answers is escalated.

Measured on cross-fitted gains, so that no answer is ranked by a model that has seen its label.
It knows neither costs nor rules.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
RATES = tuple(r / 100 for r in range(101))


class Point(NamedTuple):
    """Escalate gains >= threshold (None: nothing): the share escalated and the accuracy lost.

    `regret` is the accuracy of the big model minus that of the cascade, `se` its standard error.
    """

    rate: float
    threshold: float | None
    escalation: float
    regret: float
    se: float


def cut(gains: Array, rate: float) -> float | None:
    """The lowest threshold that at most a share `rate` of the gains reaches; ties stay together.

    >>> cut(np.array([0.3, 0.1, 0.1, 0.0]), 0.5), cut(np.array([0.3, 0.1, 0.1, 0.0]), 0.8)
    (0.3, 0.1)
    """
    values, counts = np.unique(-gains, return_counts=True)
    fits = np.cumsum(counts) <= rate * gains.size + 1e-9
    return float(-values[fits][-1]) if fits.any() else None


def deferral(
    final: Array, crossed: Array, diff: Array, folds: Array, groups: Array
) -> tuple[Point, ...]:
    """One point per rate: thresholds on the final model's gains, regret by the cross-fitted ones.

    The models of the folds differ in scale, so each fold is cut at the rate, not at the value.
    """
    points = []
    for rate in RATES:
        kept = np.ones(len(diff), dtype=bool)
        for fold in np.unique(folds):
            inside = folds == fold
            threshold = cut(crossed[inside], rate)
            if threshold is not None:
                kept[inside] = crossed[inside] < threshold
        regret, se = mean_and_error(kept * diff, groups)
        threshold = cut(final, rate)
        share = 0.0 if threshold is None else float(np.mean(final >= threshold))
        points.append(Point(rate, threshold, share, regret, se))
    return tuple(points)


def mean_and_error(values: Array, groups: Array) -> tuple[float, float]:
    """The mean and its standard error, rows of one group counted as one draw."""
    mean = float(values.mean())
    _, where = np.unique(groups, return_inverse=True)
    sums = np.bincount(where, weights=values - mean)
    return mean, math.sqrt(float(np.sum(sums**2))) / len(values)
