"""The binomial tail against scipy, and how many labels it asks for."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binom

from bitcal_integrations.decide._binomial import cdf, error_free, rows_for

CASES = [(0, 22), (0, 1), (1, 1), (3, 10), (10, 10), (57, 1000), (100, 1000), (9_900, 100_000)]


@pytest.mark.parametrize(("errors", "n"), CASES)
@pytest.mark.parametrize("rate", [1e-4, 0.05, 0.1, 0.5, 0.97])
def test_the_tail_is_that_of_scipy(errors: int, n: int, rate: float) -> None:
    assert cdf(errors, n, rate) == pytest.approx(binom.cdf(errors, n, rate), rel=1e-8, abs=1e-300)


def test_fewer_than_no_errors_cannot_be() -> None:
    assert cdf(-1, 10, 0.1) == 0.0


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("delta", [0.01, 0.05, 0.1, 0.5])
def test_error_free_rows_follow_from_the_logarithm(alpha: float, delta: float) -> None:
    n = error_free(alpha, delta)
    assert (1 - alpha) ** n <= delta * (1 + 1e-12)
    assert n == 1 or (1 - alpha) ** (n - 1) > delta
    assert abs(n - math.log(delta) / math.log(1 - alpha)) < 1 + 1e-9


@pytest.mark.parametrize("errors", [0, 1, 5, 60])
def test_rows_for_is_the_first_that_passes(errors: int) -> None:
    n = rows_for(errors, 0.1, 0.05)
    assert binom.cdf(errors, n, 0.1) <= 0.05 < binom.cdf(errors, n - 1, 0.1)
