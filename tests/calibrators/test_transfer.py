"""A calibrator on another model: the quantile map, the offset, and what each refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from bitcal_integrations.calibrators import adapt, fit_bits, fit_calibrator, from_dict, transfer
from bitcal_integrations.calibrators._newton import KIND
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import brier


def model(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two signals of a model, and whether it was right."""
    rng = np.random.default_rng(seed)
    t, noise = rng.normal(0.5, 1, n), rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-t))).astype(float)
    return np.column_stack([1 / (1 + np.exp(-t)), noise]), y


def distorted(x: np.ndarray) -> np.ndarray:
    """The same signals as another checkpoint would show them: order kept, scale not."""
    return np.column_stack([x[:, 0] ** 5, 4 * x[:, 1] - 7])


X, Y = model(3000, 0)
NEW, LABELS = model(3000, 1)
CAL = fit_calibrator(X, Y, method="logistic")


def test_quantile_map_undoes_a_monotone_distortion() -> None:
    moved = transfer(CAL, source=X, target=distorted(NEW))
    plain, mapped = CAL(distorted(NEW)), moved(distorted(NEW))
    assert brier(mapped, LABELS) < brier(CAL(NEW), LABELS) + 0.002
    assert brier(plain, LABELS) > brier(CAL(NEW), LABELS) + 0.02
    assert np.abs(mapped - CAL(NEW)).mean() < 0.02


def test_onto_itself_it_changes_next_to_nothing() -> None:
    assert np.abs(transfer(CAL, source=X, target=X)(X) - CAL(X)).max() < 0.02


def test_without_a_source_the_scores_it_was_fitted_on_stand_in() -> None:
    target = distorted(NEW)
    kept, given = transfer(CAL, target=target), transfer(CAL, source=X, target=target)
    assert kept(target) == pytest.approx(given(target), abs=1e-9)


def test_it_is_marked_and_travels() -> None:
    moved = transfer(CAL, source=X, target=distorted(NEW), disagreement=0.08)
    assert moved.transferred
    assert not CAL.transferred
    assert "transferred without labels" in moved.reason
    assert moved.interval_kind == f"{KIND} widened by 0.08 disagreement, transferred"
    again = from_dict(json.loads(json.dumps(moved.to_dict(), allow_nan=False)))
    assert again == moved
    assert (again(distorted(NEW)) == moved(distorted(NEW))).all()


def test_disagreement_widens_by_itself() -> None:
    """Where the two models differ in 8% of the answers, the share right can differ by .08."""
    x = distorted(NEW)[:50]
    bare = transfer(CAL, source=X, target=distorted(NEW), disagreement=0).interval(x)
    wide = transfer(CAL, source=X, target=distorted(NEW), disagreement=0.08).interval(x)
    assert wide[:, 0] == pytest.approx(np.maximum(0, bare[:, 0] - 0.08))
    assert wide[:, 1] == pytest.approx(np.minimum(1, bare[:, 1] + 0.08))


def test_without_disagreement_nothing_is_known() -> None:
    """Scores of pure noise look like any others: only labels or disagreement can tell."""
    noise = np.random.default_rng(5).random((500, 2))
    moved = transfer(CAL, source=X, target=noise)
    assert moved.interval_kind == "none: transferred, disagreement unknown"
    assert (moved.interval(noise) == [0.0, 1.0]).all()
    assert np.isnan(moved.interval([[np.nan, 0.5]])).all()
    adapted = adapt(moved, noise[:50], np.arange(50) % 2)
    assert adapted.interval_kind == moved.interval_kind
    known = transfer(CAL, source=X, target=noise, disagreement=0.0)
    assert known.interval_kind == f"{KIND}, transferred"
    assert np.diff(known.interval(noise)).mean() < 0.1


