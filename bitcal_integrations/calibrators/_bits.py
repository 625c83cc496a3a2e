"""One fit over several weight types of a model: a shared shape and a shrunk offset for each.

It knows them by the names it is given. How far the types lie apart is estimated from their labels:
where they agree, every type profits from all labels; a type with few leans on the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitcal_integrations.calibrators._base import Calibrator
from bitcal_integrations.calibrators._columns import as_table, logit
from bitcal_integrations.calibrators._fit import fit_calibrator, labels_of
from bitcal_integrations.calibrators._shift import Reference
from bitcal_integrations.calibrators._transfer import offset_of, shared_weight
from bitcal_integrations.errors import CalibrationError

START, SMALLEST = 0.15, 0.01  # standard deviation of the offsets: first guess and floor


def fit_bits(
    parts: Mapping[str, tuple[Any, Any]],
    names: Sequence[str] | None = None,
    method: str = "auto",
    groups: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Calibrator]:
    """A calibrator per weight type, from {weight type: (features, correct)} of one model.

    `groups` names each row's question where weight types answered the same ones. Other options
    are those of `fit_calibrator`.
    """
    if not parts:
        raise CalibrationError("parts is empty; it maps each weight type to (features, correct)")
    tables = {name: as_table(x) for name, (x, _) in parts.items()}
    if len({t.shape[1] for t in tables.values()}) > 1:
        widths = ", ".join(f"{name}: {t.shape[1]}" for name, t in tables.items())
        raise CalibrationError(f"the weight types differ in their number of columns ({widths})")
    labels = {name: labels_of(y, len(tables[name])) for name, (_, y) in parts.items()}
    kept = {name: np.isfinite(x).all(axis=1) for name, x in tables.items()}
    for name, whole in kept.items():
        if not whole.any():
            raise CalibrationError(
                f"parts[{name!r}] has no row with complete features: leave it out"
            )
    weights = {n: shared_weight(_of(groups, n), len(y)) for n, y in labels.items()}
    together = None if groups is None else np.concatenate([groups[name] for name in parts])
    shared = fit_calibrator(
        np.vstack(list(tables.values())), np.concatenate(list(labels.values())),
        names, method, groups=together, **options,
    )  # fmt: skip
    whole = {name: (tables[name][k], labels[name][k], weights[name][k]) for name, k in kept.items()}
    return _each(shared, whole)


def _of(groups: Mapping[str, Any] | None, name: str) -> Any:
    """The groups of one type."""
    if groups is not None and name not in groups:
        raise CalibrationError(f"groups has none for {name!r}; it names those of each weight type")
    return None if groups is None else groups[name]


def _each(
    shared: Calibrator, rows: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, Calibrator]:
    """An offset for each type from its complete rows: features, labels and what each counts."""
    scores = {name: logit(shared(x)) for name, (x, _, _) in rows.items()}
    sd = START
    for _ in range(50):
        found = {name: offset_of(scores[name], y, sd, w) for name, (_, y, w) in rows.items()}
        moved = np.sqrt(np.mean([offset**2 + spread**2 for offset, spread in found.values()]))
        sd, before = max(SMALLEST, float(moved)), sd
        if abs(sd - before) < 1e-4:
            break
    return {
        name: replace(
            shared,
            offset=offset,
            offset_sd=spread,
            adapted=len(rows[name][1]),
            reference=Reference.of(shared.columns.scaled(rows[name][0])),
            reason=f"{shared.reason}; {name}: offset {offset:+.3f} (sd {sd:.3f} between types)",
        )
        for name, (offset, spread) in found.items()
    }
