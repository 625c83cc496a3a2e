"""A calibrator carried to another model (another weight type, say): without labels, or with few.

`transfer` maps each signal of the new model onto the scale of the old by its quantiles; `adapt`
adds one offset on the logit, shrunk towards 0. `transfer` cannot know whether the new model is
right as often as the old one: it widens the interval by the share of answers in which the two
differ and refuses beyond the share that was tested; where the share is not given, the interval is
0 to 1. What was transferred carries no certificate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from bitcal_integrations.calibrators._base import Calibrator
from bitcal_integrations.calibrators._check import is_number
from bitcal_integrations.calibrators._columns import as_table, logit, sigmoid
from bitcal_integrations.calibrators._fit import labels_of
from bitcal_integrations.calibrators._shift import Reference, quantiles
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import group_numbers

# On real 7B models (quantized, and distilled until they broke), pairs that differed in up to .17 of
# their verdicts lost at most .009 Brier score by transfer; from .27 on they lost .04 to .18.
MOST_DISAGREEMENT = 0.2
FEWEST = 20  # rows of each side below which quantiles say nothing


def transfer(
    cal: Calibrator, *, target: Any, source: Any = None, disagreement: float | None = None
) -> Calibrator:
    """The calibrator for a model whose features are like `target`, without its labels.

    `source` holds features of the model that `cal` was fitted on, best for the same questions as
    `target`; without it the scores that `cal` was fitted on stand in. `disagreement` is the share
    of answers in which the two models differ; without it the probabilities are a guess that no
    interval can be given for (labels given to `adapt` do not mend that).
    """
    if cal.maps:
        raise CalibrationError(
            "this calibrator was transferred already", "Transfer from the one fitted on labels."
        )
    if disagreement is not None:
        _check_disagreement(disagreement)
    theirs = _complete(cal, target, "target")
    kept = np.array(cal.reference.quantiles).T  # quantiles of quantiles are the same
    ours = kept if source is None else _complete(cal, source, "source")
    maps = tuple(_map(t, o) for t, o in zip(theirs.T, ours.T, strict=True))
    return replace(
        cal,
        maps=maps,
        transferred=True,
        disagreement=disagreement,
        reference=Reference.of(theirs),
        reason=f"{cal.reason}; transferred without labels by quantiles of {len(theirs)} rows",
    )


def _check_disagreement(share: Any) -> None:
    if not is_number(share) or not 0 <= share <= 1:
        raise CalibrationError(f"disagreement={share!r} must be a share between 0 and 1")
    if share > MOST_DISAGREEMENT:
        raise CalibrationError(
            f"the two models differ in {share:.0%} of their answers; transfer was tested up to "
            f"{MOST_DISAGREEMENT:.0%}",
            "Label answers of the new model and fit a calibrator on them.",
        )


def _complete(cal: Calibrator, features: Any, side: str) -> np.ndarray:
    x = as_table(features, len(cal.names))
    x = x[np.isfinite(x).all(axis=1)]
    if len(x) < FEWEST:
        raise CalibrationError(f"{side} has {len(x)} complete rows; {FEWEST} or more are needed")
    return cal.columns.scaled(x)


def _map(theirs: np.ndarray, ours: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Quantiles of both; where theirs are tied, the middle one of ours."""
    x, where = np.unique(quantiles(theirs), return_inverse=True)
    where = where.reshape(-1)
    y = np.bincount(where, weights=quantiles(ours)) / np.bincount(where)
    return tuple(x.tolist()), tuple(y.tolist())


def adapt(
    cal: Calibrator, features: Any, correct: Any, sd: float = 0.15, groups: Any = None
) -> Calibrator:
    """The calibrator with an offset on the logit from labels of the model it is used on.

    `sd` is the prior standard deviation of the offset: 0 keeps it at 0, a large one
    trusts the labels alone. Rows of one of the `groups` count as one label together. The scores
    stand from now on for what `shift` compares with, unless `transfer` has set that. Give all
    labels at once: a second call knows the first by its offset alone, around which `sd` is the
    prior anew, so that its interval is as wide as the new labels leave it.
    """
    if not is_number(sd) or not 0 <= sd < math.inf:
        raise CalibrationError(f"sd={sd!r} must be a finite number of 0 or more")
    x = as_table(features, len(cal.names))
    y = labels_of(correct, len(x))
    weight = shared_weight(groups, len(y))
    complete = np.isfinite(x).all(axis=1)
    x, y, weight = x[complete], y[complete], weight[complete]
    if not len(y):
        raise CalibrationError("there is no row with a label and complete features to adapt to")
    offset, spread = offset_of(logit(cal(x)), y, sd, weight)
    scores = Reference.of(cal.columns.scaled(x))
    return replace(
        cal,
        offset=cal.offset + offset,
        offset_sd=spread,
        adapted=cal.adapted + len(y),
        reference=cal.reference if cal.transferred else scores,
        reason=f"{cal.reason}; offset {offset:+.3f} from {len(y)} labels",
    )


def shared_weight(groups: Any, n: int) -> np.ndarray:
    """What each row counts: 1, shared by the rows of a group."""
    if groups is None:
        return np.ones(n)
    where = group_numbers(groups, n)
    weight: np.ndarray = 1 / np.bincount(where)[where]
    return weight


def offset_of(t: np.ndarray, y: np.ndarray, sd: float, weight: np.ndarray) -> tuple[float, float]:
    """The most probable offset d of P(right) = sigmoid(t + d), d ~ N(0, sd^2), and its sd."""
    if sd == 0:
        return 0.0, 0.0
    offset, curve = 0.0, 1 / sd**2
    for _ in range(100):
        p = sigmoid(t + offset)
        curve = float(weight @ (p * (1 - p))) + 1 / sd**2
        step = float(weight @ (p - y)) + offset / sd**2
        # Newton's step, bounded: far out the curve is flat and the step wild.
        step = max(-1.0, min(1.0, step / curve))
        offset -= step
        if abs(step) < 1e-10:
            break
    return offset, curve**-0.5
