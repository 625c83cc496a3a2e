"""How good probabilities are, from arrays: p = P(right) of each answer, y = 1 if it was right.

Numpy only; it knows neither models nor calibrators. A row without a probability is refused, never
skipped: unknown answers must be counted by the caller. What is undefined (AUROC with one class)
is NaN, and None in `summary`. Brier and NLL are proper scores; ECE and MCE rank nothing by
themselves (a constant sits at the sampling floor), so they stand beside that floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bitcal_integrations.errors import CalibrationError

Array: TypeAlias = np.ndarray
Metric: TypeAlias = Callable[[Any, Any], float]

# A probability of exactly 0 costs -log of this in `nll`, not infinity.
SMALLEST = float(np.finfo(np.float64).eps)
Z95 = 1.959963984540054


class UBCE(NamedTuple):
    """Mean |p - y| and its two halves: doubt in right answers and trust in wrong ones."""

    total: float
    correct: float
    incorrect: float


class Bin(NamedTuple):
    """One bin of a reliability curve: its range of p, its rows, mean p, and the share right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


class RiskCoverage(NamedTuple):
    """Accept p >= threshold[i]: the share accepted and the share wrong among them."""

    coverage: Array
    risk: Array
    threshold: Array


def checked(p: Any, y: Any) -> tuple[Array, Array]:
    """Both as float arrays of one length, or an error that names the first wrong row."""
    p, y = numbers("p", p), numbers("y", y)
    if p.ndim != 1 or p.shape != y.shape or not p.size:
        raise CalibrationError(
            f"p and y must be two lists of one length above 0, not {p.shape} and {y.shape}"
        )
    _refuse(np.isnan(p), p, "p", "every row needs a probability: leave unknown answers out")
    _refuse((p < 0) | (p > 1), p, "p", "a probability lies between 0 and 1")
    _refuse((y != 0) & (y != 1), y, "y", "a label is 0 (wrong) or 1 (right)")
    return p, y


