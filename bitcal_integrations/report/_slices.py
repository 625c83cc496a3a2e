"""Breakdowns: the same figures for each task, each weight type and each label of the user's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.report._rows import Scored, known, number, scored
from bitcal_integrations.report.evaluation import Breakdown, Estimate, Slice
from bitcal_integrations.types import Labelled

MOST_SLICES = 40  # a longer table is not read; the rest is one row
NO_LABEL = "(no label)"


def breakdowns(rows: Sequence[Labelled], seed: int) -> tuple[Breakdown, ...]:
    """By task, by weight type where any is named, then by each key of `by` in its order."""
    keys: dict[str, None] = {key: None for row in rows for key in row.by}
    tables: list[tuple[str, Callable[[Labelled], str]]] = [("task", lambda row: row.task)]
    if any(row.weights for row in rows):
        tables.append(("weights", lambda row: row.weights or NO_LABEL))
    for key in keys:
        tables.append((key, lambda row, key=key: str(row.by.get(key, NO_LABEL))))  # type: ignore[misc]
    return tuple(Breakdown(by, _slices(rows, label, seed)) for by, label in tables if rows)


def _slices(
    rows: Sequence[Labelled], label: Callable[[Labelled], str], seed: int
) -> tuple[Slice, ...]:
    found: dict[str, list[Labelled]] = defaultdict(list)
    for row in rows:
        found[label(row)].append(row)
    large_first = sorted(found, key=lambda name: (-len(found[name]), name))
    shown, rest = large_first[:MOST_SLICES], large_first[MOST_SLICES:]
    slices = [_slice(name, found[name], seed) for name in sorted(shown)]
    if rest:
        others = [row for name in rest for row in found[name]]
        slices.append(_slice(f"({len(rest)} others)", others, seed))
    return tuple(slices)


def _slice(label: str, rows: Sequence[Labelled], seed: int) -> Slice:
    verdicts = [row.correct for row in rows if row.correct is not None]
    right, n = sum(verdicts), len(verdicts)
    these = scored(rows)
    p = these.value
    has = p is not None and these.n > 0
    bins = min(15, max(1, these.n // 10))
    return Slice(
        label=label,
        rows=len(rows),
        judged=n,
        unknown=sum(not known(row) for row in rows),
        scored=these.n,
        accuracy=Estimate(right / n, *metrics.wilson(right, n)) if n else Estimate(),
        confidence=float(np.mean(p)) if p is not None and has else None,
        came_true=float(these.y.mean()) if has else None,
        brier_raw=_brier(these.raw, these),
        brier=_brier(p, these),
        ece=metrics.ece(p, these.y, bins) if has else None,
        ece_floor=metrics.ece_floor(p, bins, seed=seed)[0] if has else None,
        auroc=number(metrics.auroc(p, these.y)) if has else None,
    )


def _brier(p: np.ndarray | None, these: Scored) -> float | None:
    return metrics.brier(p, these.y) if p is not None and these.n else None
