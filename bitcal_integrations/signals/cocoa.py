"""Probability of the answer times its agreement with the samples, in [0, 1].

CoCoA (arXiv 2502.04964) with its best form for greedy answers, the product with the probability of
the whole answer (the sum of log-probabilities, not their mean), written as a confidence and with
equality of answers as the similarity. On a long text without an answer span that probability is
next to 0, and this says nothing.
"""

from __future__ import annotations

from bitcal_integrations.signals import agreement, sum_logprob
from bitcal_integrations.signals._span import probability
from bitcal_integrations.types import Observation

NEEDS = "samples"


def measure(observation: Observation) -> float:
    return probability(sum_logprob.measure(observation)) * agreement.measure(observation)
