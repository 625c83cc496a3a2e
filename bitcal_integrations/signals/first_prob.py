"""Probability of the first token: for a letter or a word it is the whole choice."""

from __future__ import annotations

import math

from bitcal_integrations.signals._span import probability, spanned
from bitcal_integrations.types import Observation

NEEDS = "generation"


def measure(observation: Observation) -> float:
    part = spanned(observation, observation.logprob)
    return probability(float(part[0])) if part.size else math.nan
