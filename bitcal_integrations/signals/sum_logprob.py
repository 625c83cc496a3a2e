"""Log-probability of the whole answer: the sum over its tokens, in nats."""

from __future__ import annotations

from bitcal_integrations.signals._span import reduce
from bitcal_integrations.types import Observation

NEEDS = "generation"


def measure(observation: Observation) -> float:
    return reduce(observation, observation.logprob, "sum")
