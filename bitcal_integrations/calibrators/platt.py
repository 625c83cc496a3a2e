"""Platt scaling on the logit of the primary score: slope and intercept, the slope shrunk."""

from __future__ import annotations

from typing import Any

import numpy as np

from bitcal_integrations.calibrators import _newton

COLUMNS = "one"
INTERVAL = _newton.KIND


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    return _newton.params_of(_newton.fit(z, y, [0], objective))


predict = _newton.predict
interval = _newton.interval
