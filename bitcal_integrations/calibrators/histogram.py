"""Histogram binning of the primary score: the share right in bins of equal mass.

Each bin is shrunk by one label's worth towards the base rate. The bins are so many that each has
about 20 labels, up to 15; ties stay in one bin. The objective changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcal_integrations.metrics import wilson

COLUMNS = "one"
INTERVAL = "95% Wilson of the bin"
MOST_BINS, LABELS_PER_BIN = 15, 20


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    bins = min(MOST_BINS, max(1, y.size // LABELS_PER_BIN))
    cuts = np.unique(np.quantile(z[:, 0], np.arange(1, bins) / bins, method="higher"))
    cuts = cuts[cuts > z[:, 0].min()]
    where = np.searchsorted(cuts, z[:, 0], side="right")
    n = np.bincount(where, minlength=cuts.size + 1)
    right = np.bincount(where, weights=y, minlength=n.size)
    base = (y.sum() + 0.5) / (y.size + 1)
    bounds = [wilson(k, int(m)) for k, m in zip(right, n, strict=True)]
    return {
        "cuts": cuts.tolist(),
        "p": ((right + base) / (n + 1)).tolist(),
        "low": [low for low, _ in bounds],
        "high": [high for _, high in bounds],
    }


def _of_bin(params: Mapping[str, Any], what: str, z: np.ndarray) -> np.ndarray:
    where = np.searchsorted(params["cuts"], z[:, 0], side="right")
    return np.asarray(params[what], dtype=np.float64)[where]


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    return _of_bin(params, "p", z)


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _of_bin(params, "low", z), _of_bin(params, "high", z)
