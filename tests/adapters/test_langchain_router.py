"""ConfidenceRouter in its six ways: who is asked, what is given, what is told about it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from lc_chain_help import (
    Scripted,
    always,
    big_model,
    six_ways,
    small_model,
)

from bitcal_integrations.errors import LowConfidenceError
from bitcal_integrations.langchain.router import ConfidenceRouter

PROMPT = ChatPromptTemplate.from_template("{q}")


@pytest.fixture
def small() -> Scripted:
    return small_model()


@pytest.fixture
def big() -> Scripted:
    return big_model()


# ---- who is asked ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "text", "asked"), [("easy?", "small: easy?", 0), ("hard?", "big: hard?", 6)]
)
async def test_all_ways_give_the_same(small, big, question, text, asked) -> None:
    router = ConfidenceRouter(small, [big], min_confidence=0.7)
    answers = await six_ways(router, question)
    assert {m.text for m in answers.values()} == {text}
    told = [m.response_metadata["bitcal"] for m in answers.values()]
    assert all(t == told[0] for t in told)
    assert (len(small.asked), len(big.asked)) == (6, asked)


def test_the_route_is_told(small, big) -> None:
    answer = ConfidenceRouter(small, [big], min_confidence=0.7).invoke("hard?")
    told = answer.response_metadata["bitcal"]
    assert told["confidence"] == 0.95
    assert told["decision"] == {"action": "accept", "reason": "0.95 >= 0.70"}
    route = told["route"]
    assert (route["chosen"], route["escalations"]) == (1, 1)
    assert [a["model"] for a in route["attempts"]] == ["small", "big"]
    assert [a["confidence"] for a in route["attempts"]] == [0.3, 0.95]
    assert route["attempts"][0]["decision"] == {"action": "escalate", "reason": "0.30 < 0.70"}
    assert route["attempts"][0]["tokens"] == 2


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_mixed_batch_escalates_exactly_the_low_items(small, big, asynchronous) -> None:
    questions = [f"{'easy' if i % 3 else 'hard'} {i}" for i in range(50)]
    router = ConfidenceRouter(small, [big], min_confidence=0.7)
    answers = await router.abatch(questions) if asynchronous else router.batch(questions)
    hard = [q for q in questions if "hard" in q]
    assert sorted(big.asked) == sorted(hard)
    assert len(small.asked) == 50
    expected = [f"{'big' if 'hard' in q else 'small'}: {q}" for q in questions]
    assert [m.text for m in answers] == expected


def test_fallbacks_may_be_one_callable(small) -> None:
    router = ConfidenceRouter(small, lambda q: AIMessage("from a function"), min_confidence=0.7)
    assert router.invoke("hard?").text == "from a function"


# ---- what is given --------------------------------------------------------------------------


def test_input_and_cached_answers_stay_as_they_are(big) -> None:
    small = always("no idea", 0.2, "small", cache=InMemoryCache())
    router = ConfidenceRouter(
        PROMPT | small, [PROMPT | big], min_confidence=0.7, on_exhausted="last"
    )
    question = {"q": "hard?", "more": ["x"]}
    before = copy.deepcopy(question)
    first, again = router.invoke(question), router.invoke(question)
    assert question == before
    assert first.response_metadata["bitcal"] == again.response_metadata["bitcal"]
    cached = small.invoke(PROMPT.invoke(question))
    assert "route" not in cached.response_metadata["bitcal"]


async def test_a_chain_that_ends_in_text_routes_too(small, big) -> None:
    router = ConfidenceRouter(
        PROMPT | small | StrOutputParser(), [PROMPT | big | StrOutputParser()], min_confidence=0.7
    )
    assert set((await six_ways(router, {"q": "hard?"})).values()) == {"big: hard?"}
    assert set((await six_ways(router, {"q": "easy?"})).values()) == {"small: easy?"}


@pytest.mark.parametrize(("aggregate", "text"), [("last", "sure"), ("minimum", "big: q")])
def test_a_chain_of_several_models_is_judged_as_told(big, aggregate, text) -> None:
    chain = always("unsure", 0.2) | StrOutputParser() | always("sure", 0.9) | StrOutputParser()
    router = ConfidenceRouter(
        chain, [big | StrOutputParser()], min_confidence=0.7, aggregate=aggregate
    )
    assert router.invoke("q") == text


def test_structured_output_and_agent_states_are_read_and_told(small, big) -> None:
    def structured(message: AIMessage) -> dict[str, Any]:
        return {"raw": message, "parsed": message.text, "parsing_error": None}

    router = ConfidenceRouter(small | structured, [big | structured], min_confidence=0.7)
    found = router.invoke("hard?")
    assert found["parsed"] == "big: hard?"
    assert found["raw"].response_metadata["bitcal"]["route"]["chosen"] == 1

    state = lambda message: {"messages": [AIMessage("before"), message]}  # noqa: E731
    found = ConfidenceRouter(small | state, [big | state], min_confidence=0.7).invoke("hard?")
    assert "bitcal" not in found["messages"][0].response_metadata
    assert found["messages"][1].response_metadata["bitcal"]["route"]["escalations"] == 1


def test_a_router_in_a_branch_counts_as_its_choice(small, big) -> None:
    inner = ConfidenceRouter(big, [small], min_confidence=0.99, on_exhausted="best")
    third = always("third", 0.99)
    outer = ConfidenceRouter(
        inner | StrOutputParser(), [third | StrOutputParser()], min_confidence=0.7
    )
    assert outer.invoke("hard?") == "big: hard?"  # not judged by the small one, asked last


# ---- nobody left to ask ---------------------------------------------------------------------


def test_best_last_and_texts_when_nobody_is_left() -> None:
    first, second = always("first", 0.5, "a"), always("second", 0.4, "b")

    def given(on_exhausted: str) -> AIMessage:
        return ConfidenceRouter(
            first, [second], min_confidence=0.7, on_exhausted=on_exhausted
        ).invoke("?")

    assert given("best").text == "first"
    assert given("last").text == "second"
    abstained = given("abstain")
    told = abstained.response_metadata["bitcal"]
    assert told["confidence"] is None
    assert told["decision"]["action"] == "abstain"
    assert told["route"]["chosen"] is None
    assert given("Please ask a colleague.").text == "Please ask a colleague."


async def test_an_abstention_has_the_form_of_the_answers(small) -> None:
    options = {"min_confidence": 0.7, "on_exhausted": "I would rather not say."}
    texts = await six_ways(ConfidenceRouter(small | StrOutputParser(), **options), "hard?")
    assert set(texts.values()) == {"I would rather not say."}
    messages = await six_ways(ConfidenceRouter(small, **options), "hard?")
    assert {m.text for m in messages.values()} == {"I would rather not say."}


async def test_raise_gives_the_best_record_and_only_for_its_item(small) -> None:
    router = ConfidenceRouter(small, min_confidence=0.7, on_exhausted="raise")
    with pytest.raises(LowConfidenceError, match=r"0\.30 < 0\.70") as caught:
        router.invoke("hard?")
    assert caught.value.record.text == "small: hard?"
    with pytest.raises(LowConfidenceError):
        router.batch(["easy?", "hard?"])
    for found in (
        router.batch(["easy?", "hard?"], return_exceptions=True),
        await router.abatch(["easy?", "hard?"], return_exceptions=True),
    ):
        assert found[0].text == "small: easy?"
        assert isinstance(found[1], LowConfidenceError)


@pytest.mark.parametrize(("on_unknown", "text"), [("escalate", "big: q"), ("accept", "hm")])
def test_unknown_confidence_follows_on_unknown(big, on_unknown, text) -> None:
    unsure = always("hm", None)
    router = ConfidenceRouter(unsure, [big], min_confidence=0.7, on_unknown=on_unknown)
    assert router.invoke("q").text == text
