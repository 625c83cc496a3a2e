"""Are new scores like those the calibrator was fitted on? A two-sample test per signal.

The distance is Kolmogorov-Smirnov's: the largest gap between the two cumulative shares of any one
signal, from 0 (alike) to 1 (apart). It sees each signal alone, not how they hang together, and it
knows no labels: scores that look alike may still be right less often.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitcal_integrations.errors import CalibrationError

LIMIT = 0.15  # gaps below it are no shift however sure they are
SURE = 0.001
GRID = 201  # quantiles kept per signal


@dataclass(frozen=True)
class ShiftReport:
    """`distance` in 0..1 and the `p_value` of one as large by chance, over all signals.

    `in_domain` is False only if the distance is above LIMIT and p_value below SURE.
    """

    in_domain: bool
    distance: float
    p_value: float


@dataclass(frozen=True)
class Reference:
    """Quantiles of each signal in the calibration set, on the calibrator's scale, and its rows."""

    n: int
    quantiles: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, z: np.ndarray) -> Reference:
        return cls(len(z), tuple(tuple(quantiles(c).tolist()) for c in z.T))

    def compare(self, z: np.ndarray) -> ShiftReport:
        """Against new rows on the same scale."""
        if not len(z):
            raise CalibrationError("there is no complete row to compare with the calibration set")
        gaps = [_gap(np.asarray(q), c) for q, c in zip(self.quantiles, z.T, strict=True)]
        distance = max(gaps)
        p = min(1.0, len(gaps) * chance(distance, self.n, len(z)))
        return ShiftReport(not (distance > LIMIT and p < SURE), distance, p)

    def to_dict(self) -> dict[str, Any]:
        return {"n": self.n, "quantiles": [list(q) for q in self.quantiles]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Reference:
        return cls(data["n"], tuple(tuple(q) for q in data["quantiles"]))


def quantiles(column: np.ndarray) -> np.ndarray:
    return np.quantile(column, np.linspace(0, 1, GRID))


def _gap(reference: np.ndarray, column: np.ndarray) -> float:
    """Largest gap of the two cumulative shares, both sides of every step looked at."""
    kept, new = np.sort(reference), np.sort(column)
    points = np.concatenate([kept, new])
    gaps = [
        np.abs(np.searchsorted(kept, points, side) / kept.size
               - np.searchsorted(new, points, side) / new.size).max()
        for side in ("left", "right")
    ]  # fmt: skip
    return float(max(gaps))


def chance(distance: float, n: int, m: int) -> float:
    """P(a Kolmogorov-Smirnov distance this large) for n and m rows of one distribution."""
    root = math.sqrt(n * m / (n + m))
    size = (root + 0.12 + 0.11 / root) * distance  # Stephens' correction for few rows
    if size < 0.2:
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * size) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))
