"""The ridge probe: scikit-learn's numbers, folds that never split a question, honest controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from bitcal_integrations import metrics
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.calibrators._auto import folds_of
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.quantize.probe import (
    FEWEST,
    PENALTIES,
    fit_probe,
    held_out_confidence,
)

N, WIDTH = 600, 24
NOTHING = (1e12,)  # a penalty that leaves nothing of a probe


def answers(seed: int = 0, n: int = N, width: int = WIDTH, told: float = 1.5) -> tuple[Any, ...]:
    """States, verdicts and a calibrated confidence that does not know what the states tell."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, width)) * rng.uniform(0.1, 30, width) + rng.normal(size=width)
    easy = rng.normal(size=n)
    direction = (states - states.mean(0)) / states.std(0) @ rng.normal(size=width) / width**0.5
    right = (rng.random(n) < 1 / (1 + np.exp(-easy - told * direction))).astype(float)
    confidence = held_out_confidence(easy[:, None], right, np.arange(n))
    return states, right, confidence, easy


def by_sklearn(x: np.ndarray, left: np.ndarray, new: np.ndarray, penalty: float) -> np.ndarray:
    scale = StandardScaler().fit(x)
    ridge = Ridge(alpha=penalty * x.size, fit_intercept=False).fit(scale.transform(x), left)
    return np.asarray(ridge.predict(scale.transform(new)))


# ---- the numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "width"), [(N, WIDTH), (150, 200)], ids=["few numbers", "more numbers than rows"]
)
@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_it_is_the_ridge_of_scikit_learn(n: int, width: int, penalty: float) -> None:
    states, right, confidence, _ = answers(n=n, width=width)
    found = fit_probe(states, right, confidence, penalties=(penalty,))
    left, fold = right - confidence, folds_of(np.arange(n))
    whole = by_sklearn(states, left, states, penalty)
    np.testing.assert_allclose([found.probe(s) for s in states], whole, atol=1e-8)
    for held in range(5):
        mine = fold == held
        want = by_sklearn(states[~mine], left[~mine], states[mine], penalty)
        np.testing.assert_allclose(found.scores[mine], want, atol=1e-8)
    assert found.before == pytest.approx(np.mean(left**2))
    assert found.after == pytest.approx(np.mean((left - found.scores) ** 2))


def test_the_penalty_with_the_least_held_out_error_is_taken() -> None:
    states, right, confidence, _ = answers()
    errors = {p: fit_probe(states, right, confidence, penalties=(p,)).after for p in PENALTIES}
    found = fit_probe(states, right, confidence)
    assert found.penalty == min(errors, key=lambda p: errors[p])
    assert found.after == pytest.approx(min(errors.values()))
    assert PENALTIES[0] < found.penalty < PENALTIES[-1]


def test_what_a_state_tells_beyond_the_confidence_is_found() -> None:
    states, right, _, easy = answers(n=3 * N)
    old, new = slice(N), slice(N, None)
    confidence = held_out_confidence(easy[old, None], right[old], np.arange(N))
    found = fit_probe(states[old], right[old], confidence)
    assert found.after < 0.95 * found.before
    assert "of 600 held-out answers goes from" in found.probe.reason
    fit = np.column_stack([easy[old], found.scores])
    x = np.column_stack([easy[new], [found.probe(s) for s in states[new]]])
    both, alone = (fit_calibrator(f, right[old], method="logistic") for f in (fit, fit[:, :1]))
    p, bare = both(x), alone(x[:, :1])
    assert metrics.brier(p, right[new]) < metrics.brier(bare, right[new]) - 0.02
    assert metrics.auroc(p, right[new]) > metrics.auroc(bare, right[new]) + 0.05


def test_a_state_of_zeros_and_a_number_that_never_changes_do_no_harm() -> None:
    states, right, confidence, _ = answers()
    dead = np.column_stack([states, np.full(N, 3e4), np.zeros(N)])
    found, plain = (fit_probe(s, right, confidence, penalties=(0.01,)) for s in (dead, states))
    assert found.probe.weights[-2:] == (0.0, 0.0)
    assert np.isfinite(found.scores).all()
    other = fit_probe(dead, right, confidence, penalties=(0.01 * WIDTH / (WIDTH + 2),))
    np.testing.assert_allclose(other.scores, plain.scores, atol=1e-9)


def test_the_same_labels_give_the_same_probe() -> None:
    one, other = (fit_probe(*answers()[:3]) for _ in range(2))
    assert one.probe == other.probe
    assert (one.scores == other.scores).all()


# ---- controls --------------------------------------------------------------------------------


