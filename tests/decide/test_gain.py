"""What a router is made of: the gain model against scikit-learn, the cut, the test of regret."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitcal_integrations.decide._curve import cut, mean_and_error
from bitcal_integrations.decide._gain import KINDS, Basis, fit_gain
from bitcal_integrations.decide._regret import certified


def pair(n: int, seed: int) -> tuple[Any, Any, Any]:
    """Two signals and both models' labels; the big one leads where the first signal is low."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(-2, 0, n), rng.uniform(0, 3, n)], axis=1)
    hard = x[:, 0] < -1
    small = (rng.random(n) < np.where(hard, 0.4, 0.9)).astype(int)
    return x, small, (rng.random(n) < 0.9).astype(int)


@pytest.mark.parametrize("kind", KINDS)
def test_each_shape_is_what_scikit_learn_says(kind: str) -> None:
    """The numpy prediction against the estimators themselves, on the same terms."""
    from sklearn.linear_model import LogisticRegression, RidgeCV

    x, small, big = pair(800, 14)
    terms, diff = Basis.of(x)(x), big - small
    assert terms == pytest.approx((terms - terms.mean(axis=0)) / terms.std(axis=0))
    if kind == "gain":
        expected = RidgeCV(alphas=[0.8 * 10.0**k for k in range(-1, 5)]).fit(terms, diff)
        assert fit_gain(kind, x, small, big)(x) == pytest.approx(
            np.clip(expected.predict(terms), -1, 1)
        )
        return
    event = diff != 0 if kind == "differ" else small == 1
    found = LogisticRegression(max_iter=1000).fit(terms, event).predict_proba(terms)[:, 1]
    if kind == "differ":
        expected = found * diff[event].mean()
    else:
        expected = np.poly1d(np.polyfit(found, diff, 1))(found)
    assert fit_gain(kind, x, small, big)(x) == pytest.approx(expected)


def test_features_beyond_the_fit_range_are_clamped() -> None:
    x, small, big = pair(800, 15)
    model = fit_gain("differ", x, small, big)
    edge = [[x[:, 0].min(), x[:, 1].max()]]
    assert model(np.array([[-1e9, 1e9]])) == pytest.approx(model(np.array(edge)))


def test_ties_are_escalated_together_or_not_at_all() -> None:
    gains = np.array([0.2] * 3 + [0.1] * 7)
    assert cut(gains, 0.29) is None
    assert cut(gains, 0.3) == 0.2
    assert cut(gains, 0.99) == 0.2
    assert cut(gains, 1.0) == 0.1


def test_the_error_of_a_mean_counts_groups_once() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0])
    assert mean_and_error(values, np.arange(4)) == pytest.approx((0.5, 0.25))
    doubled = mean_and_error(np.repeat(values, 2), np.repeat(np.arange(4), 2))
    assert doubled == pytest.approx((0.5, 0.25))


def test_the_promise_of_regret_is_kept() -> None:
    """Losses of -1, 0, 1 with a mean just above the limit pass in at most delta of the draws."""
    rng, passed, small_passed = np.random.default_rng(9), 0, 0
    for _ in range(400):
        losses = rng.choice([-1, 0, 1], size=500, p=[0.05, 0.88, 0.07])
        passed += certified(losses, 0.02 - 1e-9, 0.1)
        losses = rng.choice([-1, 0, 1], size=1000, p=[0.01, 0.98, 0.01])
        small_passed += certified(losses, 0.02, 0.1)
    assert passed / 400 <= 0.1 + 3 * (0.1 * 0.9 / 400) ** 0.5
    assert small_passed / 400 > 0.8


def test_no_rows_promise_nothing() -> None:
    assert not certified(np.array([]), 0.02, 0.1)
