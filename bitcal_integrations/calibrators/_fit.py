"""Features and labels in, a calibrator out: checks, scales, and the fit of one method.

Rows are put into one fixed order first, so that the order they came in changes nothing, not even
the folds of a cross-validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from bitcal_integrations import registry
from bitcal_integrations.calibrators._base import Calibrator, seen
from bitcal_integrations.calibrators._check import refuse_huge
from bitcal_integrations.calibrators._columns import Columns, as_table
from bitcal_integrations.calibrators._shift import Reference
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import group_numbers

OBJECTIVES = ("nll", "brier")


class Rows(NamedTuple):
    """Complete labelled rows in their fixed order; `left_out` had no complete features."""

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    left_out: int


def fit_calibrator(
    features: Any,
    correct: Any,
    names: Sequence[str] | None = None,
    method: str = "auto",
    objective: Literal["nll", "brier"] = "nll",
    groups: Any = None,
) -> Calibrator:
    """A calibrator fitted on features (rows, columns) and whether each answer was right.

    `names` label the columns; column 0 is the primary score of methods that read one score.
    `method` is a file of this folder, or "auto": chosen by the number of labels and by
    cross-validated Brier score. `groups` holds together rows that must not be split (samples of
    one question, say); they are no more evidence than they are found to be. Rows without a complete
    set of features are left out and counted in `reason`.
    """
    from bitcal_integrations.calibrators._auto import choose

    if objective not in OBJECTIVES:
        raise CalibrationError(
            f"objective={objective!r} must be one of {', '.join(map(repr, OBJECTIVES))}"
        )
    if method != "auto":
        registry.resolve("calibrators", method)
    rows = labelled(features, correct, groups)
    labels = names_of(names, rows.x.shape[1])
    reason = "asked for"
    if method == "auto":
        method, reason = choose(rows, objective)
    elif registry.resolve("calibrators", method).COLUMNS != "none":
        _refuse_one_class(rows.y, method)
    if rows.left_out:
        reason += f"; {rows.left_out} rows without complete features left out"
    return fit_method(method, rows, labels, objective, reason)


def fit_method(
    method: str, rows: Rows, names: tuple[str, ...], objective: str, reason: str
) -> Calibrator:
    """One method on checked rows."""
    x, y = rows.x, rows.y
    module = registry.resolve("calibrators", method)
    columns = Columns.of(x, standardise=module.COLUMNS != "probability")
    if module.COLUMNS == "probability" and not columns.logits[0]:
        raise CalibrationError(
            f"method {method!r} needs a primary score within [0, 1], and column "
            f"{names[0]!r} reaches from {x[:, 0].min():.4g} to {x[:, 0].max():.4g}",
            "Use 'platt', 'isotonic' or 'venn_abers', which take any score.",
        )
    z = columns.scaled(x)
    params = module.fit(seen(module, z), y, objective)
    away = y - module.predict(params, seen(module, z))
    return Calibrator(
        method=method,
        names=names,
        n=int(np.unique(rows.groups).size),
        base_rate=float(y.mean()),
        reason=reason,
        objective=objective,
        columns=columns,
        params=params,
        reference=Reference.of(z),
        design_effect=design_effect(away, rows.groups),
    )


def design_effect(away: np.ndarray, groups: np.ndarray) -> float:
    """Variance of the sum of what the fit leaves, by groups, over that of as many lone rows.

    >>> design_effect(np.array([1.0, 1.0, -1.0, -1.0]), np.array([0, 0, 1, 1]))
    2.0
    """
    lone, sums = float(away @ away), np.bincount(groups, weights=away)
    if not lone or np.unique(groups).size == groups.size:
        return 1.0
    return max(1.0, float(np.sort(sums**2).sum()) / lone)  # sorted: names of groups must not matter


def labelled(features: Any, correct: Any, groups: Any = None) -> Rows:
    """Checked rows in their fixed order, the incomplete ones left out."""
    x = as_table(features)
    refuse_huge(x)
    y = labels_of(correct, len(x))
    complete = np.isfinite(x).all(axis=1)
    if not complete.any():
        raise CalibrationError(f"none of the {len(x)} rows has a label and complete features")
    group = _groups(groups, len(x))
    order = np.lexsort([y, *x.T[::-1]])
    order = order[complete[order]]
    return Rows(x[order], y[order], group[order], int((~complete).sum()))


def labels_of(correct: Any, n: int) -> np.ndarray:
    """Labels as 0.0 and 1.0, one for each of n rows."""
    try:
        y = np.asarray(correct, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"labels must be 0 (wrong) or 1 (right): {error}") from error
    if y.shape != (n,):
        raise CalibrationError(f"labels have the shape {y.shape}; one per row is ({n},)")
    bad = (y != 0) & (y != 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(f"label {row} is {y[row]}; a label is 0 (wrong) or 1 (right)")
    return y


def _groups(groups: Any, n: int) -> np.ndarray:
    if groups is None:
        return np.arange(n)
    return group_numbers(groups, n)


def names_of(names: Sequence[str] | None, width: int) -> tuple[str, ...]:
    """One label per column."""
    if names is None:
        return tuple(f"column {i}" for i in range(width))
    if isinstance(names, str) or len(names) != width or len(set(names)) != width:
        raise CalibrationError(f"names={names!r} must be {width} different names, one per column")
    return tuple(names)


def _refuse_one_class(y: np.ndarray, method: str) -> None:
    if y.min() == y.max():
        kind = "right" if y[0] else "wrong"
        raise CalibrationError(
            f"all {len(y)} labelled answers are {kind}, so {method!r} has nothing to tell apart",
            "Label more answers, or use method='auto' or 'constant' for the shrunk base rate.",
        )
