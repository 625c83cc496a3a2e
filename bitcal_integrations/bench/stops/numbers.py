"""Means, shares and ratios with intervals, all drawn again on the same resampled questions.

So differences between the rules of a table are paired. Numpy only; it knows no runs and no rules.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bitcal_integrations.metrics import wilson

Array: TypeAlias = np.ndarray
DRAWS = 1000
LEVEL = 0.95


class Figure(NamedTuple):
    """A number with the interval that holds it 95 times in a hundred."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return self._asdict()


class Resample:
    """Questions drawn again, whole groups at a time, always the same draws for a seed.

    >>> again = Resample(["a", "b", "b", "c"])
    >>> again.mean([1, 1, 1, 1])
    Figure(value=1.0, low=1.0, high=1.0)
    >>> again.ratio([1, 2, 1, 2], [2, 4, 2, 4])   # each row has half
    Figure(value=0.5, low=0.5, high=0.5)
    """

    def __init__(self, groups: Sequence[Hashable], draws: int = DRAWS, seed: int = 0) -> None:
        numbers: dict[Hashable, int] = {}
        self._row = np.array([numbers.setdefault(g, len(numbers)) for g in groups])
        many, rng = len(numbers), np.random.default_rng(seed)
        self._times = np.empty((draws, many), np.float32)
        for draw in range(draws):
            drawn = rng.integers(many, size=many)
            self._times[draw] = np.bincount(drawn, minlength=many)

    def mean(self, values: Any) -> Figure:
        """Mean of one number a row."""
        values = np.asarray(values, float)
        return self.ratio(values, np.ones_like(values))

    def share(self, values: Any) -> Figure:
        """Share of rows, with its Wilson interval as if each group were one row.

        It is an interval even where no row has it, which drawing again cannot give.

        >>> Resample(list("abcdefghij")).share([False] * 10).high > 0.2
        True
        """
        values = np.asarray(values, float)
        mean, many = float(values.mean()), self._times.shape[1]
        return Figure(mean, *wilson(mean * many, many))

    def ratio(self, above: Any, below: Any) -> Figure:
        """Sum of one number by the sum of another."""
        a, b = np.asarray(above, float), np.asarray(below, float)
        drawn = self._sums(a) / self._sums(b)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Figure(float(a.sum() / b.sum()), float(low), float(high))

    def saved(self, spent: Any, full: Any) -> Figure:
        """The share of `full` that `spent` is less.

        >>> Resample(["a", "b"]).saved([3, 6], [4, 8])
        Figure(value=0.25, low=0.25, high=0.25)
        """
        full = np.asarray(full, float)
        return self.ratio(full - np.asarray(spent, float), full)

    def _sums(self, values: Array) -> Array:
        by_group = np.bincount(self._row, weights=values, minlength=self._times.shape[1])
        return self._times.astype(float) @ by_group


def share(right: Any) -> Figure:
    """A share of rows that do not repeat a question, with its Wilson interval.

    >>> share([True] * 8 + [False] * 2).value
    0.8
    """
    right = np.asarray(right, float)
    return Figure(float(right.mean()), *wilson(float(right.sum()), right.size))
