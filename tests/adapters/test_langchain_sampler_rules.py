"""AdaptiveSampler by the certified rule, and with the confidence of each sample as its weight."""

from __future__ import annotations

import pytest
from lc_chain_help import Scripted, always

from bitcal_integrations.decide.sampling import VoteTally
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain.sampler import AdaptiveSampler


def paris(confidence: float | None) -> Scripted:
    model = always("Paris", confidence)
    model.temperature = 0.7
    return model


def test_the_certified_rule() -> None:
    model = paris(0.5)
    answer = AdaptiveSampler(model, 12, rule="certified").invoke("q")
    tally = VoteTally(12, rule="certified")
    while not tally.done:
        tally.add("paris")
    votes = answer.response_metadata["bitcal"]["votes"]
    assert len(model.asked) == tally.n == votes["samples"] == 6
    assert votes["e_value"] == tally.e_value


def test_a_sample_counts_its_confidence() -> None:
    for confidence, count in ((0.5, 2.0), (None, 4.0)):
        sampler = AdaptiveSampler(paris(confidence), 4, weights="confidence")
        votes = sampler.invoke("q").response_metadata["bitcal"]["votes"]
        assert votes["counts"] == {"paris": count}


def test_what_is_refused() -> None:
    with pytest.raises(BadRequest, match="rule='best'"):
        AdaptiveSampler(paris(0.5), rule="best")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="weights='votes'"):
        AdaptiveSampler(paris(0.5), weights="votes")
    with pytest.raises(BadRequest, match="not allowed with rule='certified'"):
        AdaptiveSampler(paris(0.5), weights="confidence", rule="certified")
