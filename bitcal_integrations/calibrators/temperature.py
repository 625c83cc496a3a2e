"""Temperature scaling: the logit of the primary score, divided by one number.

It has no bias term, so an under-confident score stays pinned at .5: here for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import _newton
from bitcal_integrations.calibrators._columns import sigmoid
from bitcal_integrations.metrics import Z95

COLUMNS = "probability"
INTERVAL = _newton.KIND
WIDEST = 1e-4  # prior precision of the slope: it only keeps separable labels finite


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    precision, slope = np.array([WIDEST]), np.zeros(1)
    slope = _newton.descend(z, y, precision, slope)
    if objective == "brier":
        slope = _newton.descend(z, y, precision, slope, "brier")
    p = sigmoid(z @ slope)
    information = float(p * (1 - p) @ z[:, 0] ** 2) + WIDEST
    # A score that ranks backwards has no temperature: the hottest one says .5 to everything.
    return {"slope": max(0.0, float(slope[0])), "sd": information**-0.5}


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    return sigmoid(params["slope"] * z[:, 0])


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle, half = params["slope"] * z[:, 0], Z95 * params["sd"] * np.abs(z[:, 0])
    return sigmoid(middle - half), sigmoid(middle + half)
