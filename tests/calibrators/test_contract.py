"""What every calibrator file keeps, whatever it is called."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bitcal_integrations import registry
from bitcal_integrations.calibrators import fit_calibrator, from_dict
from bitcal_integrations.errors import BadRequest, BitcalError, CalibrationError, UnknownName

NAMES = registry.names("calibrators")
SCORED = tuple(name for name in NAMES if name != "constant")


def labelled(n: int, seed: int = 0, width: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """An over-confident score in column 0, noise-free help in column 1, then noise."""
    rng = np.random.default_rng(seed)
    t, help_ = rng.normal(1, 1, n), rng.normal(0, 1, n)
    y = rng.random(n) < 1 / (1 + np.exp(-(0.7 * t + 0.5 * help_ - 0.2)))
    columns = [1 / (1 + np.exp(-2 * t)), 3 + 2 * help_, *rng.normal(size=(max(0, width - 2), n))]
    return np.column_stack(columns[:width]), y.astype(int)


X, Y = labelled(600)
FRESH, _ = labelled(200, seed=1)


def test_the_files_are_found() -> None:
    assert set(NAMES) == {
        "beta", "constant", "histogram", "isotonic", "logistic",
        "platt", "smooth", "temperature", "venn_abers",
    }  # fmt: skip


@pytest.mark.parametrize("objective", ["nll", "brier"])
@pytest.mark.parametrize("name", NAMES)
def test_reads_back_equal_and_says_the_same(name: str, objective: str) -> None:
    cal = fit_calibrator(X, Y, names=("score", "help"), method=name, objective=objective)
    text = json.dumps(cal.to_dict(), allow_nan=False)
    again = from_dict(json.loads(text))
    assert again == cal
    assert again(FRESH).tobytes() == cal(FRESH).tobytes()
    assert again.interval(FRESH).tobytes() == cal.interval(FRESH).tobytes()
    assert (again.method, again.names, again.n) == (name, ("score", "help"), 600)
    assert again.base_rate == Y.mean()
    assert not again.transferred


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_feature_is_unknown(name: str) -> None:
    cal, holes = fit_calibrator(X, Y, method=name), FRESH[:4].copy()
    holes[1, 0], holes[2, 1] = math.nan, math.nan
    assert np.isnan(cal(holes)).tolist() == [False, True, True, False]
    assert np.isnan(cal.interval(holes)).all(axis=1).tolist() == [False, True, True, False]
    assert cal(holes)[[0, 3]] == pytest.approx(cal(FRESH)[[0, 3]], abs=1e-12)
    assert cal(np.full((1, 2), math.nan)).shape == (1,)
    assert cal(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_beyond_the_calibration_range_is_its_end(name: str) -> None:
    cal = fit_calibrator(X, Y, method=name)
    low, high = X.min(axis=0), X.max(axis=0)
    far = np.array([[0.0, -1e9], [1.0, math.inf], [0.0, -math.inf]])
    ends = np.array([low, high, low])
    assert cal(far) == pytest.approx(cal(ends), abs=1e-12)
    assert ((cal(far) > 0) & (cal(far) < 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_changes_nothing(name: str) -> None:
    mixed = np.random.default_rng(3).permutation(len(Y))
    one, two = fit_calibrator(X, Y, method=name), fit_calibrator(X[mixed], Y[mixed], method=name)
    assert one == two
    assert one(FRESH)[::-1].tolist() == pytest.approx(one(FRESH[::-1]).tolist(), abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_holds_the_value_and_widens_with_few_labels(name: str) -> None:
    many, few = (fit_calibrator(X[:n], Y[:n], method=name) for n in (600, 60))
    for cal in (many, few):
        low, high = cal.interval(FRESH).T
        assert ((low >= 0) & (low <= cal(FRESH)) & (cal(FRESH) <= high) & (high <= 1)).all()
    width = [float(np.diff(cal.interval(FRESH)).mean()) for cal in (many, few)]
    assert 0 < width[0] < width[1]
    assert many.interval_kind == registry.resolve("calibrators", name).INTERVAL


@pytest.mark.parametrize("name", [n for n in NAMES if n != "venn_abers"])  # its pair is no such one
def test_copies_of_a_question_are_no_evidence(name: str) -> None:
    """Forty questions, each 25 times: the interval is about that of forty labels."""
    x, y = labelled(40, seed=4)
    many, groups = (np.repeat(v, 25, axis=0) for v in (x, np.arange(40)))
    once = fit_calibrator(x, y, method=name)
    told = fit_calibrator(many, np.repeat(y, 25), method=name, groups=groups)
    blind = fit_calibrator(many, np.repeat(y, 25), method=name)
    width = [float(np.diff(cal.interval(FRESH)).mean()) for cal in (once, told, blind)]
    assert width[1] > 0.7 * width[0]
    assert width[2] < 0.6 * width[1]
    assert (told.n, blind.n) == (40, 1000)
    assert told.design_effect == pytest.approx(25)
    assert told(FRESH).max() <= 1 - 1 / 42


def test_groups_whose_answers_differ_are_evidence() -> None:
    """Rows that share a group but nothing else are as good as lone ones, and lone ones are so."""
    x, y = labelled(2000, seed=6)
    apart = fit_calibrator(x, y, method="platt", groups=np.arange(2000))
    assert apart == fit_calibrator(x, y, method="platt")
    pairs = fit_calibrator(x, y, method="platt", groups=np.arange(2000) // 2)
    assert 1 <= pairs.design_effect < 1.1


@pytest.mark.parametrize("name", NAMES)
def test_huge_features_are_refused_at_fit_and_clamped_after(name: str) -> None:
    x = X.copy()
    x[3, 1] = 1e300
    with pytest.raises(
        CalibrationError, match=r"feature 1 of row 3 is 1e\+300; it must lie within"
    ):
        fit_calibrator(x, Y, method=name)
    x[:, 1] = X[:, 1] * 1e149
    cal = fit_calibrator(x, Y, method=name)
    assert cal(x) == pytest.approx(fit_calibrator(X, Y, method=name)(X), abs=1e-6)
    json.dumps(cal.to_dict(), allow_nan=False)
    ends = np.array([[0.5, x[:, 1].max()], [0.5, x[:, 1].min()]])
    assert cal(np.array([[0.5, 1.7e308], [0.5, -1.7e308]])) == pytest.approx(cal(ends), abs=1e-12)
    far = [[0.5, 1.7e308]]
    assert np.isfinite(fit_calibrator(X, Y, method=name)(far)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_score_is_not_certain(name: str) -> None:
    """Forty answers told apart without a mistake do not make 1.0 or 0.0."""
    score, y = np.linspace(0.05, 0.95, 40), np.arange(40) >= 20
    p = fit_calibrator(score, y, method=name)(np.array([0.0, 0.05, 0.95, 1.0]))
    assert p.min() >= 1 / 42 - 1e-12
    assert p.max() <= 41 / 42 + 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_ties_and_constant_scores_give_the_base_rate(name: str) -> None:
    y = np.arange(100) < 70
    cal = fit_calibrator(np.full(100, 0.6), y, method=name)
    said = cal([0.6, 0.1])
    assert said[0] == said[1]
    # one temperature on the logit of .6 can say .7 as well
    assert said[0] == pytest.approx(0.7, abs=0.006)
    two = fit_calibrator(np.repeat([0.3, 0.8], 50), np.r_[np.ones(10), np.zeros(40), y[:50]],
                         method=name)  # fmt: skip
    assert np.isfinite(two([0.3, 0.5, 0.8])).all()


@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("n", [1, 30])
def test_one_class_is_refused(name: str, n: int) -> None:
    with pytest.raises(CalibrationError, match=rf"all {n} labelled answers are right.*'{name}'"):
        fit_calibrator(np.linspace(0.1, 0.9, n), np.ones(n), method=name)


@pytest.mark.parametrize("name", NAMES)
def test_two_labels_are_enough_to_be_finite(name: str) -> None:
    p = fit_calibrator([0.2, 0.8], [0, 1], method=name)([0.2, 0.5, 0.8])
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_many_columns_and_one(name: str) -> None:
    for width in (1, 5):
        x, y = labelled(300, width=width)
        cal = fit_calibrator(x, y, method=name)
        assert ((cal(x) > 0) & (cal(x) < 1)).all()
        assert cal(x).shape == (300,)


@pytest.mark.parametrize("name", NAMES)
def test_pure_and_told_what_it_is(name: str) -> None:
    module, cal, before = registry.resolve("calibrators", name), None, FRESH.copy()
    assert module.__doc__
    assert module.COLUMNS in ("none", "probability", "one", "all")
    cal = fit_calibrator(X, Y, method=name)
    assert (cal(FRESH) == cal(FRESH)).all()
    assert (before == FRESH).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("temperature", "beta")])
def test_scores_outside_0_to_1_are_served(name: str) -> None:
    x = X.copy()
    x[:, 0] = -10 * x[:, 0]
    assert np.isfinite(fit_calibrator(x, Y, method=name)(x)).all()


@pytest.mark.parametrize("name", ["temperature", "beta"])
def test_what_needs_a_probability_says_so(name: str) -> None:
    with pytest.raises(CalibrationError, match=r"within \[0, 1\].*'column 0'.*-10 to -1"):
        fit_calibrator(np.linspace(-10, -1, 40), np.arange(40) % 2, method=name)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"method": "magic"}, UnknownName, "'magic' is not one of the calibrators"),
        ({"method": "_auto"}, UnknownName, "'_auto' is not one of the calibrators"),
        ({"objective": "ubce"}, CalibrationError, "objective='ubce' must be one of 'nll', 'brier'"),
        ({"names": ("a",)}, CalibrationError, "must be 2 different names"),
        ({"correct": Y[:-1]}, CalibrationError, r"\(599,\); one per row is \(600,\)"),
        ({"correct": Y * 2}, CalibrationError, "is 2.0; a label is 0"),
        ({"correct": ["yes"] * 600}, CalibrationError, "labels must be 0"),
        ({"groups": [1]}, CalibrationError, r"groups has the shape \(1,\)"),
        ({"groups": [None, "a"] * 300}, CalibrationError, "groups holds None; every row needs"),
        ({"groups": [(), "a"] * 300}, CalibrationError, "groups must be all texts or all numbers"),
        ({"features": np.full((600, 2), np.nan)}, CalibrationError, "none of the 600 rows"),
        ({"features": np.zeros((600, 2, 2))}, CalibrationError, r"\(600, 2, 2\)"),
        ({"features": ["high"] * 600}, CalibrationError, "features must be numbers"),
    ],
)
def test_wrong_input_is_named(change: dict, error: type[BitcalError], said: str) -> None:
    with pytest.raises(error, match=said):
        fit_calibrator(**{"features": X, "correct": Y, **change})


def test_wrong_use_is_named() -> None:
    cal = fit_calibrator(X, Y, method="platt")
    with pytest.raises(CalibrationError, match="3 columns were given; the calibrator reads 2"):
        cal(np.zeros((5, 3)))
    with pytest.raises(BadRequest, match="not a whole calibrator: no 'method'"):
        from_dict({"version": 1})
    with pytest.raises(CalibrationError, match="version 99"):
        from_dict({**cal.to_dict(), "version": 99})
    with pytest.raises(UnknownName, match="'gone'"):
        from_dict({**cal.to_dict(), "method": "gone"})


def test_incomplete_rows_are_left_out_and_counted() -> None:
    x = X.copy()
    x[:7, 1] = math.nan
    cal = fit_calibrator(x, Y, method="platt")
    assert cal.n == 593
    assert "7 rows without complete features" in cal.reason
    assert cal.params == fit_calibrator(X[7:], Y[7:], method="platt").params
