"""Share of the sampled answers that are the same as the given one, in [0, 1].

Answers are compared as parsed, as numbers where they are numbers; a sample without an answer
agrees with nothing.
"""

from __future__ import annotations

from bitcal_integrations.signals._same import share
from bitcal_integrations.types import Observation

NEEDS = "samples"


def measure(observation: Observation) -> float:
    return share(observation, observation.samples)
