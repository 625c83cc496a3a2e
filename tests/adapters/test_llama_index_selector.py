"""ConfidenceSelector: a choice by the probability of its number, alone and in a router."""

from __future__ import annotations

import math
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, response
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.response_synthesizers import TreeSummarize
from llama_index.core.tools import QueryEngineTool

from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index.selector import ConfidenceSelector, shares_of
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Confidence, Generation, Record, Step, make_request


def said(top: dict[str, float]) -> Record:
    pairs = tuple((i, math.log(p)) for i, p in enumerate(top.values()))
    step = Step(0, next(iter(top)), 0, 1, pairs[0][1], 0.0, 0.0, 0.0, pairs, tuple(top))
    return Record(make_request("?"), Generation(next(iter(top)), "length", (step,)), Confidence())


class Numbers:
    """Answers every question with these alternatives, and keeps what it was asked."""

    def __init__(self, **top: float) -> None:
        self.top = {name.strip("_"): p for name, p in top.items()}
        self.asked: list[str] = []

    def ask(self, prompt: str, **options: Any) -> Record:
        self.asked.append(prompt)
        return said(self.top)

    async def aask(self, prompt: str, **options: Any) -> Record:
        return self.ask(prompt, **options)


def test_the_most_probable_number_is_selected() -> None:
    model = Numbers(_2=0.5, _1=0.2, the=0.2, _3=0.1)
    result = ConfidenceSelector(model).select(["sums", "countries", "poems"], "Capital of Chad?")
    assert result.ind == 1
    assert result.reason == "probability 0.62 among 3 choices"
    assert "2. countries" in model.asked[0]
    assert "Capital of Chad?" in model.asked[0]


async def test_several_are_selected_until_they_cover_enough() -> None:
    selector = ConfidenceSelector(Numbers(_2=0.5, _1=0.3, _3=0.2), cover=0.75)
    assert selector.select(["a", "b", "c"], "?").inds == [1, 0]
    assert (await selector.aselect(["a", "b", "c"], "?")).inds == [1, 0]
    assert ConfidenceSelector(Numbers(_2=0.9, _1=0.1), cover=0.75).select("ab", "?").inds == [1]


def test_all_ways_to_write_a_number_count() -> None:
    assert shares_of(2, said({"1": 0.3, " 1.": 0.3, "2": 0.2})) == pytest.approx([0.75, 0.25])


def test_a_model_that_gives_no_number_is_no_choice() -> None:
    with pytest.raises(LowConfidenceError, match="no number to 2") as caught:
        ConfidenceSelector(Numbers(maybe=0.9)).select(["a", "b"], "?")
    assert caught.value.record.text == "maybe"


def test_an_engine_without_alternatives_is_taken_at_its_word() -> None:
    model = ToyModel({}, default=("2", 0.6))
    assert ConfidenceSelector(model).select(["a", "b"], "?").ind == 1


async def test_in_a_router() -> None:
    tools = [
        QueryEngineTool.from_defaults(ScriptedEngine(response(name, 0.9)), description=name)
        for name in ("sums", "countries")
    ]
    llm = ScriptedLLM([("both", 0.9)])
    router = RouterQueryEngine(
        ConfidenceSelector(Numbers(_2=0.8, _1=0.2)), tools, llm=llm,
        summarizer=TreeSummarize(llm=llm),
    )  # fmt: skip
    for given in (router.query("?"), await router.aquery("?")):
        assert str(given) == "countries"
        assert given.metadata["confidence"] == 0.9
        assert given.metadata["selector_result"].ind == 1


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(BadRequest, match="cannot be asked"):
        ConfidenceSelector("model")
    with pytest.raises(BadRequest, match="cover=2"):
        ConfidenceSelector(Numbers(), cover=2)
    with pytest.raises(BadRequest, match="10 choices"):
        ConfidenceSelector(Numbers(_1=1.0)).select([str(i) for i in range(10)], "?")
