"""A ridge probe of hidden states, fitted to what a confidence leaves open: right minus confidence.

CORAL (arXiv 2602.06022), in its linear form. The penalty is chosen by cross-validation that never
splits a question, and the scores of those folds are given back beside the probe: what is fitted on
top of a probe must not see scores of answers that the probe was fitted on. It knows arrays; where
states and confidences come from is not its business. Plain numpy: importing it loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.calibrators._auto import folds_of
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import group_numbers, numbers
from bitcal_integrations.signals._probe import Probe

FEWEST = 50  # questions with a verdict; with fewer the folds say nothing about a penalty
# In units of rows times columns, which is what all the directions of the states weigh together:
# from hardly any penalty to one that leaves nothing of the probe.
PENALTIES = tuple(float(p) for p in np.logspace(-6, 3, 19))


@dataclass(frozen=True)
class ProbeFit:
    """A probe with the score of every row from a fold that has not seen its question.

    `penalty` was chosen of those tried; `before` and `after` are the mean squared errors of the
    confidence and of it plus the scores, on held-out questions.
    """

    probe: Probe
    scores: np.ndarray
    penalty: float
    before: float
    after: float


def fit_probe(
    states: Any,
    correct: Any,
    confidence: Any,
    groups: Any = None,
    penalties: Sequence[float] = PENALTIES,
) -> ProbeFit:
    """A probe of `states` (rows, width) for what `confidence` leaves open of `correct`.

    `groups` hold together rows of one question. The strongest penalty gives back the confidence.
    """
    x, left, group = _checked(states, correct, confidence, groups)
    fold = folds_of(group)
    out = np.zeros((len(penalties), len(left)))
    for held in range(fold.max() + 1):
        mine = fold == held
        weights, middle = _ridge(x[~mine], left[~mine], penalties)
        out[:, mine] = weights @ (x[mine] - middle).T
    errors = ((left - out) ** 2).mean(axis=1)
    best = len(errors) - 1 - int(np.argmin(errors[::-1]))  # the strongest of equals
    (weights,), middle = _ridge(x, left, penalties[best : best + 1])
    before, after = float((left**2).mean()), float(errors[best])
    reason = (
        f"the squared error of {len(left)} held-out answers goes from {before:.4f} to {after:.4f}"
    )
    probe = Probe(tuple(weights.tolist()), -float(weights @ middle), reason)
    return ProbeFit(probe, out[best], float(penalties[best]), before, after)


def _checked(
    states: Any, correct: Any, confidence: Any, groups: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """States, what the confidence leaves open, and group numbers."""
    x = np.asarray(states, dtype=np.float64)
    y, p = numbers("correct", correct), numbers("confidence", confidence)
    if x.ndim != 2 or not (len(x) == len(y) == len(p)) or not x.shape[1]:
        raise CalibrationError(
            f"states {x.shape}, correct {y.shape} and confidence {p.shape} must be a row, a "
            "verdict and a number for each answer"
        )
    if not (np.isfinite(x).all() and np.isfinite(p).all() and np.isin(y, (0, 1)).all()):
        raise CalibrationError("states and confidence must be finite, and verdicts 0 or 1")
    group = np.arange(len(y)) if groups is None else group_numbers(groups, len(y))
    questions = len(np.unique(group))
    if questions < FEWEST:
        raise CalibrationError(
            f"{questions} questions with a verdict are too few for a probe of hidden states: at "
            f"least {FEWEST} are needed to fit one",
            "Label more, or leave the feature out.",
        )
    return x, y - p, group


def _ridge(
    x: np.ndarray, left: np.ndarray, penalties: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights on the states themselves, one row per penalty, and the state that scores 0.

    No intercept: what is the same for all answers is the confidence's to say. A fold's own mean
    would also rank the held-out answers the wrong way round.
    """
    middle, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-9 * np.maximum(1e-30, np.abs(x).max(axis=0)), spread, np.inf)
    z = (x - middle) / spread
    rows, columns = z.shape
    wide = columns > rows
    values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
    seen = vectors.T @ (left if wide else z.T @ left)
    strength = rows * columns * np.asarray(penalties, dtype=np.float64)
    found = (seen / (np.maximum(values, 0) + strength[:, None])) @ vectors.T
    return (found @ z if wide else found) / spread, middle


def held_out_confidence(
    features: np.ndarray, correct: np.ndarray, groups: Any, objective: Any = "nll"
) -> np.ndarray:
    """What a calibrator says of each row that has seen none of its question.

    Without a column it is the share that is right.
    """
    y = np.asarray(correct, dtype=np.float64)
    if not features.shape[1]:
        return np.full(len(y), float(y.mean()))
    fold = folds_of(group_numbers(groups, len(y)))
    out = np.empty(len(y))
    for held in range(fold.max() + 1):
        kept = fold != held
        one_kind = y[kept].min() == y[kept].max()
        calibrator = fit_calibrator(
            features[kept], y[kept], method="constant" if one_kind else "logistic",
            objective=objective, groups=np.asarray(groups, dtype=object)[kept],
        )  # fmt: skip
        out[~kept] = calibrator(features[~kept])
    return out
