"""Scores of probabilities: hand-worked cases, properties on random data, scikit-learn's AUROC."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from bitcal_integrations import metrics
from bitcal_integrations.errors import CalibrationError


def sample(seed: int, n: int = 300, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.beta(2, 1, n)
    return (np.round(p, 1) if ties else p), (rng.random(n) < p**2).astype(int)


SAMPLES = [(seed, ties) for seed in range(5) for ties in (False, True)]


@pytest.mark.parametrize(("seed", "ties"), SAMPLES)
def test_as_scikit_learn_has_it(seed: int, ties: bool) -> None:
    p, y = sample(seed, ties=ties)
    assert metrics.auroc(p, y) == pytest.approx(roc_auc_score(y, p), abs=1e-12)
    assert metrics.brier(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert metrics.nll(p, y) == pytest.approx(log_loss(y, p, labels=[0, 1]), rel=1e-9)


@pytest.mark.parametrize(("seed", "ties"), SAMPLES)
def test_ubce_bounds_brier_and_ece_and_its_halves_recombine(seed: int, ties: bool) -> None:
    p, y = sample(seed, ties=ties)
    total, correct, incorrect = metrics.ubce(p, y)
    assert total >= metrics.brier(p, y)
    assert all(total >= metrics.ece(p, y, bins=b) - 1e-12 for b in (1, 5, 15, 300))
    assert correct + incorrect == pytest.approx(total, abs=1e-12)
    assert correct == pytest.approx(np.mean(y) * (1 - p[y == 1].mean()), abs=1e-12)


def test_ubce_is_improper() -> None:
    """Confidence that is exactly right loses to its own rounding."""
    p = np.full(1000, 0.7)
    y = np.arange(1000) < 700
    assert metrics.ubce(np.ones(1000), y).total < metrics.ubce(p, y).total
    assert metrics.brier(np.ones(1000), y) > metrics.brier(p, y)


def test_ece_by_hand() -> None:
    """Three bins of two: |.15-0|, |.45-.5|, |.85-1| with weights 1/3, in any row order."""
    p = [0.9, 0.1, 0.5, 0.4, 0.2, 0.8]
    y = [1, 0, 1, 0, 0, 1]
    assert metrics.ece(p, y, bins=3) == pytest.approx((0.15 + 0.05 + 0.15) / 3)
    assert metrics.mce(p, y, bins=3) == pytest.approx(0.15)
    low, middle, high = metrics.reliability_curve(p, y, bins=3)
    assert (low.low, low.high, low.n, low.accuracy) == (0.1, 0.2, 2, 0.0)
    assert (middle.confidence, middle.accuracy, high.accuracy) == (0.45, 0.5, 1.0)
    assert low.accuracy_low == 0.0 < low.accuracy_high < 0.7


def test_ties_stay_in_one_bin() -> None:
    """Half of the rows share one p: whichever way they are ordered, ECE is that of the bin."""
    p, y = np.full(100, 0.5), np.arange(100) < 50
    assert metrics.ece(p, y) == metrics.ece(p, y[::-1]) == 0.0
    assert [b.n for b in metrics.reliability_curve(p, y)] == [100]


def test_the_floor_is_what_calibrated_labels_show() -> None:
    p = np.random.default_rng(1).random(2000)
    mean, p95 = metrics.ece_floor(p)
    fresh = [metrics.ece(p, np.random.default_rng(100 + i).random(2000) < p) for i in range(200)]
    assert mean == pytest.approx(np.mean(fresh), abs=0.002)
    assert p95 == pytest.approx(np.percentile(fresh, 95), abs=0.004)
    assert metrics.ece_floor(p) == (mean, p95)


def test_risk_and_coverage_by_hand() -> None:
    """Accepting .9 alone is right; with the tied pair one of three is wrong; then two of four."""
    coverage, risk, threshold = metrics.risk_coverage([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0])
    assert threshold.tolist() == [0.9, 0.6, 0.1]
    assert coverage.tolist() == [0.25, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 3, 0.5])
    # k = 2 takes either of the tied pair: half a wrong answer of two
    assert metrics.aurc([0.9, 0.6, 0.6, 0.1], [1, 1, 0, 0]) == pytest.approx(
        (0 + 0.25 + 1 / 3 + 0.5) / 4
    )


def test_rejection_ratio_runs_from_chance_to_oracle() -> None:
    y = np.array([1, 1, 0, 0])
    assert metrics.prr([0.9, 0.8, 0.2, 0.1], y) == pytest.approx(1)
    assert metrics.prr([0.5] * 4, y) == pytest.approx(0)
    assert metrics.prr([0.1, 0.2, 0.8, 0.9], y) < 0


def test_wilson_keeps_away_from_the_ends() -> None:
    """n = 10 without a success: (z^2/n) / (1 + z^2/n) by hand."""
    spread = metrics.Z95**2 / 10
    assert metrics.wilson(0, 10) == pytest.approx((0, spread / (1 + spread)))
    assert metrics.wilson(10, 10)[0] == pytest.approx(1 - spread / (1 + spread))


def test_bootstrap_is_as_wide_as_theory_says() -> None:
    """The mean of 400 coins: 1.96 x sqrt(.25 / 400) = .049 to either side."""
    y = np.arange(400) % 2
    low, high = metrics.bootstrap(lambda p, y: float(np.mean(y)), np.full(400, 0.5), y)
    assert (high - low) / 2 == pytest.approx(0.049, abs=0.006)


def test_rows_of_one_group_count_once() -> None:
    """Each row eight times over: drawn row by row the interval is sqrt(8) too narrow."""
    p, y = sample(3, 100)
    many_p, many_y, group = np.repeat(p, 8), np.repeat(y, 8), np.repeat(np.arange(100), 8)
    low, high = metrics.bootstrap(metrics.brier, many_p, many_y)
    wide_low, wide_high = metrics.bootstrap(metrics.brier, many_p, many_y, group)
    alone = metrics.bootstrap(metrics.brier, p, y)
    assert (wide_high - wide_low) / (high - low) == pytest.approx(math.sqrt(8), rel=0.1)
    assert (wide_low, wide_high) == pytest.approx(alone, abs=1e-9)
    shuffled = np.random.default_rng(0).permutation(800)
    again = metrics.bootstrap(metrics.brier, many_p[shuffled], many_y[shuffled], group[shuffled])
    assert again == pytest.approx(alone, abs=1e-9)


def test_summary_has_none_for_what_is_undefined() -> None:
    p = np.linspace(0.1, 0.9, 20)
    found = metrics.summary(p, np.ones(20))
    assert found["auroc"] is None
    assert found["prr"] is None
    assert found["accuracy"] == 1.0
    assert found["base_brier"] == 0.0
    assert found["n"] == 20
    assert all(v is None or math.isfinite(v) for v in found.values())


def test_summary_says_what_the_functions_say() -> None:
    p, y = sample(4)
    found = metrics.summary(p, y)
    for name in ("brier", "nll", "ece", "mce", "auroc", "aurc", "prr"):
        assert found[name] == getattr(metrics, name)(p, y)
    assert (found["ece_floor"], found["ece_floor_p95"]) == metrics.ece_floor(p)
    assert found["brier_low"] < found["brier"] < found["brier_high"]


@pytest.mark.parametrize(
    ("p", "y", "said"),
    [
        ([0.1, math.nan], [0, 1], r"p\[1\] is nan"),
        ([0.1, 1.2], [0, 1], r"p\[1\] is 1.2"),
        ([0.1, 0.2], [0, 2], r"y\[1\] is 2.0"),
        ([0.1, 0.2], [0], "one length"),
        (["a"], [1], "p must hold numbers only: .*'a'"),
        ([0.1], ["a"], "y must hold numbers only: .*'a'"),
        ([], [], "one length"),
        ([[0.1]], [[1]], "one length"),
    ],
)
def test_wrong_rows_are_named(p: list, y: list, said: str) -> None:
    for metric in (metrics.brier, metrics.ece, metrics.auroc, metrics.summary):
        with pytest.raises(CalibrationError, match=said):
            metric(p, y)


def test_wrong_options_are_named() -> None:
    with pytest.raises(CalibrationError, match="bins=0"):
        metrics.ece([0.5], [1], bins=0)
    with pytest.raises(CalibrationError, match=r"groups has the shape \(1,\)"):
        metrics.bootstrap(metrics.brier, [0.5, 0.6], [1, 0], groups=["a"])
    with pytest.raises(CalibrationError, match="groups holds None"):
        metrics.bootstrap(metrics.brier, [0.5, 0.6], [1, 0], groups=[None, "a"])
    with pytest.raises(CalibrationError, match="groups holds nan"):
        metrics.group_numbers([1.0, float("nan")], 2)
    with pytest.raises(CalibrationError, match="n=0 rows"):
        metrics.wilson(0, 0)
