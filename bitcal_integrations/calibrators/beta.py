"""Beta calibration: logistic regression on log s and -log(1 - s) of the primary score s.

Both slopes stay at or above 0, so that the map never turns a ranking round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import _newton
from bitcal_integrations.calibrators._columns import sigmoid

COLUMNS = "probability"
INTERVAL = _newton.KIND


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    kept = [0, 1]
    while True:
        found = _newton.fit(_slopes(z)[:, kept], y, [0] * len(kept), objective)
        worst = int(np.argmin(found.beta[1:], axis=0)) if kept else 0
        if not kept or found.beta[1 + worst] >= 0:
            return {**_newton.params_of(found), "kept": kept}
        kept = [c for i, c in enumerate(kept) if i != worst]


def _slopes(z: np.ndarray) -> np.ndarray:
    """log s and -log(1 - s), from the logit of s."""
    return np.column_stack([np.log(sigmoid(z[:, 0])), -np.log(sigmoid(-z[:, 0]))])


def _read(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    return _slopes(z)[:, np.asarray(params["kept"], dtype=int)]


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    return _newton.predict(params, _read(params, z))


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _newton.interval(params, _read(params, z))
