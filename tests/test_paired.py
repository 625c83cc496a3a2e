"""Paired differences: equal to the metrics themselves, with intervals that hold what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from bitcal_integrations import metrics
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.paired import FEW, KEYS, Columns, Difference, compare, pooled


def columns(right: Any, raw: Any, calibrated: Any = None, groups: Any = None) -> Columns:
    y, p = np.array(right, dtype=float), np.array(raw, dtype=float)
    names = np.array([f"g{i}" for i in range(y.size)] if groups is None else groups, dtype=object)
    return Columns(y, p, p if calibrated is None else np.array(calibrated, dtype=float), names)


def drawn(seed: int, n: int = 200, groups: int | None = None) -> tuple[Columns, Columns]:
    """Two models on the same questions, the second one a blurred copy of the first."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.uniform(0.05, 0.95, n), 2)  # some ties
    q = np.clip(p + np.round(rng.normal(0, 0.2, n), 2), 0.01, 0.99)
    where = np.arange(n) if groups is None else rng.integers(groups, size=n)
    names = [f"g{i}" for i in where]
    one = columns(rng.random(n) < p, p, p**2, names)
    return one, replace(columns(rng.random(n) < p, q, q**2, names), groups=one.groups)


def test_the_values_are_those_of_scikit_learn() -> None:
    one, other = drawn(0)
    found = compare(one, other, draws=20)
    assert list(found) == list(KEYS)
    references = {"brier": brier_score_loss, "nll": log_loss, "auroc": roc_auc_score}
    for score in ("raw", "calibrated"):
        for name, reference in references.items():
            a, b = (reference(c.right, getattr(c, score)) for c in (one, other))
            assert found[f"{name}_{score}"].value == pytest.approx(a - b, abs=1e-12)
    assert found["accuracy"].value == pytest.approx(one.right.mean() - other.right.mean())


def test_an_interval_by_hand() -> None:
    """The squares differ by 1 in 30 of 100 groups: a draw's mean is Binomial(100, .3) / 100."""
    y = np.ones(100)
    one, other = columns(y, [0.0] * 30 + [1.0] * 70), columns(y, y)
    d = compare(one, other, draws=2000)["brier_raw"]
    assert d.value == pytest.approx(0.3)
    assert d.low == pytest.approx(binom.ppf(0.025, 100, 0.3) / 100, abs=0.011)
    assert d.high == pytest.approx(binom.ppf(0.975, 100, 0.3) / 100, abs=0.011)
    assert d.clear
    assert not compare(one, one)["brier_raw"].clear


def test_it_agrees_with_the_bootstrap_of_the_metrics() -> None:
    """Against a constant of one half, the difference is the Brier score minus a quarter."""
    one, _ = drawn(3, groups=60)
    other = replace(one, raw=np.full(one.right.size, 0.5))
    d = compare(one, other, draws=2000)["brier_raw"]
    low, high = metrics.bootstrap(metrics.brier, one.raw, one.right, one.groups, draws=2000, seed=1)
    assert d.low == pytest.approx(low - 0.25, abs=0.002)
    assert d.high == pytest.approx(high - 0.25, abs=0.002)


def blurred(seed: int, n: int) -> tuple[Any, Any, Any]:
    """Right or wrong, a calibrated score, and the same score blurred."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.1, 0.9, n)
    return rng.random(n) < p, p, np.clip(p + rng.normal(0, 0.25, n), 0.01, 0.99)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Groups of five equal rows; an interval over single rows would hold it in 6 of 10."""
    y, p, q = blurred(0, 1_000_000)
    true = {
        "brier_raw": metrics.brier(p, y) - metrics.brier(q, y),
        "auroc_raw": metrics.auroc(p, y) - metrics.auroc(q, y),
    }
    held = dict.fromkeys(true, 0)
    groups = np.repeat(np.arange(100), 5)
    for seed in range(1, 121):
        y, p, q = (np.repeat(v, 5) for v in blurred(seed, 100))
        found = compare(columns(y, p, groups=groups), columns(y, q, groups=groups), 120, seed)
        for key, value in true.items():
            held[key] += found[key].low <= value <= found[key].high
    assert all(0.90 <= n / 120 <= 0.99 for n in held.values()), held


