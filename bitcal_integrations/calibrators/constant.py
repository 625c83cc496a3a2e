"""The base rate for every answer, shrunk by half a label of each kind; it reads no signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcal_integrations.metrics import wilson

COLUMNS = "none"
INTERVAL = "95% Wilson of the base rate"


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    low, high = wilson(float(y.sum()), y.size)
    return {"p": (float(y.sum()) + 0.5) / (y.size + 1), "low": low, "high": high}


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    return np.full(len(z), float(params["p"]))


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.full(len(z), float(params["low"])), np.full(len(z), float(params["high"]))
