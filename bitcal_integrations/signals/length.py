"""Number of tokens."""

from __future__ import annotations

import math

from bitcal_integrations.signals._span import spanned
from bitcal_integrations.types import Observation

NEEDS = "generation"


def measure(observation: Observation) -> float:
    return float(spanned(observation, observation.logprob).size) or math.nan
