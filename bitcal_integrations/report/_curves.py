"""Curves of one score over the scored rows: reliability, histogram, risk-coverage, deferral."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.report._rows import Scored
from bitcal_integrations.report.evaluation import CALIBRATED, RAW, Curve, HistogramBin, ScoreView
from bitcal_integrations.types import Labelled

HISTOGRAM_BINS = 20
MOST_POINTS = 200  # finer than a pixel of the drawing


def views(kept: Sequence[Labelled], scored: Scored, bins: int) -> tuple[ScoreView, ...]:
    """One view per score that exists; none without scored rows."""
    judged = sum(row.correct is not None for row in kept)
    columns = ((RAW, scored.raw), (CALIBRATED, scored.value))
    return tuple(
        _view(name, p, scored.y, bins, judged) for name, p in columns if p is not None and p.size
    )


def _view(name: str, p: np.ndarray, y: np.ndarray, bins: int, judged: int) -> ScoreView:
    found = metrics.risk_coverage(p, y)
    keep = _thin(found.threshold.size)
    rows = list(zip(found.threshold, found.coverage, found.risk, strict=True))
    points = [(float(t), float(c), float(r)) for t, c, r in (rows[i] for i in keep)]
    seen = p.size / judged  # unknown rows are sent on whatever the threshold
    return ScoreView(
        name=name,
        bins=tuple(_plain(b) for b in metrics.reliability_curve(p, y, bins)),
        histogram=_histogram(p, y),
        risk=Curve(name, tuple(points)),
        deferral=Curve(name, tuple((t, 1 - c * seen, 1 - r) for t, c, r in points)),
    )


def _thin(n: int) -> list[int]:
    """At most MOST_POINTS places of n, first and last among them."""
    return sorted({round(i) for i in np.linspace(0, n - 1, min(n, MOST_POINTS))})


def _plain(b: metrics.Bin) -> metrics.Bin:
    return b._replace(n=int(b.n))


def _histogram(p: np.ndarray, y: np.ndarray) -> tuple[HistogramBin, ...]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    right, _ = np.histogram(p[y == 1], edges)
    wrong, _ = np.histogram(p[y == 0], edges)
    return tuple(
        HistogramBin(float(a), float(b), int(r), int(w))
        for a, b, r, w in zip(edges[:-1], edges[1:], right, wrong, strict=True)
    )
