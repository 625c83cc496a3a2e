"""Isotonic regression on the primary score: the best non-decreasing steps.

They minimise the Brier score and the NLL alike, so the objective changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcal_integrations.metrics import wilson

COLUMNS = "one"
INTERVAL = "95% Wilson of the step"


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression().fit(z[:, 0], y)
    steps, size = np.unique(found.predict(z[:, 0]), return_counts=True)
    value = found.y_thresholds_
    rows = size[np.searchsorted(steps, value).clip(max=steps.size - 1)]
    bounds = [wilson(v * n, int(n)) for v, n in zip(value, rows, strict=True)]
    return {
        "x": found.X_thresholds_.tolist(),
        "p": value.tolist(),
        "low": [low for low, _ in bounds],
        "high": [high for _, high in bounds],
    }


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    return np.interp(z[:, 0], params["x"], params["p"])


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.interp(z[:, 0], params["x"], params[side]) for side in ("low", "high"))
    return low, high
