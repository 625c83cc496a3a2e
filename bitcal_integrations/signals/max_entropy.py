"""Largest entropy of a next-token distribution, in nats: the least certain choice."""

from __future__ import annotations

from bitcal_integrations.signals._span import reduce
from bitcal_integrations.types import Observation

NEEDS = "generation"


def measure(observation: Observation) -> float:
    return reduce(observation, observation.entropy, "max")
