"""The part of a per-token array that a signal reads: the answer span, else everything."""

from __future__ import annotations

import numpy as np

from bitcal_integrations.types import Observation


def spanned(observation: Observation, values: np.ndarray) -> np.ndarray:
    if observation.span is None:
        return values
    return values[observation.span[0] : observation.span[1]]


def reduce(observation: Observation, values: np.ndarray, how: str) -> float:
    part = spanned(observation, values)
    return float(getattr(np, how)(part)) if part.size else float("nan")
