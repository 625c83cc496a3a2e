"""get_confidence on every object of LangChain that has a place for a confidence."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import Generation, LLMResult
from lc_chain_help import Completion, always, bitcal

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain.confidence import get_confidence


def test_confidence_is_read_from_every_object() -> None:
    message = always("x", 0.8).invoke("q")
    generation = Completion().generate(["easy"])
    objects = [
        message, generation, generation.generations[0][0], {"raw": message, "parsed": 1},
        {"messages": [AIMessage("old"), message]}, {"bitcal": bitcal(0.8)}, bitcal(0.8),
        always("x", 0.8).generate([[message]]), list(always("x", 0.8).stream("q"))[-1],
    ]  # fmt: skip
    values = [get_confidence(x).value for x in objects]
    assert values == [0.8, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]
    assert get_confidence(get_confidence(message)).value == 0.8


def test_what_carries_none_is_unknown_with_the_reason() -> None:
    for x in (AIMessage("x"), Generation(text="x"), {"messages": []}, LLMResult(generations=[])):
        found = get_confidence(x)
        assert found.value is None
        assert found.reason


def test_log_probabilities_of_other_models_are_kept_as_raw() -> None:
    content = [{"token": "Paris", "logprob": -0.1, "top_logprobs": []}]
    for shape in ({"content": content}, content):
        found = get_confidence(AIMessage("Paris", response_metadata={"logprobs": shape}))
        assert found.value is None
        assert found.raw == pytest.approx(0.905, abs=0.001)


@pytest.mark.parametrize("x", ["text", 3, None, {"a": 1}])
def test_what_has_no_place_for_one_is_refused(x) -> None:
    with pytest.raises(BadRequest, match="AIMessage"):
        get_confidence(x)
