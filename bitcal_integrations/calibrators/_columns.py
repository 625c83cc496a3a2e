"""Columns of features on one scale: probabilities as logits, everything standardised and clamped.

It knows no labels. A column entirely within [0, 1] enters as its clipped logit, any other as it
is; both are centred and divided by their standard deviation. Values beyond the calibration range
are clamped to it, so that nothing is ever extrapolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitcal_integrations.calibrators._check import LARGEST
from bitcal_integrations.errors import CalibrationError

EDGE = 1e-6  # probabilities are clipped to [EDGE, 1 - EDGE] before the logit


def sigmoid(t: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-t)) without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * t))


def logit(p: Any, edge: float = EDGE) -> np.ndarray:
    """log(p / (1 - p)) of p clipped to [edge, 1 - edge]."""
    p = np.clip(np.asarray(p, dtype=np.float64), edge, 1 - edge)
    return np.log(p) - np.log1p(-p)


def as_table(features: Any, width: int | None = None) -> np.ndarray:
    """Features as an (n, d) float array; a flat list is one column."""
    try:
        x = np.asarray(features, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"features must be numbers, one row per answer: {error}") from error
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] == 0:
        raise CalibrationError(
            f"features have the shape {x.shape}; they must be (rows,) or (rows, columns)"
        )
    if width is not None and x.shape[1] != width:
        raise CalibrationError(f"{x.shape[1]} columns were given; the calibrator reads {width}")
    return x


@dataclass(frozen=True)
class Columns:
    """How each column is scaled: (value or its logit - center) / scale, within low..high."""

    logits: tuple[bool, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, x: np.ndarray, standardise: bool = True) -> Columns:
        """Measured on the calibration rows, all of them finite."""
        logits = tuple(bool(c.min() >= 0 and c.max() <= 1) for c in x.T)
        t = _logits(x, logits)
        center = t.mean(axis=0) if standardise else np.zeros(t.shape[1])
        spread = t.std(axis=0)
        varies = spread > 1e-9 * np.maximum(1, np.abs(t).max(axis=0))
        scale = np.where(varies, spread, 1.0) if standardise else np.ones(t.shape[1])
        z = (t - center) / scale
        low, high = z.min(axis=0), z.max(axis=0)
        return cls(logits, *(tuple(v.tolist()) for v in (center, scale, low, high)))

    def scaled(self, x: np.ndarray) -> np.ndarray:
        """On the common scale, not clamped."""
        t = np.clip(_logits(x, self.logits), -LARGEST, LARGEST)
        return (t - np.array(self.center)) / np.array(self.scale)

    def clamped(self, z: np.ndarray) -> np.ndarray:
        """Scaled values within the calibration range."""
        return np.clip(z, self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        names = ("logits", "center", "scale", "low", "high")
        return {name: list(getattr(self, name)) for name in names}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Columns:
        return cls(**{name: tuple(values) for name, values in data.items()})


def _logits(x: np.ndarray, logits: tuple[bool, ...]) -> np.ndarray:
    return np.column_stack([logit(c) if flag else c for c, flag in zip(x.T, logits, strict=True)])