def test_equal_rows_of_a_group_are_no_more_evidence() -> None:
    one, other = drawn(5, n=60)
    five = [c.where(np.repeat(np.arange(60), 5)) for c in (one, other)]
    single, many = compare(one, other), compare(five[0], five[1])
    for key in KEYS:
        assert many[key].value == pytest.approx(single[key].value)
        assert many[key].low == pytest.approx(single[key].low)


def test_only_questions_that_both_have_a_score_for_are_compared() -> None:
    one, other = drawn(6)
    raw, right = other.raw.copy(), one.right.copy()
    raw[:30], right[30:40] = np.nan, np.nan
    less = compare(replace(one, right=right), replace(other, raw=raw), draws=50)
    rest = [c.where(np.arange(40, one.right.size)) for c in (one, other)]
    assert less["brier_raw"] == compare(rest[0], rest[1], draws=50)["brier_raw"]
    judged = np.isfinite(right)
    assert less["accuracy"].value == pytest.approx(
        one.right[judged].mean() - other.right[judged].mean()
    )


def test_the_same_seed_gives_the_same_and_names_of_groups_do_not_matter() -> None:
    one, other = drawn(7, groups=40)
    assert compare(one, other) == compare(one, other)
    assert compare(one, other) != compare(one, other, seed=1)


def test_where_nothing_can_be_said_nothing_is() -> None:
    few = columns([1, 0, 1, 1], [0.9, 0.2, 0.7, 0.6])
    other = columns([1, 0, 1, 0], [0.8, 0.3, 0.7, 0.6])
    found = compare(few, other)
    assert len(few.right) < FEW
    assert found["brier_raw"].value is not None
    assert found["brier_raw"].low is None
    assert not found["brier_raw"].clear
    all_right = columns(np.ones(30), np.linspace(0.1, 0.9, 30))
    assert compare(all_right, all_right)["auroc_raw"] == Difference(None)
    unknown = columns(np.ones(30), np.full(30, np.nan))
    assert compare(unknown, all_right)["brier_raw"] == Difference(None)
    assert compare(unknown, all_right)["accuracy"].value == 0.0


def test_other_questions_are_refused() -> None:
    one, other = drawn(8)
    with pytest.raises(CalibrationError, match="the same questions in the same order"):
        compare(one, replace(other, groups=other.groups[::-1]))


def test_pooled_sets_keep_their_groups() -> None:
    one, _ = drawn(9, n=20)
    twice = pooled([one, one])
    assert twice.right.size == 40
    assert len(set(twice.groups)) == 20


@pytest.mark.parametrize(("wrong", "bounded"), [(1, False), (FEW - 1, False), (FEW, True)])
def test_few_wrong_answers_bound_no_auroc(wrong: int, bounded: bool) -> None:
    """However many right ones there are: a bootstrap never sees other wrong answers than these."""
    rng = np.random.default_rng(0)
    y = np.arange(100) >= wrong
    one, other = (columns(y, np.clip(0.6 + 0.2 * y + rng.normal(0, 0.1, 100), 0, 1)) for _ in "ab")
    assert (one.rarer(), one.rarer("raw")) == (wrong, wrong)
    d = compare(one, other)["auroc_raw"]
    assert d.value is not None
    assert (d.low is not None) == bounded
    assert compare(one, other)["brier_raw"].low is not None


def test_two_models_that_differ_alike_everywhere_still_have_bounds() -> None:
    """A share of groups that would be unlike all 50 is below .0711, or 1 of 40 studies saw one."""
    p = np.full(50, 0.5)
    right, wrong = columns(np.ones(50), p), columns(np.zeros(50), p)
    assert pytest.approx(1 - (1 - 0.0711) ** 50, abs=1e-3) == 0.975
    same = compare(right, right)["accuracy"]
    assert (same.value, same.low, same.high) == pytest.approx((0, -0.0711, 0.0711), abs=1e-4)
    worse = compare(wrong, right)["accuracy"]
    assert (worse.value, worse.low, worse.high) == pytest.approx((-1, -1, -0.8577), abs=1e-4)
    assert compare(columns([1] * 9, p[:9]), columns([0] * 9, p[:9]))["accuracy"].low is None


def test_what_rounding_makes_is_no_difference() -> None:
    """.02 from wrong and .98 from right are one Brier score, but not one float."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 0.1, 40)
    d = compare(columns(np.zeros(40), p), columns(np.ones(40), 1 - p))["brier_raw"]
    assert d.value == pytest.approx(0, abs=1e-15)
    assert not d.clear
