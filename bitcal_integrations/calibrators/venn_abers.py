"""Venn-Abers: isotonic regression twice, as if the new answer were wrong (p0) and right (p1).

One of p0 and p1 is a calibrated probability whatever the data; p = p1 / (1 - p0 + p1) lies
between. Their distance is the interval, wide where labels are few; it is no confidence interval
of the truth at a score, which it holds far less often than 95%. Both are step functions of the
primary score, worked out for every calibration score at once (Vovk, Petej and Fedorova 2015).
The objective changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

COLUMNS = "one"
INTERVAL = "Venn-Abers p0..p1, one of them calibrated: not a 95% interval"


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    score, where, count = np.unique(z[:, 0], return_inverse=True, return_counts=True)
    right = np.bincount(where, weights=y)
    p1 = if_right(count.astype(float), right)
    p0 = 1 - if_right(count[::-1].astype(float), (count - right)[::-1])[::-1]
    # Of each run of equal values one score is kept: p0 holds from it on, p1 up to it.
    starts = np.flatnonzero(np.diff(p0, prepend=-1.0))
    ends = np.flatnonzero(np.diff(p1, append=2.0))
    return {
        "x0": score[starts].tolist(),
        "p0": p0[starts].tolist(),
        "x1": score[ends].tolist(),
        "p1": p1[ends].tolist(),
    }


def if_right(count: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Isotonic value at each score once a right label is added there, by one pass of corners."""
    x = np.concatenate([[-1.0, 0.0], np.cumsum(count)]).tolist()
    s = np.concatenate([[-1.0, 0.0], np.cumsum(right)]).tolist()
    points = list(zip(x, s, strict=True))
    corners: list[tuple[float, float]] = []
    for point in points:
        while len(corners) > 1 and _turn(corners[-2], corners[-1], point) <= 0:
            corners.pop()
        corners.append(point)
    corners.reverse()  # the leftmost corner is now on top
    values = np.empty(len(count))
    for i in range(len(count)):
        top, after = corners[-1], corners[-2]
        values[i] = (after[1] - top[1]) / (after[0] - top[0])
        moved = tuple(points[i][k] + points[i + 2][k] - points[i + 1][k] for k in (0, 1))
        points[i + 1] = (moved[0], moved[1])
        if _turn(top, after, points[i + 1]) >= 0:
            continue
        corners.pop()
        while len(corners) > 1 and _turn(points[i + 1], corners[-1], corners[-2]) <= 0:
            corners.pop()
        corners.append(points[i + 1])
    return values


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Above 0 where the way a, b, c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    p0, p1 = interval(params, z)
    return p1 / (1 - p0 + p1)


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    before = np.searchsorted(params["x0"], z[:, 0], side="right") - 1
    after = np.searchsorted(params["x1"], z[:, 0], side="left")
    p0, p1 = np.asarray(params["p0"]), np.asarray(params["p1"])
    return p0[before.clip(min=0)], p1[after.clip(max=p1.size - 1)]
