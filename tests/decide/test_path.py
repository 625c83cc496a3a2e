"""How many labels a promise takes: cases by hand, and that simulated answers keep the word."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from bitcal_integrations.decide import _binomial, _path, certify_threshold, labels_needed
from bitcal_integrations.errors import BadRequest

DRAWS = 200
LEAST = 0.8 - 3 * math.sqrt(0.8 * 0.2 / DRAWS)


def answers(rng: np.random.Generator, n: int, ranked: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scores and verdicts: of the better half 5% are wrong, of the rest far more."""
    below = rng.random(n)  # the share of better scores
    rate = 0.2 * below if ranked else np.where(below <= 0.5, 0.05, 0.6)
    return 1 - below, (rng.random(n) >= rate).astype(int)


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("simultaneous", [1, 3])
def test_so_many_labels_certify_with_that_chance(ranked: bool, simultaneous: int) -> None:
    n = labels_needed(0.1, 0.1, coverage=0.5, ranked=ranked, simultaneous=simultaneous)
    rng = np.random.default_rng(0)
    found = [
        certify_threshold(*answers(rng, n, ranked), simultaneous=simultaneous).coverage
        for _ in range(DRAWS)
    ]
    assert np.mean(np.array(found) >= 0.5 - 0.03) >= LEAST


@pytest.mark.parametrize("ranked", [True, False])
def test_so_many_labels_as_a_failed_certificate_names_certify(ranked: bool) -> None:
    rng, kept, failed = np.random.default_rng(1), 0, 0
    for _ in range(DRAWS):
        made = certify_threshold(*answers(rng, 256, ranked))
        if made.threshold is None and made.labels_needed is not None:
            failed += 1
            again = certify_threshold(*answers(rng, min(made.labels_needed, 5_000), ranked))
            kept += again.threshold is not None
    assert failed > 20
    assert kept / failed >= 0.8 - 3 * math.sqrt(0.8 * 0.2 / failed)


def test_the_chance_is_exact_where_one_step_is_all() -> None:
    """22 labels allow one test, of all of them, which bears no error."""
    assert _path.chance_of(22, 0.1, 0.1, lambda u: 0.05 * u, 1.0) == pytest.approx(0.95**22)
    assert _path.chance_of(21, 0.1, 0.1, lambda u: 0 * u, 1.0) == 0
    assert _path.chance_of(60, 0.1, 0.1, lambda u: 0 * u, 0.3) == 0


def test_the_chance_of_a_path_is_that_of_drawn_paths() -> None:
    """Sixty labels with an error rate of .04: drawn one by one, and every step looked at."""
    tested = np.append(_path.ranks(_path.first_rank(60, 0.1, 0.1), 60) - 1, 60)
    wrong = np.cumsum(np.random.default_rng(2).random((20_000, 60)) < 0.04, axis=1)
    passes = np.ones(len(wrong), dtype=bool)
    for rows in tested[tested >= 22]:
        passes &= binom.cdf(wrong[:, rows - 1], rows, 0.1) <= 0.1
    said = _path.chance_of(60, 0.1, 0.1, lambda u: 0.04 * u, 1.0)
    assert said == pytest.approx(passes.mean(), abs=0.012)


def test_it_is_the_first_number_that_is_likely_to_do() -> None:
    n = labels_needed(0.1, 0.1, ranked=False)
    chance = [_path.chance_of(k, 0.1, 0.1, lambda u: 0.05 * u, 1.0) for k in (n - 1, n)]
    assert chance[0] < 0.8 <= chance[1]


def test_no_error_takes_what_a_test_without_error_takes() -> None:
    assert labels_needed(0.1, 0.1, expected_error=0.0) == 22
    assert labels_needed(0.1, 0.1, expected_error=0.0, coverage=0.5) == 44
    assert labels_needed(0.1, 0.1, expected_error=0.0, simultaneous=3) == 33
    assert labels_needed(1e-5, 0.1, expected_error=0.0) == 230_258


def test_what_asks_for_more_takes_more() -> None:
    least = labels_needed(0.1, 0.1, coverage=0.5)
    more: list[dict[str, Any]] = [
        {"ranked": False}, {"simultaneous": 3}, {"chance": 0.9}, {"expected_error": 0.07},
        {"coverage": 0.3},
    ]  # fmt: skip
    for change in more:
        assert labels_needed(0.1, 0.1, **{"coverage": 0.5, **change}) > least, change


def test_many_labels_are_simulated_and_at_once() -> None:
    exact, rough = (labels_needed(0.1, 0.1, expected_error=e) for e in (0.091, 0.092))
    assert exact < rough
    assert rough == pytest.approx(exact * (9 / 8) ** 2, rel=0.04)
    exact, rough = (labels_needed(0.1, 0.1, expected_error=e, ranked=False) for e in (0.075, 0.085))
    assert rough == pytest.approx(exact * (25 / 15) ** 2, rel=0.06)
    assert labels_needed(0.1, 0.1, expected_error=0.1 - 1e-7) > 10**12


def test_a_high_error_rate_stays_a_share() -> None:
    assert 22 < labels_needed(0.9, 0.1, expected_error=0.8, coverage=0.5) < 1000
    assert _path._cumulative(0.8, 1.0, True)(np.array([1.0])) == 0.8


def test_binomial_parts_are_scipys() -> None:
    assert _binomial.pmf(50, 0.07, 9) == pytest.approx(binom.pmf(np.arange(10), 50, 0.07))
    assert _binomial.pmf(3, 0.0, 5).tolist() == [1, 0, 0, 0]
    assert _binomial.pmf(3, 1.0, 5).tolist() == [0, 0, 0, 1]
    for n in (1, 22, 37, 38, 5_000):
        most = _binomial.most_errors(n, 0.1, 0.1)
        assert most == -1 or binom.cdf(most, n, 0.1) <= 0.1
        assert binom.cdf(most + 1, n, 0.1) > 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"expected_error": 0.1}, "expected_error=0.1 must be"),
        ({"expected_error": "a"}, "expected_error='a' must be"),
        ({"coverage": 0.1}, r"coverage=0.1 must be a number in \[0.2, 1\]"),
        ({"coverage": "a"}, "coverage='a'"),
        ({"simultaneous": 0}, "simultaneous=0"),
        ({"simultaneous": 1.5}, "simultaneous=1.5"),
        ({"chance": 1}, "chance=1"),
    ],
)
def test_wrong_input_is_quoted(change: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        labels_needed(0.1, 0.1, **change)
