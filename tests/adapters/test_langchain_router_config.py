"""ConfidenceRouter: failures of its branches, config, thresholds of one call, wrong arguments."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda
from lc_chain_help import (
    Scripted,
    Watching,
    always,
    big_model,
    bitcal,
    fails,
    low,
    six_ways,
    small_model,
)

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest, EngineError, UnknownName
from bitcal_integrations.langchain._collect import Collector
from bitcal_integrations.langchain.handler import ConfidenceCallbackHandler
from bitcal_integrations.langchain.router import ConfidenceRouter

PROMPT = ChatPromptTemplate.from_template("{q}")


@pytest.fixture
def small() -> Scripted:
    return small_model()


@pytest.fixture
def big() -> Scripted:
    return big_model()


# ---- errors ---------------------------------------------------------------------------------


async def test_a_failure_of_the_engine_escalates_and_is_told(big) -> None:
    router = ConfidenceRouter(fails(EngineError("out of luck")), [big], min_confidence=0.7)
    answers = await six_ways(router, "q")
    assert {m.text for m in answers.values()} == {"big: q"}
    route = answers["stream"].response_metadata["bitcal"]["route"]
    assert route["attempts"][0]["error"] == "EngineError: out of luck"


async def test_other_failures_are_raised_unless_named(big) -> None:
    broken = fails(ValueError("a bug"))
    router = ConfidenceRouter(broken, [big], min_confidence=0.7)
    for ask in (router.invoke, lambda q: router.batch([q]), lambda q: list(router.stream(q))):
        with pytest.raises(ValueError, match="a bug"):
            ask("q")
    with pytest.raises(ValueError, match="a bug"):
        await router.ainvoke("q")
    assert big.asked == []
    named = ConfidenceRouter(broken, [big], min_confidence=0.7, exceptions_to_handle=(ValueError,))
    assert named.invoke("q").text == "big: q"


def test_the_first_error_is_raised_when_all_fail() -> None:
    router = ConfidenceRouter(
        fails(EngineError("one")), [fails(EngineError("two"))], min_confidence=0.7
    )
    with pytest.raises(EngineError, match="one"):
        router.invoke("q")


def test_a_batch_keeps_the_good_items_beside_a_broken_one(big) -> None:
    def say(question: str) -> Any:
        return ValueError("a bug") if question == "bad" else low(question)

    router = ConfidenceRouter(Scripted(say=say), [big], min_confidence=0.7)
    found = router.batch(["easy", "bad", "hard"], return_exceptions=True)
    assert [getattr(f, "text", type(f)) for f in found] == ["small: easy", ValueError, "big: hard"]
    with pytest.raises(ValueError, match="a bug"):
        router.batch(["easy", "bad", "hard"])


def test_an_early_answer_is_an_answer(small, big) -> None:
    stop = ConfidenceCallbackHandler(stop_above=0.8)
    later = always("a later step", 0.9, "later")
    chain = small | StrOutputParser() | later | StrOutputParser()
    router = ConfidenceRouter(chain, [big | StrOutputParser()], min_confidence=0.7)
    assert router.invoke("easy?", {"callbacks": [stop]}) == "small: easy?"
    assert later.asked == []


def test_a_low_confidence_error_in_a_branch_escalates(small, big) -> None:
    stop = ConfidenceCallbackHandler(raise_below=0.5)
    later = always("a later step", 0.9, "later")
    router = ConfidenceRouter(small | StrOutputParser() | later, [big], min_confidence=0.7)
    answer = router.invoke("hard?", {"callbacks": [stop]})
    assert answer.text == "big: hard?"
    assert later.asked == []
    route = answer.response_metadata["bitcal"]["route"]
    assert route["attempts"][0]["error"].startswith("LowConfidenceError")


# ---- config ---------------------------------------------------------------------------------


def test_the_threshold_of_one_call(small, big) -> None:
    router = ConfidenceRouter(small, [big], min_confidence=0.2)
    assert router.invoke("hard?").text == "small: hard?"
    strict = router.with_config(configurable={"min_confidence": 0.7})
    assert strict.invoke("hard?").text == "big: hard?"
    assert [m.text for m in strict.batch(["hard?", "easy?"])] == ["big: hard?", "small: easy?"]
    with pytest.raises(BadRequest, match="'high'"):
        router.invoke("q", {"configurable": {"min_confidence": "high"}})


def test_configurable_fields(small, big) -> None:
    router = ConfidenceRouter(small, [big], min_confidence=0.2).configurable_fields(
        min_confidence=ConfigurableField(id="threshold"),
        on_exhausted=ConfigurableField(id="exhausted"),
    )
    assert router.invoke("hard?").text == "small: hard?"
    assert router.invoke("hard?", {"configurable": {"threshold": 0.7}}).text == "big: hard?"
    nobody = {"configurable": {"threshold": 1.0, "exhausted": "No answer then."}}
    assert router.invoke("hard?", nobody).text == "No answer then."


@pytest.mark.parametrize("way", ["invoke", "batch", "stream"])
def test_config_reaches_every_attempt(small, big, way) -> None:
    watch = Watching()
    config: Any = {
        "callbacks": [watch], "tags": ["mine"], "metadata": {"user": "u1"}, "run_name": "route",
    }  # fmt: skip
    router = ConfidenceRouter(small, [big], min_confidence=0.7)
    if way == "batch":
        router.batch(["hard?"], config)
    else:
        answer = getattr(router, way)("hard?", config)
        assert answer if way == "invoke" else list(answer)
    names = [name for name, _, _ in watch.runs]
    assert names == ["route", "Scripted", "Scripted"]
    assert all("mine" in tags and metadata["user"] == "u1" for _, tags, metadata in watch.runs)
    assert "bitcal:attempt:2" in watch.runs[2][1]
    assert watch.ended == ["ok"]
    ((name, data),) = watch.events
    assert (name, data["chosen"], data["text"]) == ("bitcal.route", 1, "big: hard?")


def test_a_failed_batch_leaves_no_run_open(big) -> None:
    watch = Watching()
    router = ConfidenceRouter(fails(ValueError("a bug")), [big], min_confidence=0.7)
    with pytest.raises(ValueError, match="a bug"):
        router.batch(["a", "b"], {"callbacks": [watch]})
    assert watch.ended == ["ValueError", "ValueError"]


async def test_events_tell_the_route(small, big) -> None:
    router = ConfidenceRouter(small, [big], min_confidence=0.7)
    chain = PROMPT | router | StrOutputParser()
    events = [e async for e in chain.astream_events({"q": "hard?"}, version="v2")]
    (told,) = [e for e in events if e["event"] == "on_custom_event"]
    assert told["name"] == "bitcal.route"
    assert told["data"]["attempts"][0]["confidence"] == 0.3
    assert "".join(e["data"]["chunk"] for e in events if e["event"] == "on_parser_stream") == (
        "big: hard?"
    )


def test_options_bound_to_the_router_reach_the_models(small, big) -> None:
    ConfidenceRouter(small, [big], min_confidence=0.7).bind(color="blue").invoke("hard?")
    assert small.options == big.options == [{"color": "blue"}]


def test_listening_leaves_no_collector_behind(small, big) -> None:
    handlers: list[Any] = []
    config: Any = {"callbacks": handlers}
    ConfidenceRouter(small, [big], min_confidence=0.7).invoke("hard?", config)
    assert not any(isinstance(h, Collector) for h in handlers)


# ---- wrong arguments ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, BadRequest, "neither"),
        ({"policy": 0.5, "min_confidence": 0.5}, BadRequest, "both"),
        ({"min_confidence": 1.5}, BadRequest, "1.5"),
        ({"min_confidence": 0.5, "on_unknown": "shrug"}, BadRequest, "'shrug'"),
        ({"min_confidence": 0.5, "on_exhausted": "bets"}, BadRequest, "'bets'"),
        ({"min_confidence": 0.5, "aggregate": "median"}, UnknownName, "'median'"),
        ({"min_confidence": 0.5, "names": ["one"]}, BadRequest, "2 names"),
        ({"min_confidence": 0.5, "scored_by": {"nobody": 1}}, BadRequest, "'nobody'"),
        ({"min_confidence": 0.5, "exceptions_to_handle": (KeyboardInterrupt,)}, BadRequest, "Key"),
    ],
)
def test_wrong_arguments_are_refused(small, big, options, error, words) -> None:
    with pytest.raises(error, match=words):
        ConfidenceRouter(small, [big], **options)


def test_what_cannot_be_asked_is_refused(small) -> None:
    with pytest.raises(BadRequest, match="fallback 0 is 'gpt'"):
        ConfidenceRouter(small, ["gpt"], min_confidence=0.5)


def test_a_policy_of_ones_own_decides(small, big) -> None:
    class Short:
        def decide(self, record):
            return as_policy(0.0 if len(record.text) < 13 else 1.0).decide(record)

    router = ConfidenceRouter(small, [big], policy=Short())
    assert router.invoke("hard?").text == "small: hard?"
    assert router.invoke("a longer one?").text == "big: a longer one?"  # the surer of both
    assert big.asked == ["a longer one?"]


def test_a_lambda_is_found_in_the_output_it_makes() -> None:
    answer = RunnableLambda(lambda q: {"bitcal": bitcal(0.9), "text": "ours"})
    assert ConfidenceRouter(answer, min_confidence=0.7, on_exhausted="raise").invoke("q") == {
        "bitcal": bitcal(0.9), "text": "ours",
    }  # fmt: skip
