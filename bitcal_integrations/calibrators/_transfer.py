"""A calibrator carried to another model (another weight type, say): without labels, or with few.

`transfer` maps each signal of the new model onto the scale of the old by its quantiles; `adapt`
adds one offset on the logit, shrunk towards 0. Neither can know whether the new model is right
as often as the old one: `transfer` widens the interval by the share of answers in which the two
differ, where that is given, and refuses beyond the share that was tested. What was transferred
carries no certificate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from bitcal_integrations.calibrators._base import Calibrator
from bitcal_integrations.calibrators._columns import as_table, logit, sigmoid
from bitcal_integrations.calibrators._fit import labels_of
from bitcal_integrations.calibrators._shift import Reference, quantiles
from bitcal_integrations.errors import CalibrationError

# On real 7B models (quantized, and distilled until they broke), pairs that differed in up to .17 of
# their verdicts lost at most .009 Brier score by transfer; from .27 on they lost .04 to .18.
MOST_DISAGREEMENT = 0.2
FEWEST = 20  # rows of each side below which quantiles say nothing


def transfer(
    cal: Calibrator, *, source: Any, target: Any, disagreement: float | None = None
) -> Calibrator:
    """The calibrator for a model whose features are like `target`, without its labels.

    `source` holds features of the model that `cal` was fitted on, best for the same questions as
    `target`; `disagreement` is the share of these in which the two models' answers differ.
    """
    if cal.maps:
        raise CalibrationError(
            "this calibrator was transferred already", "Transfer from the one fitted on labels."
        )
    if disagreement is not None:
        _check_disagreement(disagreement)
    ours, theirs = (_complete(cal, x, n) for x, n in ((source, "source"), (target, "target")))
    maps = tuple(_map(t, o) for t, o in zip(theirs.T, ours.T, strict=True))
    return replace(
        cal,
        maps=maps,
        transferred=True,
        disagreement=disagreement,
        reference=Reference.of(theirs),
        reason=f"{cal.reason}; transferred without labels by quantiles of {len(theirs)} rows",
    )


def _check_disagreement(share: float) -> None:
    if not 0 <= share <= 1:
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


def adapt(cal: Calibrator, features: Any, correct: Any, sd: float = 0.15) -> Calibrator:
    """The calibrator with an offset on the logit from labels of the model it is used on.

    `sd` is the prior standard deviation of the offset: 0 keeps it at 0, a large one
    trusts the labels alone.
    """
    if not (sd >= 0 and math.isfinite(sd)):
        raise CalibrationError(f"sd={sd!r} must be a finite number of 0 or more")
    x = as_table(features, len(cal.names))
    y = labels_of(correct, len(x))
    complete = np.isfinite(x).all(axis=1)
    x, y = x[complete], y[complete]
    if not len(y):
        raise CalibrationError("there is no row with a label and complete features to adapt to")
    offset, spread = offset_of(logit(cal(x)), y, sd)
    return replace(
        cal,
        offset=cal.offset + offset,
        offset_sd=spread,
        adapted=cal.adapted + len(y),
        reason=f"{cal.reason}; offset {offset:+.3f} from {len(y)} labels",
    )


def offset_of(t: np.ndarray, y: np.ndarray, sd: float) -> tuple[float, float]:
    """The most probable offset d of P(right) = sigmoid(t + d), d ~ N(0, sd^2), and its sd."""
    if sd == 0:
        return 0.0, 0.0
    offset, curve = 0.0, 1 / sd**2
    for _ in range(100):
        p = sigmoid(t + offset)
        curve = float(np.sum(p * (1 - p))) + 1 / sd**2
        step = float(np.sum(p - y)) + offset / sd**2
        # Newton's step, bounded: far out the curve is flat and the step wild.
        step = max(-1.0, min(1.0, step / curve))
        offset -= step
        if abs(step) < 1e-10:
            break
    return offset, curve**-0.5
