"""Two models on the same questions: how far their scores differ, with intervals of the pairs.

The interval is a bootstrap that draws whole groups, and gives both models the same draw. Numpy
only; knows neither models nor what they were asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import SMALLEST, group_numbers

Array: TypeAlias = np.ndarray
Statistic: TypeAlias = Callable[[Array], float]

FEW = 10  # groups: a bootstrap over fewer says nothing about the next group
TAIL = 0.025  # on each side of an interval
NOISE = 1e-12  # of sums: draws that differ by less do not differ
DRAWS = 1000
FIELDS = ("right", "raw", "calibrated", "groups")
KEYS = (
    "accuracy", "brier_raw", "brier_calibrated", "nll_raw", "nll_calibrated", "auroc_raw",
    "auroc_calibrated",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A metric of one model minus that of another, on the questions that both have it for.

    `low` and `high` are a 95% interval; None with too few groups for one, and for AUROC with too
    few that hold a right or a wrong answer.
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def clear(self) -> bool:
        """Whether its interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, eq=False)
class Columns:
    """What one model did with the same questions, in the same order as every other; NaN is unknown.

    `right` is 1 or 0, `raw` and `calibrated` are P(right) before and after calibration.
    """

    right: Array
    raw: Array
    calibrated: Array
    groups: Array

    def known(self, score: str = "") -> Array:
        """Which questions have a verdict, and this score."""
        judged = np.isfinite(self.right)
        return judged & np.isfinite(getattr(self, score)) if score else judged

    def rarer(self, score: str = "") -> int:
        """Groups with a right answer or groups with a wrong one, whichever are fewer."""
        known = self.known(score)
        return min(len(set(self.groups[known & (self.right == verdict)])) for verdict in (0, 1))

    def where(self, rows: Array) -> Columns:
        """The same of some of the questions."""
        return Columns(*(getattr(self, name)[rows] for name in FIELDS))


def compare(
    one: Columns, other: Columns, draws: int = DRAWS, seed: int = 0
) -> dict[str, Difference]:
    """The difference of every metric by its name in KEYS; None where it is undefined.

    >>> a = Columns(*(np.array(v) for v in ([1.0, 0.0], [0.9, 0.4], [0.8, 0.2], ["q", "r"])))
    >>> b = Columns(a.right, np.array([0.6, 0.4]), a.calibrated, a.groups)
    >>> round(compare(a, b)["brier_raw"].value, 3)
    -0.075
    """
    if one.groups.shape != other.groups.shape or (one.groups != other.groups).any():
        raise CalibrationError("two models are compared on the same questions in the same order")
    found = {}
    for score in ("", "raw", "calibrated"):
        both = one.known(score) & other.known(score)
        pairs = {name: (a, b) for name, a, b in _statistics(one, other, score, both)}
        found.update(_differences(pairs, one.groups[both], draws, seed))
        # A bootstrap takes the few answers of one kind for all there are: with one wrong answer in
        # a hundred, AUROC of two equally good scores seemed to differ in more than half of all runs
        if score and min(c.where(both).rarer(score) for c in (one, other)) < FEW:
            found[f"auroc_{score}"] = Difference(found[f"auroc_{score}"].value)
    found["accuracy"] = _bounded(found["accuracy"], one.groups[one.known() & other.known()])
    return {key: found[key] for key in KEYS}


def _bounded(d: Difference, groups: Array) -> Difference:
    """Where all groups differ alike no draw moves it: bounds by the share that may be unlike them.

    >>> d = _bounded(Difference(0.0), np.arange(50))
    >>> round(d.low, 3), round(d.high, 3)
    (-0.071, 0.071)
    """
    n = len(set(groups))
    if d.value is None or d.low is not None or n < FEW:
        return d
    unlike = 1 - TAIL ** (1 / n)
    return Difference(d.value, d.value - unlike * (1 + d.value), d.value + unlike * (1 - d.value))


def pooled(parts: Sequence[Columns]) -> Columns:
    """Several sets of questions as one; a group that is in more than one of them is one group."""
    return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


def _statistics(
    one: Columns, other: Columns, score: str, rows: Array
) -> list[tuple[str, Statistic, Statistic]]:
    """Name and both sides of each metric that needs this score; "" needs none."""
    sides = [(c.right[rows], getattr(c, score)[rows] if score else None) for c in (one, other)]
    if not score:
        a, b = (_mean(y) for y, _ in sides)
        return [("accuracy", a, b)]
    return [
        (f"{name}_{score}", *(make(p, y) for y, p in sides))  # type: ignore[arg-type, misc]
        for name, make in (("brier", _brier), ("nll", _nll), ("auroc", _auroc))
    ]


def _mean(values: Array) -> Statistic:
    return lambda w: float(w @ values / w.sum())


def _brier(p: Array, y: Array) -> Statistic:
    return _mean((p - y) ** 2)


def _nll(p: Array, y: Array) -> Statistic:
    return _mean(-np.log(np.maximum(np.where(y == 1, p, 1 - p), SMALLEST)))


def _auroc(p: Array, y: Array) -> Statistic:
    """Ranked once: a draw only weighs the rows anew. NaN where a draw has one class."""
    where = np.unique(p, return_inverse=True)[1].reshape(-1)

    def of(w: Array) -> float:
        right, wrong = (np.bincount(where, weights=w * side) for side in (y, 1 - y))
        pairs = right.sum() * wrong.sum()
        return float(right @ (np.cumsum(wrong) - wrong / 2) / pairs) if pairs else np.nan

    return of


def _differences(
    pairs: Mapping[str, tuple[Statistic, Statistic]], groups: Array, draws: int, seed: int
) -> dict[str, Difference]:
    if not groups.size:
        return dict.fromkeys(pairs, Difference(None))

    def at(w: Array) -> list[float]:
        return [a(w) - b(w) for a, b in pairs.values()]

    value = at(np.ones(groups.size))
    where = group_numbers(groups, groups.size)
    n = int(where.max()) + 1
    rng = np.random.default_rng(seed)
    times = draws if n >= FEW else 0
    drawn = [at(np.bincount(rng.integers(n, size=n), minlength=n)[where]) for _ in range(times)]
    table = np.array(drawn).reshape(len(drawn), len(pairs))
    return {
        name: _difference(v, column) for name, v, column in zip(pairs, value, table.T, strict=True)
    }


def _difference(value: float, drawn: Array) -> Difference:
    """With the interval of the draws in which it is defined; None where nothing is."""
    if np.isnan(value):
        return Difference(None)
    drawn = drawn[~np.isnan(drawn)]
    if not drawn.size or np.ptp(drawn) < NOISE:  # no draw moves it, so that none can bound it
        return Difference(value)
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL])
    return Difference(value, float(low), float(high))
