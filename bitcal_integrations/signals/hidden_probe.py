"""A trained reading of the answer's hidden state: how much likelier right it is than it looks.

CORAL's residual probe (arXiv 2602.06022): it is fitted with a profile, on the labels of its fit
part, to what the other features leave open, right or wrong minus their confidence. So 0 adds
nothing, and the calibrator says what more is worth. It belongs to the profile: to one model, its
weight types and one layer. Without a fitted probe there is no value.
"""

from __future__ import annotations

import math

from bitcal_integrations.types import Observation

NEEDS = "hidden"


def measure(observation: Observation) -> float:
    if observation.probe is None or observation.hidden is None:
        return math.nan
    return float(observation.probe(observation.hidden))
