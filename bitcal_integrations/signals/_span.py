"""The part of a per-token array that a signal reads: the answer span, else everything."""

from __future__ import annotations

import math

import numpy as np

from bitcal_integrations.types import Observation


def spanned(observation: Observation, values: np.ndarray) -> np.ndarray:
    if observation.span is None:
        return values
    return values[observation.span[0] : observation.span[1]]


def reduce(observation: Observation, values: np.ndarray, how: str) -> float:
    part = spanned(observation, values)
    return float(getattr(np, how)(part)) if part.size else float("nan")


def probability(logprob: float) -> float:
    """exp, at most 1 where rounding passed it; NaN stays NaN, which `min` alone would make 1.

    >>> probability(0.0), probability(1e-9), probability(float("nan"))
    (1.0, 1.0, nan)
    """
    return math.nan if math.isnan(logprob) else min(1.0, math.exp(logprob))