def numbers(name: str, values: Any) -> Array:
    """As a float array, or an error that quotes what is no number."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"{name} must hold numbers only: {error}") from error


def group_numbers(groups: Any, n: int) -> Array:
    """A whole number from 0 on for the group of each of n rows, alike for rows of one group.

    >>> group_numbers(["b", "a", "b"], 3).tolist()
    [1, 0, 1]
    """
    try:
        named = np.asarray(groups)
        lost = [g for g in named.reshape(-1).tolist() if g is None or g != g]
        where = np.unique([] if lost else named, return_inverse=True)[1].reshape(-1)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"groups must be all texts or all numbers: {error}") from error
    if named.shape != (n,):
        raise CalibrationError(f"groups has the shape {named.shape}; one per row is ({n},)")
    if lost:
        raise CalibrationError(f"groups holds {lost[0]!r}; every row needs the name of its group")
    return where


def _refuse(bad: Array, values: Array, name: str, allowed: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(f"{name}[{row}] is {float(values[row])}; {allowed}")


def brier(p: Any, y: Any) -> float:
    """Mean squared distance of p from the label.

    >>> brier([0.8, 0.4], [1, 0])
    0.1
    """
    p, y = checked(p, y)
    return float(np.mean((p - y) ** 2))


def nll(p: Any, y: Any) -> float:
    """Mean negative log-likelihood, in nats."""
    p, y = checked(p, y)
    return float(-np.mean(np.log(np.maximum(np.where(y == 1, p, 1 - p), SMALLEST))))


def _bins(p: Array, bins: int) -> Array:
    """The bin of each row: as many rows in each as ties allow, for ties stay in one bin."""
    if bins < 1:
        raise CalibrationError(f"bins={bins!r} must be 1 or more")
    first = np.searchsorted(np.sort(p), p, side="left")
    return (first * bins) // p.size


def _gaps(p: Array, y: Array, bins: int) -> tuple[Array, Array]:
    """Per bin that has rows: their number, and mean p minus the share right."""
    where = _bins(p, bins)
    n = np.bincount(where, minlength=bins)
    gap = np.bincount(where, weights=p - y, minlength=bins)
    return n[n > 0], gap[n > 0] / n[n > 0]


def ece(p: Any, y: Any, bins: int = 15) -> float:
    """Expected calibration error over bins of equal mass.

    >>> round(ece([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1], bins=2), 12)
    0.3
    """
    p, y = checked(p, y)
    n, gap = _gaps(p, y, bins)
    return float(np.sum(n * np.abs(gap)) / p.size)


def mce(p: Any, y: Any, bins: int = 15) -> float:
    """The largest gap of any bin."""
    p, y = checked(p, y)
    return float(np.max(np.abs(_gaps(p, y, bins)[1])))


def ece_floor(p: Any, bins: int = 15, draws: int = 200, seed: int = 0) -> tuple[float, float]:
    """What ECE a perfectly calibrated p shows on as many rows: mean and 95th percentile."""
    p, _ = checked(p, np.zeros(np.shape(p)))
    rng, where = np.random.default_rng(seed), _bins(p, bins)
    found = np.empty(draws)
    for i in range(draws):
        gap = np.bincount(where, weights=p - (rng.random(p.size) < p), minlength=bins)
        found[i] = np.abs(gap).sum() / p.size
    return float(found.mean()), float(np.percentile(found, 95))


def auroc(p: Any, y: Any) -> float:
    """P(a right answer has the higher p), ties counting half; NaN with one class."""
    p, y = checked(p, y)
    right = y.sum()
    if right in (0, p.size):
        return math.nan
    _, where, count = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[where]
    wins = rank[y == 1].sum() - right * (right + 1) / 2
    return float(wins / (right * (p.size - right)))


def _risks(score: Array, y: Array) -> Array:
    """Share wrong among the k rows of highest score, k = 1..n; ties in expectation."""
    _, where, count = np.unique(-score, return_inverse=True, return_counts=True)
    wrong = np.bincount(where, weights=1 - y) / count
    return np.cumsum(np.repeat(wrong, count)) / np.arange(1, score.size + 1)


def aurc(p: Any, y: Any) -> float:
    """Area under the risk-coverage curve: lower is better."""
    p, y = checked(p, y)
    return float(_risks(p, y).mean())


def prr(p: Any, y: Any) -> float:
    """Prediction-rejection ratio: 1 ranks like an oracle, 0 like chance; NaN with one class."""
    p, y = checked(p, y)
    chance, oracle = 1 - y.mean(), _risks(y, y).mean()
    if chance in (0, 1):
        return math.nan
    return float((chance - _risks(p, y).mean()) / (chance - oracle))


def ubce(p: Any, y: Any) -> UBCE:
    """Mean |p - y|, the two halves weighted so that they add up to the total.

    Improper: pushing every p to 0 or 1 lowers it while the Brier score rises. It is reported,
    and never used to choose anything.
    """
    p, y = checked(p, y)
    return UBCE(*(float(v.mean()) for v in (np.abs(p - y), y * (1 - p), (1 - y) * p)))


def wilson(right: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson interval of a share.

    >>> [round(v, 3) for v in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n < 1:
        raise CalibrationError(f"a share of n={n!r} rows has no interval; n is 1 or more")
    share, spread = right / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def reliability_curve(p: Any, y: Any, bins: int = 15) -> tuple[Bin, ...]:
    """The bins of `ece` from low to high, each with a Wilson interval of its share right."""
    p, y = checked(p, y)
    where, found = _bins(p, bins), []
    for b in np.unique(where):
        inside, right = p[where == b], y[where == b].sum()
        low, high = wilson(right, inside.size)
        mean, share = float(inside.mean()), float(right / inside.size)
        found.append(
            Bin(float(inside.min()), float(inside.max()), inside.size, mean, share, low, high)
        )
    return tuple(found)


def risk_coverage(p: Any, y: Any) -> RiskCoverage:
    """One entry per distinct p, from strict to lax."""
    p, y = checked(p, y)
    threshold, count = np.unique(p, return_counts=True)
    kept = np.cumsum(count[::-1])
    return RiskCoverage(kept / p.size, _risks(p, y)[kept - 1], threshold[::-1])


def bootstrap(
    metric: Metric, p: Any, y: Any, groups: Any = None, draws: int = 1000, seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:  # fmt: skip
    """Percentile interval of metric(p, y); whole groups are drawn where rows belong together.

    Draws in which the metric is undefined are left out; NaN where it always is.
    """
    p, y = checked(p, y)
    order, starts = _members(groups, p.size)
    sizes = np.diff(np.append(starts, p.size))
    rng, found = np.random.default_rng(seed), np.empty(draws)
    for i in range(draws):
        drawn = rng.integers(starts.size, size=starts.size)
        n = sizes[drawn]
        steps = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        rows = order[np.repeat(starts[drawn], n) + steps]
        found[i] = metric(p[rows], y[rows])
    found = found[~np.isnan(found)]
    if not found.size:
        return math.nan, math.nan
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _members(groups: Any, n: int) -> tuple[Array, Array]:
    """The rows in the order of their groups, and where each group starts."""
    if groups is None:
        return np.arange(n), np.arange(n)
    where = group_numbers(groups, n)
    order = np.argsort(where, kind="stable")
    return order, np.flatnonzero(np.diff(where[order], prepend=-1))


def summary(p: Any, y: Any, groups: Any = None) -> dict[str, float | int | None]:
    """Every metric by name, None where it is undefined; `base_brier` is the constant's score."""
    p, y = checked(p, y)
    low, high = bootstrap(brier, p, y, groups)
    floor, floor_p95 = ece_floor(p)
    halves, right = ubce(p, y), float(y.mean())
    numbers: dict[str, float] = {
        "accuracy": right,
        "base_brier": right * (1 - right),
        "brier": brier(p, y),
        "brier_low": low,
        "brier_high": high,
        "nll": nll(p, y),
        "ece": ece(p, y),
        "ece_floor": floor,
        "ece_floor_p95": floor_p95,
        "mce": mce(p, y),
        "auroc": auroc(p, y),
        "aurc": aurc(p, y),
        "prr": prr(p, y),
        "ubce": halves.total,
        "ubce_correct": halves.correct,
        "ubce_incorrect": halves.incorrect,
    }
    known = {k: None if math.isnan(v) else float(v) for k, v in numbers.items()}
    return {"n": int(p.size), **known}
