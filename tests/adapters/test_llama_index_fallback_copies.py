"""ConfidenceFallbackLLM: copies of it, and what it says of itself."""

from __future__ import annotations

import pickle

import pytest
from adapters.scripted_llm import ScriptedLLM
from llama_index.core.llms import MockLLM

from bitcal_integrations.errors import BadRequest, BitcalError, EngineError
from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM
from bitcal_integrations.llama_index.llm import BitCalLLM
from bitcal_integrations.testing.toy import ToyModel


def test_pickling_what_cannot_be_pickled_leaves_it_whole() -> None:
    llm = ConfidenceFallbackLLM([BitCalLLM(model=ToyModel({"?": ("five", 0.9)}))])
    with pytest.raises(BitcalError, match="cannot be pickled"):
        pickle.dumps(llm)
    assert llm.complete("?").text == "five"


def test_a_pickled_one_keeps_how_it_decides() -> None:
    llms = [MockLLM(max_tokens=3), MockLLM(max_tokens=4)]
    llm = ConfidenceFallbackLLM(
        llms, min_confidence=0.8, on_unknown="accept", on_exhausted="Not sure.", names=["a", "b"],
        handle=[ValueError], system_prompt="Short.",
    )  # fmt: skip
    again = pickle.loads(pickle.dumps(llm))
    assert [m.max_tokens for m in again.llms] == [3, 4]
    assert (again._policy, again._names, again._handle) == (llm._policy, ["a", "b"], (ValueError,))
    assert (again.on_exhausted, again.system_prompt) == ("Not sure.", "Short.")
    assert again.complete("?").text == "text text text"


def test_it_is_no_dict() -> None:
    with pytest.raises(BadRequest, match="cannot be written as a dict"):
        ConfidenceFallbackLLM([MockLLM()]).to_dict()


def test_every_llm_has_room_for_a_prompt_that_fits() -> None:
    small = BitCalLLM(model=ToyModel({}), max_tokens=64)
    room = small.metadata.context_window - 64

    class Large(ScriptedLLM):
        @property
        def metadata(self):  # type: ignore[no-untyped-def]
            large = {"context_window": 128_000, "num_output": 8192}
            return super().metadata.model_copy(update=large)

    found = ConfidenceFallbackLLM([small, Large([("x", 0.9)])]).metadata
    assert found.context_window == small.metadata.context_window
    assert found.context_window - found.num_output == room


def test_one_kind_of_error_may_be_handled() -> None:
    first = ScriptedLLM([(KeyError("gone"), None)])
    llm = ConfidenceFallbackLLM([first, ScriptedLLM([("five", 0.9)])], handle=KeyError)
    assert llm.complete("?").text == "five"
    with pytest.raises(BadRequest, match="classes of Exception"):
        ConfidenceFallbackLLM([first], handle=EngineError("an instance"))  # type: ignore[arg-type]