def test_permuted_verdicts_give_no_gain() -> None:
    gains, ranks = [], []
    for seed in range(20):
        states, right, confidence, _ = answers(seed, n=300)
        order = np.random.default_rng(seed).permutation(len(right))
        found = fit_probe(states, right[order], confidence[order])
        gains.append(found.before - found.after)
        ranks.append(metrics.auroc(1 / (1 + np.exp(-found.scores)), right[order]))
    assert abs(np.mean(gains)) < 0.002
    assert abs(np.mean(ranks) - 0.5) < 0.03


def test_the_strongest_penalty_gives_back_the_confidence() -> None:
    states, right, confidence, easy = answers()
    found = fit_probe(states, right, confidence, penalties=NOTHING)
    assert np.abs(found.scores).max() < 1e-9
    assert max(abs(found.probe(s)) for s in states) < 1e-9
    assert found.after == pytest.approx(found.before)
    x = np.column_stack([easy, found.scores])
    both, alone = (fit_calibrator(f, right, method="logistic") for f in (x, x[:, :1]))
    np.testing.assert_allclose(both(x), alone(easy), atol=0.005)  # one more prior


def test_a_question_is_never_on_both_sides() -> None:
    """Ten answers a question with one state and one verdict by chance: nothing to be learned.

    Rows that are taken for questions of their own would be learned by heart.
    """
    rng = np.random.default_rng(1)
    question = np.repeat(np.arange(80), 10)
    states = rng.normal(size=(80, 40))[question] + 0.01 * rng.normal(size=(800, 40))
    right = (rng.random(80) < 0.5).astype(float)[question]
    half = np.full(800, 0.5)
    split = fit_probe(states, right, half, groups=question)
    alike = fit_probe(states, right, half)
    assert alike.after < 0.9 * alike.before
    assert split.after > 0.97 * split.before


def test_a_row_is_scored_by_a_probe_that_has_not_seen_its_verdict() -> None:
    states, right, confidence, _ = answers(n=200)
    question = np.arange(200) // 2
    one = fit_probe(states, right, confidence, question, penalties=(0.01,))
    turned = right.copy()
    turned[:2] = 1 - turned[:2]
    other = fit_probe(states, turned, confidence, question, penalties=(0.01,))
    fold = folds_of(question)
    assert (one.scores[fold == fold[0]] == other.scores[fold == fold[0]]).all()
    assert (one.scores[fold != fold[0]] != other.scores[fold != fold[0]]).all()


# ---- the confidence it starts from -------------------------------------------------------------


def test_the_confidence_it_starts_from_has_not_seen_the_question() -> None:
    _, right, confidence, easy = answers(n=200)
    turned = right.copy()
    turned[0] = 1 - turned[0]
    fold = folds_of(np.arange(200))
    other = held_out_confidence(easy[:, None], turned, np.arange(200))
    assert (other[fold == fold[0]] == confidence[fold == fold[0]]).all()
    assert (other[fold != fold[0]] != confidence[fold != fold[0]]).any()


def test_without_another_feature_it_is_the_share_that_is_right() -> None:
    right = np.array([1.0, 1, 1, 0] * 20)
    assert set(held_out_confidence(np.empty((80, 0)), right, np.arange(80))) == {0.75}


def test_verdicts_of_one_kind_leave_nothing_to_find() -> None:
    states = answers()[0]
    confidence = held_out_confidence(states[:, :1], np.ones(N), np.arange(N))
    found = fit_probe(states, np.ones(N), confidence)
    assert np.abs(found.scores).max() < 0.01


# ---- what is refused ---------------------------------------------------------------------------


def test_too_few_questions_are_refused_however_many_rows() -> None:
    states, right, confidence, _ = answers()
    with pytest.raises(CalibrationError, match=f"49 questions .* at least {FEWEST}"):
        fit_probe(states, right, confidence, groups=np.arange(N) % 49)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"states": np.zeros(N)}, r"states \(600,\)"),
        ({"states": np.zeros((N, 0))}, r"states \(600, 0\)"),
        ({"right": np.zeros(3)}, r"correct \(3,\)"),
        ({"right": np.full(N, 0.5)}, "verdicts 0 or 1"),
        ({"confidence": np.full(N, np.nan)}, "must be finite"),
        ({"confidence": "high"}, "confidence"),
    ],
)
def test_what_is_wrong_is_refused(change: dict[str, Any], words: str) -> None:
    states, right, confidence, _ = answers()
    given = {"states": states, "right": right, "confidence": confidence, **change}
    with pytest.raises(CalibrationError, match=words):
        fit_probe(given["states"], given["right"], given["confidence"])