def test_ties_map_to_the_middle() -> None:
    """Ten equal scores stand for the whole source: the middle of its scale."""
    source = np.linspace(0.1, 0.9, 101)
    cal = fit_calibrator(source, np.arange(101) >= 50, method="platt")
    moved = transfer(cal, source=source, target=np.full(30, 0.99))
    assert moved([0.99]) == pytest.approx(cal([0.5]), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"disagreement": 0.21}, "differ in 21% of their answers; transfer was tested up to 20%"),
        ({"disagreement": 1.5}, "disagreement=1.5 must be a share"),
        ({"disagreement": "x"}, "disagreement='x' must be a share"),
        ({"target": X[:5]}, "target has 5 complete rows; 20 or more"),
        ({"source": X[:, :1]}, "1 columns were given; the calibrator reads 2"),
    ],
)
def test_what_it_refuses(change: dict, said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        transfer(CAL, **{"source": X, "target": NEW, **change})


def test_it_is_not_done_twice() -> None:
    with pytest.raises(CalibrationError, match="transferred already"):
        transfer(transfer(CAL, source=X, target=NEW), source=X, target=NEW)


def test_the_offset_is_the_most_probable_one() -> None:
    x, y = NEW[:50], LABELS[:50]
    found = adapt(CAL, x, y, sd=0.3).offset
    t = np.log(CAL(x) / (1 - CAL(x)))
    best = minimize_scalar(lambda d: np.sum(np.logaddexp(0, t + d) - y * (t + d)) + d**2 / 0.18)
    assert found == pytest.approx(best.x, abs=1e-5)
    assert adapt(CAL, x, y)(x) == pytest.approx(1 / (1 + np.exp(-t - adapt(CAL, x, y).offset)))


def test_the_prior_decides_how_far_it_goes() -> None:
    x, wrong = NEW[:50], np.zeros(50)
    still, little, far = (adapt(CAL, x, wrong, sd=sd) for sd in (0, 0.15, 50))
    assert (still(x) == CAL(x)).all() or still(x) == pytest.approx(CAL(x), abs=1e-9)
    assert -1.2 < little.offset < -0.1
    assert far(x).max() < 0.05
    assert np.diff(far.interval(x)).mean() > np.diff(little.interval(x)).mean() * 0.1
    assert little.adapted == 50
    assert little.interval_kind == f"{KIND} with the offset's"


def test_one_label_makes_nothing_certain() -> None:
    """However loose the prior: 3,000 labels and one cannot speak for one case in a million."""
    loose = adapt(CAL, NEW[:1], [1], sd=1e6)
    assert loose(NEW).max() <= 1 - 1 / (CAL.n + 2)
    low, high = loose.interval(NEW).T
    assert ((low <= loose(NEW)) & (loose(NEW) <= high)).all()


def test_what_it_was_adapted_to_is_no_shift() -> None:
    far = distorted(NEW)
    assert not CAL.shift(far).in_domain
    adapted = adapt(CAL, far[:500], LABELS[:500])
    assert adapted.shift(far).in_domain
    assert not adapted.shift(NEW).in_domain
    moved = transfer(CAL, source=X, target=far)
    assert adapt(moved, far[:50], LABELS[:50]).reference == moved.reference  # 3,000 rows say more


def test_copies_of_a_label_are_one_label() -> None:
    x, y, groups = NEW[:50], LABELS[:50], np.repeat(np.arange(50), 20)
    once = adapt(CAL, x, y)
    copied = adapt(CAL, np.repeat(x, 20, axis=0), np.repeat(y, 20), groups=groups)
    assert (copied.offset, copied.offset_sd) == pytest.approx((once.offset, once.offset_sd))
    blind = adapt(CAL, np.repeat(x, 20, axis=0), np.repeat(y, 20))
    assert blind.offset_sd < once.offset_sd / 2


def test_an_uncertain_offset_widens_the_interval() -> None:
    x, y = NEW[:20], LABELS[:20]
    narrow, wide = np.diff(CAL.interval(NEW)), np.diff(adapt(CAL, x, y, sd=0.5).interval(NEW))
    assert (wide > narrow).mean() > 0.99


@pytest.mark.parametrize("sd", [-1, float("nan"), float("inf"), "a", None, True])
def test_a_wrong_prior_is_named(sd: float) -> None:
    with pytest.raises(CalibrationError, match="sd="):
        adapt(CAL, X, Y, sd=sd)


def test_nothing_to_adapt_to_is_named() -> None:
    with pytest.raises(CalibrationError, match="no row with a label"):
        adapt(CAL, np.full((3, 2), np.nan), [1, 0, 1])


def test_weight_types_share_a_shape_and_differ_by_an_offset() -> None:
    """Three types, one of them right less often at the same score, one with ten labels."""
    (x8, y8), (x4, y4), (x2, y2) = model(2000, 3), model(10, 4), model(2000, 5)
    y2 = y2 * (np.random.default_rng(0).random(2000) < 0.6)
    fitted = fit_bits({"qint8": (x8, y8), "qint4": (x4, y4), "qint2": (x2, y2)})
    assert list(fitted) == ["qint8", "qint4", "qint2"]
    assert fitted["qint8"].params == fitted["qint2"].params
    assert fitted["qint8"](x8).mean() == pytest.approx(y8.mean(), abs=0.02)
    assert fitted["qint2"](x2).mean() == pytest.approx(y2.mean(), abs=0.02)
    assert fitted["qint4"].offset_sd > 3 * fitted["qint8"].offset_sd
    assert fitted["qint2"].n == 4010
    assert "qint2: offset -" in fitted["qint2"].reason


def test_weight_types_that_agree_lean_on_each_other() -> None:
    parts = {str(i): model(300, 10 + i) for i in range(6)}
    fitted = fit_bits(parts, method="platt")
    assert max(abs(c.offset) for c in fitted.values()) < 0.12


def test_wrong_parts_are_named() -> None:
    with pytest.raises(CalibrationError, match="parts is empty"):
        fit_bits({})
    with pytest.raises(CalibrationError, match=r"parts\['b'\] has no row"):
        fit_bits({"a": (X, Y), "b": (X[:0], Y[:0])})
    with pytest.raises(CalibrationError, match="groups has none for 'b'"):
        fit_bits({"a": (X, Y), "b": (X, Y)}, groups={"a": np.arange(3000)})
    with pytest.raises(CalibrationError, match="a: 2, b: 1"):
        fit_bits({"a": (X, Y), "b": (X[:, :1], Y)})
