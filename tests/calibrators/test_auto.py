"""The choice of a method: what it takes when, that it says why, and that few labels do no harm."""

from __future__ import annotations

import numpy as np
import pytest

from bitcal_integrations.calibrators import _auto, fit_calibrator
from bitcal_integrations.metrics import brier


def noise(n: int, seed: int, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, width)), (rng.random(n) < 0.7).astype(float)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([0.4], [1], "the scores of all 1 labels are the same"),
        ([0.4, 0.6, 0.7], [1, 1, 1], "0 of 3 labels are of the rarer kind, 5 are needed"),
        (np.linspace(0, 1, 40), np.arange(40) < 4, "4 of 40 labels are of the rarer kind"),
        (np.full(500, 0.3), np.arange(500) % 2, "the scores of all 500 labels are the same"),
    ],
)
def test_nothing_to_fit_on_gives_the_constant(x: list, y: list, reason: str) -> None:
    cal = fit_calibrator(x, y)
    assert cal.method == "constant"
    assert reason in cal.reason
    assert 1 / (len(y) + 2) <= cal(x)[0] <= 1 - 1 / (len(y) + 2)
    assert cal(x)[0] == pytest.approx((np.sum(y) + 0.5) / (len(y) + 1), abs=0.5 / (len(y) + 1))


def test_few_labels_are_not_compared() -> None:
    x, y = noise(60, 0)
    cal = fit_calibrator(x, y)
    assert cal.method == "logistic"
    assert "of 60 labels are of the rarer kind, below 100" in cal.reason


def test_many_labels_are_compared_and_the_scores_named() -> None:
    rng = np.random.default_rng(0)
    t = rng.normal(size=2000)
    y = rng.random(2000) < 1 / (1 + np.exp(-t))
    cal = fit_calibrator(1 / (1 + np.exp(-3 * t)), y)
    assert cal.method == "logistic"
    assert all(f"{name} 0." in cal.reason for name in _auto.COMPARED)
    assert cal.reason.endswith("no other is better by a standard error")


def test_a_shape_that_the_default_cannot_take_is_found() -> None:
    """Right in the middle of the scores and at both ends, wrong between."""
    t = np.random.default_rng(1).normal(size=3000)
    y = np.random.default_rng(2).random(3000) < np.where(np.abs(np.abs(t) - 0.8) < 0.4, 0.2, 0.8)
    cal = fit_calibrator(1 / (1 + np.exp(-t)), y)
    assert cal.method == "smooth"
    assert cal.reason.startswith("smooth by 5-fold")
    assert "no other" not in cal.reason


def test_scores_that_say_nothing_give_nearly_one_number() -> None:
    cal = fit_calibrator(*noise(1500, 1))
    assert np.ptp(cal(noise(1500, 2)[0])) < 0.05


def test_a_gain_within_a_standard_error_is_not_taken() -> None:
    """Gains of 1.0 and -0.9 by turns: their mean is .05, the standard error of 100 rows .095."""
    gain = np.tile([1.0, -0.9], 50)
    assert _auto.clearly_best({"logistic": gain, "smooth": 0 * gain}, np.arange(100)) == "logistic"
    many = np.repeat(gain, 40)
    losses = {"logistic": many, "smooth": 0 * many}
    assert _auto.clearly_best(losses, np.arange(4000)) == "smooth"
    # Forty copies of a question are not forty questions.
    assert _auto.clearly_best(losses, np.repeat(np.arange(100), 40)) == "logistic"


def test_the_largest_of_the_clear_gains_is_taken() -> None:
    ones = np.ones(100)
    losses = {"constant": 3 * ones, "platt": 0.9 * ones, "logistic": ones, "smooth": 0.8 * ones}
    assert _auto.clearly_best(losses, np.arange(100)) == "smooth"


def test_fifty_labels_of_pure_noise_cost_little() -> None:
    """Eight columns that say nothing, against the share right among the same labels."""
    truth = np.full(4000, 0.7)
    new, labels = noise(4000, 99)
    lost = []
    for seed in range(30):
        x, y = noise(50, seed)
        lost.append(brier(fit_calibrator(x, y)(new), labels) - brier(truth * 0 + y.mean(), labels))
    assert np.mean(lost) < 0.004


def test_groups_are_never_split() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 500)
    fold = _auto.folds_of(groups)
    assert all(len(set(fold[groups == g])) == 1 for g in np.unique(groups))
    sizes = np.bincount(_auto.folds_of(np.arange(500)))
    assert sizes.tolist() == [100] * 5


def test_repeated_questions_are_not_mistaken_for_evidence() -> None:
    """Each question eight times with one verdict: a rough fit looks good until groups are kept."""
    rng = np.random.default_rng(4)
    x, y = rng.random((400, 2)), (rng.random(400) < 0.6).astype(float)
    many, labels, groups = np.repeat(x, 8, axis=0), np.repeat(y, 8), np.repeat(np.arange(400), 8)
    blind, told = fit_calibrator(many, labels), fit_calibrator(many, labels, groups=groups)
    assert blind.method == "smooth"
    assert told.method != "smooth"


@pytest.mark.parametrize("renamed", [lambda g: -g, lambda g: np.array([f"q{i}" for i in g])])
def test_the_order_of_rows_and_the_names_of_groups_change_nothing(renamed) -> None:
    rng = np.random.default_rng(2)
    x = rng.random((400, 2))
    y, groups = (rng.random(400) < x[:, 0]).astype(float), rng.integers(0, 90, 400)
    mixed = rng.permutation(400)
    first = fit_calibrator(x, y, groups=groups)
    assert fit_calibrator(x[mixed], y[mixed], groups=renamed(groups)[mixed]) == first
