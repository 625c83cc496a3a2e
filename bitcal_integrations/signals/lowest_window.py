"""Lowest mean log-probability of 16 tokens in a row, in nats: the weakest stretch of a text.

The lowest group confidence of DeepConf (arXiv 2508.15260), with two differences. A token counts
by its own log-probability, because the 20 best that DeepConf averages are not kept; and a window
holds 16 tokens, about a sentence or a line of working, where DeepConf takes 2,048 of a long chain
of thought. A text shorter than a window is one window.
"""

from __future__ import annotations

import math

import numpy as np

from bitcal_integrations.signals._span import spanned
from bitcal_integrations.types import Observation

NEEDS = "generation"
WINDOW = 16


def measure(observation: Observation) -> float:
    part = spanned(observation, observation.logprob)
    if not part.size:
        return math.nan
    windows = np.lib.stride_tricks.sliding_window_view(part, min(WINDOW, part.size))
    return float(windows.mean(axis=-1).min())
