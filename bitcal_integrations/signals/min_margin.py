"""Smallest gap between the two largest log-probabilities, in nats."""

from __future__ import annotations

from bitcal_integrations.signals._span import reduce
from bitcal_integrations.types import Observation

NEEDS = "generation"


def measure(observation: Observation) -> float:
    return reduce(observation, observation.margin, "min")
