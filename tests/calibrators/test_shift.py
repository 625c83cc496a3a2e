"""The shift test: as scipy has it, silent on more of the same, loud on something else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwobign

from bitcal_integrations.calibrators import ShiftReport, _shift, fit_calibrator, transfer
from bitcal_integrations.errors import CalibrationError


def rows(n: int, seed: int, move: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([1 / (1 + np.exp(-rng.normal(move, 1, n))), rng.normal(size=n)])


X = rows(2000, 0)
CAL = fit_calibrator(X, np.arange(2000) % 3 > 0, method="platt")


def test_distance_is_scipys_up_to_the_grid() -> None:
    for seed, move in ((1, 0.0), (2, 0.5), (3, 2.0)):
        new = rows(500, seed, move)
        expected = max(ks_2samp(new[:, i], X[:, i]).statistic for i in (0, 1))
        assert CAL.shift(new).distance == pytest.approx(expected, abs=0.012)


def test_chance_is_kolmogorovs() -> None:
    for distance in (0.02, 0.05, 0.1):
        expected = kstwobign.sf(distance * np.sqrt(5000))
        assert _shift.chance(distance, 10_000, 10_000) == pytest.approx(
            expected, rel=0.05, abs=1e-9
        )


def test_more_of_the_same_is_in_domain() -> None:
    reports = [CAL.shift(rows(200, 100 + i)) for i in range(200)]
    assert all(r.in_domain for r in reports)
    assert np.mean([r.p_value < 0.1 for r in reports]) < 0.15


def test_something_else_is_not() -> None:
    report = CAL.shift(rows(200, 5, move=2.0))
    assert isinstance(report, ShiftReport)
    assert not report.in_domain
    assert report.distance > 0.5
    assert report.p_value < 1e-9


def test_large_and_sure_are_both_needed() -> None:
    few, slight = CAL.shift(rows(5, 6, move=1.5)), CAL.shift(rows(200_000, 7, move=0.2))
    assert few.in_domain
    assert few.distance > _shift.LIMIT
    assert slight.in_domain
    assert slight.p_value < 1e-6


def test_one_row_and_missing_features() -> None:
    assert CAL.shift(rows(1, 8)).in_domain
    holes = rows(100, 9)
    holes[:50, 1] = np.nan
    assert CAL.shift(holes) == CAL.shift(holes[50:])
    with pytest.raises(CalibrationError, match="no complete row"):
        CAL.shift(holes[:50])


def test_transfer_compares_with_the_new_model() -> None:
    target = rows(2000, 10, move=2.0)
    moved = transfer(CAL, source=X, target=target)
    assert not CAL.shift(target).in_domain
    assert moved.shift(rows(300, 11, move=2.0)).in_domain
    assert not moved.shift(rows(300, 12)).in_domain
