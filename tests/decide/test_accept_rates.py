"""How often a promise is broken, on simulated answers whose true error rate is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from bitcal_integrations.decide import certify_threshold

N, DRAWS, DELTA = 300, 400, 0.1
ALLOWED = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / DRAWS)


def smooth(rng: np.random.Generator) -> np.ndarray:
    return rng.random(N)


def tied(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 11, N) / 10


# The error rate at p is (1 - p) / 2: among p >= t it is (1 - t) / 4 for uniform p.
def true_error(threshold: float) -> float:
    return (1 - threshold) / 4


def true_error_tied(threshold: float) -> float:
    values = np.arange(11) / 10
    return float(np.mean((1 - values[values >= threshold]) / 2))


def answers(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(p.size) >= (1 - p) / 2).astype(int)


@pytest.mark.parametrize(
    ("draw", "truth"), [(smooth, true_error), (tied, true_error_tied)], ids=["smooth", "tied"]
)
@pytest.mark.parametrize("max_error", [0.1, 0.2])
def test_violations_stay_within_delta(
    draw: Callable[[np.random.Generator], np.ndarray],
    truth: Callable[[float], float],
    max_error: float,
) -> None:
    rng, broken, naive_broken, coverage = np.random.default_rng(1), 0, 0, []
    for _ in range(DRAWS):
        p = draw(rng)
        y = answers(p, rng)
        made = certify_threshold(p, y, max_error, DELTA)
        broken += made.threshold is not None and truth(made.threshold) > max_error
        coverage.append(made.coverage)
        naive = [t for t in np.unique(p) if 1 - y[p >= t].mean() <= max_error]
        naive_broken += bool(naive) and truth(naive[0]) > max_error
    assert broken / DRAWS <= ALLOWED
    assert naive_broken / DRAWS > ALLOWED
    assert np.mean(coverage) > 0.1


def test_joint_and_system_keep_theirs() -> None:
    rng, joint, system = np.random.default_rng(2), 0, 0
    for _ in range(DRAWS):
        p = smooth(rng)
        y, fallback = answers(p, rng), (rng.random(N) >= 0.05).astype(int)
        made = certify_threshold(p, y, 0.1, DELTA, risk="joint")
        t = 1.0 if made.threshold is None else made.threshold
        joint += (1 - t) ** 2 / 4 > 0.1
        made = certify_threshold(p, y, 0.1, DELTA, risk="system", fallback_correct=fallback)
        t = 1.0 if made.threshold is None else made.threshold
        system += made.threshold is not None and (1 - t) ** 2 / 4 + 0.05 * t > 0.1
    assert joint / DRAWS <= ALLOWED
    assert system / DRAWS <= ALLOWED


def test_a_score_that_says_nothing_is_seen_through() -> None:
    rng, broken = np.random.default_rng(3), 0
    for _ in range(DRAWS):
        y = (rng.random(N) >= 0.2).astype(int)
        broken += certify_threshold(rng.random(N), y, 0.2 - 1e-9, DELTA).threshold is not None
    assert broken / DRAWS <= ALLOWED


def test_rows_of_a_group_do_not_count_as_independent() -> None:
    # Ten copies of each of 30 answers: counted as 300, the promise would break far too often.
    rng, broken, ignored = np.random.default_rng(4), 0, 0
    for _ in range(200):
        p, y = rng.random(30), (rng.random(30) >= 0.2).astype(int)
        p, y, groups = np.repeat(p, 10), np.repeat(y, 10), np.repeat(np.arange(30), 10)
        broken += certify_threshold(p, y, 0.19, DELTA, groups=groups).threshold is not None
        ignored += certify_threshold(p, y, 0.19, DELTA).threshold is not None
    assert broken / 200 <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / 200)
    assert ignored / 200 > 0.2
