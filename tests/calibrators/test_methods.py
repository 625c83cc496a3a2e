"""Each method against scikit-learn, a brute-force fit, or a case worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from bitcal_integrations.calibrators import _newton, _terms, fit_calibrator, venn_abers
from bitcal_integrations.metrics import brier, nll, wilson


def logits(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


def sample(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.beta(3, 1.5, n).clip(0.001, 0.999)
    return score, (rng.random(n) < 0.3 + 0.6 * score**3).astype(float)


def skl(x: np.ndarray, y: np.ndarray, c: float) -> LogisticRegression:
    return LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(x, y)


def test_constant_by_hand() -> None:
    cal = fit_calibrator([0.1, 0.2, 0.3, 0.4], [1, 1, 1, 0], method="constant")
    assert cal([0.9]).tolist() == [3.5 / 5]
    assert cal.interval([0.9])[0].tolist() == list(wilson(3, 4))


def test_platt_is_scikit_learns_at_its_prior() -> None:
    score, y = sample(500)
    cal = fit_calibrator(score, y, method="platt")
    t = StandardScaler().fit_transform(logits(score)[:, None])
    (sd,) = cal.params["prior_sd"]
    expected = skl(t, y, sd**2).predict_proba(t)[:, 1]
    assert cal(score) == pytest.approx(expected, abs=1e-6)


def test_platt_with_many_labels_is_the_unpenalised_one() -> None:
    score, y = sample(20_000)
    t = logits(score)[:, None]
    expected = skl(t, y, 1e8).predict_proba(t)[:, 1]
    assert fit_calibrator(score, y, method="platt")(score) == pytest.approx(expected, abs=0.001)


def test_logistic_with_many_labels_is_scikit_learns_with_squares_and_products() -> None:
    score, y = sample(20_000)
    x = np.column_stack([score, np.random.default_rng(5).normal(size=score.size)])
    made = StandardScaler().fit_transform(np.column_stack([logits(score), x[:, 1]]))
    made = PolynomialFeatures(2, include_bias=False).fit_transform(made)
    expected = skl(made, y, 1e8).predict_proba(made)[:, 1]
    found = fit_calibrator(x, y, method="logistic")(x)
    assert np.abs(found - expected).mean() < 0.002


def test_squares_and_products_are_scikit_learns() -> None:
    z = np.random.default_rng(0).normal(size=(6, 3))
    expected = PolynomialFeatures(2, include_bias=False).fit_transform(z)
    assert _terms.polynomial(z) == pytest.approx(expected)
    scale, weights = _terms.Scale.of(expected), np.arange(9.0)
    value = _terms.Quadratic.of(0.5, weights, scale, 3).at(z)
    assert value == pytest.approx(0.5 + scale.apply(expected) @ weights)


def test_newton_finds_the_least_squared_error() -> None:
    """objective="brier" against scipy from another start, at the same prior."""
    score, y = sample(400, seed=2)
    cal = fit_calibrator(score, y, method="platt", objective="brier")
    t = StandardScaler().fit_transform(logits(score)[:, None])[:, 0]
    (sd,) = cal.params["prior_sd"]

    def loss(b: np.ndarray) -> float:
        return 2 * np.sum((1 / (1 + np.exp(-b[0] - b[1] * t)) - y) ** 2) + b[1] ** 2 / sd**2 / 2

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert cal.params["beta"] == pytest.approx(best.x, abs=1e-4)
    assert brier(cal(score), y) < brier(fit_calibrator(score, y, method="platt")(score), y)


def test_laplace_interval_is_as_wide_as_theory_says() -> None:
    """Intercept alone: sd = 1 / sqrt(n p (1 - p)) on the logit."""
    y = np.arange(400) < 100
    found = _newton.fit(np.zeros((400, 1)), y.astype(float), [0], "nll")
    low, high = _newton.interval(_newton.params_of(found), np.zeros((1, 1)))
    half = (logits(high) - logits(low)) / 2
    assert half == pytest.approx(1.96 / math.sqrt(400 * 0.25 * 0.75), rel=1e-3)


def test_laplace_intervals_cover() -> None:
    """Of 200 fits where the model holds, about 95% hold the true probability."""
    hits = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        score = rng.random(200).clip(0.01, 0.99)
        truth = 1 / (1 + np.exp(-0.5 - 0.8 * logits(score)))
        cal = fit_calibrator(score, rng.random(200) < truth, method="platt")
        low, high = cal.interval([0.7])[0]
        at = 1 / (1 + math.exp(-0.5 - 0.8 * float(logits(np.array(0.7)))))
        hits.append(low <= at <= high)
    assert 0.9 <= np.mean(hits) <= 0.99


def test_where_the_shape_is_wrong_they_cover_less_and_the_kind_says_so() -> None:
    """The truth falls in the middle of the scores; a line through it misses that."""
    at, hits = 1 / (1 + np.exp(2.0)), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        score = rng.random(1000).clip(0.01, 0.99)
        cal = fit_calibrator(score, rng.random(1000) < np.abs(score - 0.5) + 0.2, method="platt")
        low, high = cal.interval([at])[0]
        hits.append(low <= abs(at - 0.5) + 0.2 <= high)
    assert np.mean(hits) < 0.5
    for method in ("beta", "logistic", "platt", "smooth", "temperature"):
        made = fit_calibrator([0.2, 0.4, 0.6, 0.8] * 10, [0, 0, 1, 0, 1] * 8, method=method)
        assert made.interval_kind == "95% of the fitted curve, if its shape is right"
    pair = fit_calibrator([0.2, 0.4, 0.6, 0.8] * 10, [0, 0, 1, 0, 1] * 8, method="venn_abers")
    assert "not a 95% interval" in pair.interval_kind


def test_temperature_is_the_best_single_slope() -> None:
    score, y = sample(500)
    cal = fit_calibrator(score, y, method="temperature")
    best = min((nll(1 / (1 + np.exp(-s * logits(score))), y), s) for s in np.linspace(0, 3, 3001))[
        1
    ]
    assert cal.params["slope"] == pytest.approx(best, abs=0.001)


def test_temperature_of_a_backward_score_is_infinite() -> None:
    score, y = np.linspace(0.05, 0.95, 60), np.arange(60) < 30
    assert fit_calibrator(score, y, method="temperature")([0.1, 0.9]).tolist() == [0.5, 0.5]


def test_beta_is_logistic_regression_on_its_two_columns() -> None:
    score, y = sample(800)
    cal = fit_calibrator(score, y, method="beta")
    columns = np.column_stack([np.log(score), -np.log1p(-score)])
    (sd,) = cal.params["prior_sd"]
    assert cal.params["kept"] == [0, 1]
    expected = skl(columns, y, sd**2).predict_proba(columns)[:, 1]
    assert cal(score) == pytest.approx(expected, abs=1e-5)


def test_beta_never_turns_the_ranking() -> None:
    score, y = np.linspace(0.05, 0.95, 60), np.arange(60) < 30
    cal = fit_calibrator(score, y, method="beta")
    assert (np.diff(cal(score)) >= -1e-12).all()


def test_isotonic_is_scikit_learns_but_for_its_ends() -> None:
    score, y = sample(500)
    score[:50] = np.round(score[:50], 1).clip(0.1, 0.9)
    edge = 1 / 502
    expected = IsotonicRegression(out_of_bounds="clip").fit(logits(score), y)
    cal = fit_calibrator(score, y, method="isotonic")
    new = np.linspace(0.001, 0.999, 301)
    assert cal(new) == pytest.approx(expected.predict(logits(new)).clip(edge, 1 - edge), abs=1e-9)


def test_isotonic_interval_is_that_of_its_step_by_hand() -> None:
    """Two steps: 1 of 4 right, then 4 of 4."""
    cal = fit_calibrator([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], [0, 1, 0, 0, 1, 1, 1, 1],
                         method="isotonic")  # fmt: skip
    assert cal([0.1, 0.9]) == pytest.approx([0.1, 0.9])  # 0 of 1, and 4 of 4, one label away


def test_histogram_by_hand() -> None:
    """Forty labels make two bins of twenty: 5 and 15 right, shrunk by one label at .5."""
    score = np.linspace(0.1, 0.9, 40)
    y = np.r_[np.ones(5), np.zeros(15), np.ones(15), np.zeros(5)]
    cal = fit_calibrator(score, y, method="histogram")
    assert cal([0.1, 0.9]) == pytest.approx([5.5 / 21, 15.5 / 21])
    assert cal.interval([0.1])[0].tolist() == pytest.approx(list(wilson(5, 20)))


def brute(score: np.ndarray, y: np.ndarray, at: float, label: int) -> float:
    fitted = IsotonicRegression().fit(np.r_[score, at], np.r_[y, label])
    return float(fitted.predict([at])[0])


@pytest.mark.parametrize("seed", range(6))
def test_venn_abers_is_isotonic_regression_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = np.round(rng.random(40), 1 + seed % 2)
    y = (rng.random(40) < score).astype(float)
    params = venn_abers.fit(score[:, None], y, "nll")
    inside = np.linspace(score.min(), score.max(), 57)
    new = np.r_[np.unique(score), inside]
    p0, p1 = venn_abers.interval(params, new[:, None])
    assert p0 == pytest.approx([brute(score, y, s, 0) for s in new], abs=1e-9)
    assert p1 == pytest.approx([brute(score, y, s, 1) for s in new], abs=1e-9)
    assert venn_abers.predict(params, new[:, None]) == pytest.approx(p1 / (1 - p0 + p1))


def ripple(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right answers lie on a chequered board that no quadratic follows."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.random(n), rng.normal(size=n)])
    truth = 1 / (1 + np.exp(-2 * np.sin(7 * x[:, 0]) * np.tanh(2 * x[:, 1]) - 0.5))
    return x, (rng.random(n) < truth).astype(float), truth


def test_smooth_finds_what_squares_and_products_cannot() -> None:
    (x, y, _), (new, labels, truth) = ripple(6000, 0), ripple(6000, 1)
    found = {m: fit_calibrator(x, y, method=m)(new) for m in ("logistic", "smooth")}
    best = brier(truth, labels)
    assert brier(found["smooth"], labels) - best < 0.004
    assert brier(found["logistic"], labels) - best > 0.02


def test_smooth_reads_its_tables_as_its_columns_say() -> None:
    """Prediction by interpolation against the plain product of columns and coefficients."""
    from bitcal_integrations.calibrators import smooth

    x, y, _ = ripple(500, 2)
    x = np.column_stack([x, np.round(x[:, 0], 1), np.repeat([0.0, 1.0], 250)])
    for width in (1, 2, 4):
        cal = fit_calibrator(x[:, :width], y, method="smooth")
        z = cal.columns.clamped(cal.columns.scaled(x[:, :width]))
        scale, knots = _terms.Scale.from_dict(cal.params), smooth._knots(cal.params)
        made = np.hstack([scale.apply(_terms.polynomial(z)), *smooth._splines(z, knots)])
        assert cal(x[:, :width]) == pytest.approx(_newton.predict(cal.params, made), abs=1e-9)
