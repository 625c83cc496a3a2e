"""Logistic regression on all signals with their squares and products, shrunk by evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import _newton, _terms
from bitcal_integrations.calibrators._columns import sigmoid

COLUMNS = "all"
INTERVAL = _newton.KIND


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    scale = _terms.Scale.of(_terms.polynomial(z))
    linear, curved = z.shape[1], scale.width - z.shape[1]
    blocks = [0] * linear + [1] * curved
    found = _newton.fit(scale.apply(_terms.polynomial(z)), y, blocks, objective, scale.width)
    return {**_newton.params_of(found), **scale.to_dict()}


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    beta, scale = np.asarray(params["beta"]), _terms.Scale.from_dict(params)
    value = _terms.Quadratic.of(beta[0], beta[1:], scale, z.shape[1])
    return _terms.in_chunks(z, lambda part: sigmoid(value.at(part)))


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale = _terms.Scale.from_dict(params)
    return _newton.interval(params, scale.apply(_terms.polynomial(z)))
