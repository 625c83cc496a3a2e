"""Exact binomial tails with numpy alone, and what they ask of a number of labels.

It knows nothing about thresholds or certificates; scikit-learn and scipy are not loaded.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np


def cdf(errors: int, n: int, rate: float) -> float:
    """P(at most `errors` of `n`) at a true error rate in (0, 1).

    >>> round(cdf(0, 22, 0.1), 4), round(cdf(1, 2, 0.5), 4)
    (0.0985, 0.75)
    """
    if errors < 0:
        return 0.0
    if errors >= n:
        return 1.0
    k = np.arange(errors)
    odds = math.log(rate) - math.log1p(-rate)
    steps = np.log(n - k) - np.log(k + 1) + odds
    logs = n * math.log1p(-rate) + np.concatenate([[0.0], np.cumsum(steps)])
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


@lru_cache(maxsize=1024)
def error_free(max_error: float, delta: float) -> int:
    """How many accepted answers without one error it takes to promise `max_error`.

    >>> error_free(0.1, 0.1), error_free(0.05, 0.05)
    (22, 59)
    """
    n = max(1, math.ceil(math.log(delta) / math.log1p(-max_error)) - 1)
    while cdf(0, n, max_error) > delta:
        n += 1
    return n


@lru_cache(maxsize=1024)
def rows_for(errors: int, max_error: float, delta: float) -> int:
    """The fewest accepted answers among which so many errors still pass the test."""
    low, high = errors, max(errors + 1, error_free(max_error, delta))
    while cdf(errors, high, max_error) > delta:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if cdf(errors, middle, max_error) <= delta:
            high = middle
        else:
            low = middle
    return high


def pmf(n: int, rate: float, most: int) -> np.ndarray:
    """P(k errors of n) for k from 0 to `most` at most.

    >>> pmf(2, 0.5, 1).tolist()
    [0.25, 0.5]
    """
    k = np.arange(min(n, most) + 1)
    if rate <= 0 or rate >= 1:
        return (k == (n if rate >= 1 else 0)).astype(float)
    steps = np.log(n - k[:-1]) - np.log(k[1:]) + math.log(rate) - math.log1p(-rate)
    shares: np.ndarray = np.exp(n * math.log1p(-rate) + np.concatenate([[0.0], np.cumsum(steps)]))
    return shares


@lru_cache(maxsize=65536)
def most_errors(n: int, max_error: float, delta: float) -> int:
    """The most errors of n that pass the test; -1 where none does.

    >>> most_errors(21, 0.1, 0.1), most_errors(22, 0.1, 0.1), most_errors(38, 0.1, 0.1)
    (-1, 0, 1)
    """
    return int(np.searchsorted(np.cumsum(pmf(n, max_error, n)), delta, side="right")) - 1


def sure(delta: float) -> float:
    """How many standard deviations a normal draw exceeds with probability `delta`."""
    return NormalDist().inv_cdf(1 - delta)


def rough_rows(max_error: float, delta: float, error: float, chance: float) -> float:
    """About how many accepted answers a test that passes with probability `chance` takes."""
    likely = NormalDist().inv_cdf(chance)
    spread = sure(delta) * math.sqrt(max_error * (1 - max_error)) + likely * math.sqrt(
        error * (1 - error)
    )
    return (max(0.0, spread) / (max_error - error)) ** 2
