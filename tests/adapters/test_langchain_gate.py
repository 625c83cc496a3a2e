"""ConfidenceGate: what passes, what is raised, and LangChain's own fallbacks behind it."""

from __future__ import annotations

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from lc_chain_help import added, always, big_model, bitcal, six_ways, small_model

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.langchain.gate import ConfidenceGate

PROMPT = ChatPromptTemplate.from_template("{q}")
GATE = ConfidenceGate(min_confidence=0.7)


async def test_a_sure_answer_passes_unchanged_in_every_way() -> None:
    small = small_model()
    chain = small | GATE
    answers = await six_ways(chain, "easy?")
    assert {m.text for m in answers.values()} == {"small: easy?"}
    assert all(m.response_metadata["bitcal"] == bitcal(0.9) for m in answers.values())


async def test_an_unsure_one_is_raised_in_every_way() -> None:
    chain = small_model() | GATE | StrOutputParser()
    for ask in (chain.invoke, lambda q: chain.batch([q]), lambda q: list(chain.stream(q))):
        with pytest.raises(
            LowConfidenceError, match=r"refuses the answer: 0\.30 < 0\.70"
        ) as caught:
            ask("hard?")
        assert caught.value.record.text == "small: hard?"
    with pytest.raises(LowConfidenceError):
        await chain.ainvoke("hard?")
    with pytest.raises(LowConfidenceError):
        await chain.abatch(["hard?"])
    with pytest.raises(LowConfidenceError):
        [chunk async for chunk in chain.astream("hard?")]


def test_a_batch_can_keep_the_errors_in_their_places() -> None:
    found = (small_model() | GATE).batch(["easy", "hard", "easy"], return_exceptions=True)
    assert [isinstance(f, LowConfidenceError) for f in found] == [False, True, False]


async def test_langchains_own_fallbacks_act_on_it() -> None:
    small, big = small_model(), big_model()
    chain = PROMPT | small | GATE | StrOutputParser()
    safe = chain.with_fallbacks(
        [PROMPT | big | StrOutputParser()], exceptions_to_handle=(LowConfidenceError,)
    )
    assert set((await six_ways(safe, {"q": "hard?"})).values()) == {"big: hard?"}
    assert set((await six_ways(safe, {"q": "easy?"})).values()) == {"small: easy?"}
    assert safe.batch([{"q": "easy"}, {"q": "hard"}]) == ["small: easy", "big: hard"]


def test_a_stream_is_held_back_and_then_given_in_its_chunks() -> None:
    chain = small_model() | GATE
    assert [c.text for c in chain.stream("easy?")] == ["small:", " easy?", ""]
    text = chain | StrOutputParser()
    assert [c for c in text.stream("easy?") if c] == ["small:", " easy?"]


def test_the_threshold_of_one_call() -> None:
    chain = always("x", 0.5) | GATE
    lenient = {"configurable": {"min_confidence": 0.4}}
    assert chain.invoke("q", lenient).text == "x"
    assert added(list(chain.stream("q", lenient))).text == "x"


def test_unknown_confidence() -> None:
    unsure = always("x", None)
    with pytest.raises(LowConfidenceError, match="unknown: no profile"):
        (unsure | GATE).invoke("q")
    accepting = ConfidenceGate(min_confidence=0.7, on_unknown="accept")
    assert (unsure | accepting).invoke("q").text == "x"


def test_a_policy_in_its_place() -> None:
    assert (always("x", 0.8) | ConfidenceGate(as_policy(0.7))).invoke("q").text == "x"


def test_behind_a_parser_it_says_where_it_belongs() -> None:
    with pytest.raises(BadRequest, match="before any output parser"):
        (always("x", 0.9) | StrOutputParser() | GATE).invoke("q")


@pytest.mark.parametrize("options", [{}, {"policy": 0.5, "min_confidence": 0.5}])
def test_it_needs_one_policy(options) -> None:
    with pytest.raises(BadRequest, match=r"policy= or min_confidence="):
        ConfidenceGate(**options)
