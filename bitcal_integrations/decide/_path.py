"""Where the path of thresholds begins and ends, and how many labels it takes to come along it.

It knows ranks and error rates, no label. Every step up to a threshold has to pass, the strictest
too, so that labels that are enough for the last one alone often do not get there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from bitcal_integrations.decide import _binomial
from bitcal_integrations.decide._check import as_share, is_number
from bitcal_integrations.errors import BadRequest

Array: TypeAlias = np.ndarray
STEPS = 40  # of the path: finer ones add chances to fail, coarser ones lose coverage
START = 0.2  # share accepted at the first step, where the labels are enough for that
ROUGH = 3_000  # accepted answers above which `labels_needed` need not be exact
DRAWS = 4_000  # of the seeded simulation that then stands in
CHANCE = 0.8  # that as many labels as `labels_needed` says will do


def ranks(first: int, known: int) -> Array:
    """The ranks of the rows above which the steps accept, from strict to lax."""
    found = np.unique(np.linspace(first, known, STEPS).round().astype(int))
    return found[(found > 0) & (found <= known)]


def first_rank(known: int, max_error: float, delta: float) -> int:
    """Where to begin: where one error is borne, if half of the labels are enough for that.

    At the fewest rows that can certify, a single error among the best would end the path.
    """
    borne = _binomial.rows_for(1, max_error, delta)
    least = borne if borne <= known / 2 else _binomial.error_free(max_error, delta)
    return max(math.ceil(START * known), least + 1)


def labels_needed(
    max_error: float,
    delta: float,
    *,
    expected_error: float | None = None,
    coverage: float = 1.0,
    chance: float = CHANCE,
    simultaneous: int = 1,
    ranked: bool = True,
) -> int:
    """About the fewest labels that certify a threshold at `coverage` with probability `chance`.

    `expected_error` is the error rate among the share `coverage` of all answers (half of max_error
    if not given). `ranked` says that it rises in a line there, from 0 at the highest p on;
    ranked=False that p does not tell these answers apart, for which no other p that ranks the
    right way needs more. The threshold found accepts `coverage` but for one step of the path, at
    most .02. `simultaneous` is that of `certify_threshold`. Above 3,000 accepted answers it is a
    simulation, good to a few percent.

    >>> labels_needed(0.1, 0.1, expected_error=0.0), labels_needed(0.1, 0.1)
    (22, 233)
    """
    max_error, delta = as_share("max_error", max_error), as_share("delta", delta)
    error = max_error / 2 if expected_error is None else expected_error
    _check(error, coverage, max_error, simultaneous)
    level, chance = delta / simultaneous, as_share("chance", chance)
    fewest = _binomial.error_free(max_error, level)
    if error == 0 and fewest > ROUGH:
        return math.ceil(fewest / coverage)
    total = _cumulative(error, coverage, ranked)
    if _binomial.rough_rows(max_error, level, error, chance) > ROUGH * (1 if ranked else START):
        return _simulated(max_error, level, total, coverage, chance)

    def likely(n: int) -> bool:
        return chance_of(n, max_error, level, total, coverage) >= chance

    return _first(likely, fewest - 1)


def labels_to_begin(max_error: float, delta: float, error: float, all_tested: bool) -> int:
    """About the fewest labels whose first step passes with probability CHANCE at an error rate.

    `all_tested` says that a step tests every row, not only those that it accepts.
    """
    rough = _binomial.rough_rows(max_error, delta, error, CHANCE)
    if rough > ROUGH:
        return math.ceil(rough if all_tested else rough / START)

    def likely(n: int) -> bool:
        rows = n if all_tested else min(n, first_rank(n, max_error, delta) - 1)
        allowed = _binomial.most_errors(rows, max_error, delta)
        return _binomial.cdf(allowed, rows, error) >= CHANCE

    return _first(likely, _binomial.error_free(max_error, delta) - 1)


def _check(error: Any, coverage: Any, max_error: float, simultaneous: Any) -> None:
    if not is_number(error) or not 0 <= error < max_error:
        raise BadRequest(f"expected_error={error!r} must be a number in [0, max_error={max_error}]")
    if not is_number(coverage) or not START <= coverage <= 1:
        raise BadRequest(
            f"coverage={coverage!r} must be a number in [{START}, 1]: no threshold that accepts "
            "fewer is tested"
        )
    if not is_number(simultaneous) or simultaneous < 1 or simultaneous != int(simultaneous):
        raise BadRequest(f"simultaneous={simultaneous!r} is not allowed: a whole number from 1 up")


def _cumulative(error: float, coverage: float, ranked: bool) -> Callable[[Array], Array]:
    """Share of all answers that are among the first `u` and wrong: `error` of these at coverage.

    Above an error rate of a half a line from 0 would end above 1; it then rises less steeply.
    """
    bend = min(1.0, 1 / error - 1) if ranked and error else 0.0
    return lambda u: error * u * (u / coverage) ** bend


def chance_of(
    n: int, max_error: float, delta: float, total: Callable[[Array], Array], coverage: float
) -> float:
    """P(every step of the path up to `coverage` passes) with n labels, exactly; 0 without a step.

    The numbers of errors between steps are independent binomials: what is left after each step
    is the distribution of the errors so far, cut where the test would fail.
    """
    tested = np.append(ranks(first_rank(n, max_error, delta), n) - 1, n)
    fewest = _binomial.error_free(max_error, delta)
    tested = np.unique(tested[(tested <= coverage * n + 1e-9) & (tested >= fewest)])
    if not tested.size:
        return 0.0
    parts = np.diff(tested, prepend=0)
    rates = np.diff(total(tested / n), prepend=0.0) * n / parts
    alive = np.ones(1)
    for rows, part, rate in zip(tested, parts, rates, strict=True):
        passing = _binomial.most_errors(int(rows), max_error, delta)
        alive = np.convolve(alive, _binomial.pmf(int(part), float(rate), passing))[: passing + 1]
    return float(alive.sum())


def _simulated(
    max_error: float, delta: float, total: Callable[[Array], Array], coverage: float, chance: float
) -> int:
    """The same for so many labels that shares of errors are normal, by seeded draws."""
    share = START + (1 - START) * np.arange(STEPS) / (STEPS - 1)
    share = np.append(share[share < coverage], coverage)
    wrong = total(share)
    parts = np.diff(share, prepend=0.0)
    rates = np.diff(wrong, prepend=0.0) / parts
    noise = np.random.default_rng(0).normal(size=(DRAWS, share.size))
    drawn = np.cumsum(noise * np.sqrt(parts * rates * (1 - rates)), axis=1)
    margin = _binomial.sure(delta) * np.sqrt(max_error * (1 - max_error) * share)
    root = ((drawn + margin) / (max_error * share - wrong)).max(axis=1)
    return math.ceil(float(np.quantile(np.maximum(root, 0.0) ** 2, chance)))


def _first(holds: Callable[[int], bool], low: int) -> int:
    """The first number above `low` for which it holds and goes on to hold."""
    high = low + 1
    while not holds(high):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
