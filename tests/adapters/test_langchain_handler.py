"""The callback handlers: what is collected where, what is told, and what ends a chain.

The table in langchain/handler.py is this file: a line of it is a test here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from lc_chain_help import Completion, Watching, always, big_model, small_model

from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError, UnknownName
from bitcal_integrations.langchain.handler import (
    AsyncConfidenceCallbackHandler,
    ConfidenceCallbackHandler,
)
from bitcal_integrations.langchain.router import ConfidenceRouter

BOTH = pytest.mark.parametrize(
    "handler_of", [ConfidenceCallbackHandler, AsyncConfidenceCallbackHandler]
)


def chain() -> Any:
    """Two models one after the other; the first is less sure."""
    first, second = always("a draft", 0.6, "first"), always("the answer", 0.9, "second")
    return first | StrOutputParser() | second | StrOutputParser()


async def ask(runnable: Any, way: str, question: Any, config: Any) -> Any:
    if way == "invoke":
        return runnable.invoke(question, config)
    if way == "batch":
        return runnable.batch([question], config)
    if way == "stream":
        return list(runnable.stream(question, config))
    if way == "ainvoke":
        return await runnable.ainvoke(question, config)
    if way == "abatch":
        return await runnable.abatch([question], config)
    return [chunk async for chunk in runnable.astream(question, config)]


SYNC, ASYNC = ("invoke", "batch", "stream"), ("ainvoke", "abatch", "astream")


# ---- collecting ------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("way", SYNC + ASYNC)
async def test_every_answer_of_a_chain_is_collected(handler_of, way) -> None:
    seen: list[Any] = []
    handler = handler_of(sink=seen.append)
    await ask(chain(), way, "q", {"callbacks": [handler]})
    assert [r.text for r in handler.records] == ["a draft", "the answer"]
    assert [r.confidence.value for r in seen] == [0.6, 0.9]
    assert handler.confidence == 0.6
    assert handler.records[0].request.prompt == ({"role": "user", "content": "q"},)
    assert handler.records[1].model == "second"


@pytest.mark.parametrize(
    ("aggregate", "value"), [("minimum", 0.6), ("product", 0.54), ("mean", 0.75), ("last", 0.9)]
)
def test_aggregates(aggregate, value) -> None:
    handler = ConfidenceCallbackHandler(aggregate=aggregate)
    chain().invoke("q", {"callbacks": [handler]})
    assert handler.confidence == pytest.approx(value)
    assert handler.trail.to_dict()["steps"][0]["tokens"] == 2


def test_unknown_is_never_a_number() -> None:
    handler = ConfidenceCallbackHandler()
    (always("x", None) | StrOutputParser() | always("y", 0.9)).invoke("q", {"callbacks": [handler]})
    assert handler.confidence is None


def test_chains_are_kept_apart_and_forgotten_in_turn() -> None:
    handler = ConfidenceCallbackHandler(keep=2)
    answers = chain()
    for question in "abc":
        answers.invoke(question, {"callbacks": [handler], "run_name": question})
    assert len(handler.records) == 4
    assert len(handler.trail.records) == 2
    tree = handler.watch.tree
    assert not tree._parent
    assert not tree._asked


def test_drafts_that_a_router_threw_away_do_not_count() -> None:
    handler = ConfidenceCallbackHandler()
    router = ConfidenceRouter(small_model(), [big_model()], min_confidence=0.7)
    (router | StrOutputParser()).invoke("hard?", {"callbacks": [handler]})
    assert [r.text for r in handler.records] == ["big: hard?"]
    assert handler.confidence == 0.95


async def test_an_async_sink_is_awaited() -> None:
    seen: list[str] = []

    async def sink(record: Any) -> None:
        seen.append(record.text)

    await chain().ainvoke("q", {"callbacks": [AsyncConfidenceCallbackHandler(sink=sink)]})
    assert seen == ["a draft", "the answer"]


@BOTH
async def test_a_broken_sink_is_logged_and_costs_no_answer(handler_of, caplog) -> None:
    def broken(record: Any) -> None:
        raise OSError("disk full")

    handler = handler_of(sink=broken, raise_below=0.1)
    assert await chain().ainvoke("q", {"callbacks": [handler]}) == "the answer"
    assert "disk full" in caplog.text


def test_a_cache_hit_of_a_chat_model_is_heard() -> None:
    model = always("x", 0.8, cache=InMemoryCache())
    handler = ConfidenceCallbackHandler(raise_below=0.9)
    model.invoke("q")
    with pytest.raises(LowConfidenceError):
        model.invoke("q", {"callbacks": [handler]})
    assert len(model.asked) == 1
    assert [r.confidence.value for r in handler.records] == [0.8]


def test_a_cache_hit_of_a_completion_model_is_not() -> None:
    model = Completion(cache=InMemoryCache())
    handler = ConfidenceCallbackHandler(raise_below=0.9)
    model.invoke("hard?")
    assert model.invoke("hard?", {"callbacks": [handler]}) == "small: hard?"
    assert handler.records == []


def test_completions_of_a_batch_are_collected_each() -> None:
    handler = ConfidenceCallbackHandler()
    Completion().batch(["easy", "hard"], {"callbacks": [handler]})
    assert sorted(r.confidence.value for r in handler.records) == [0.3, 0.9]


# ---- telling ---------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
async def test_events_tell_each_answer(handler_of, way) -> None:
    watch = Watching()
    await ask(chain(), way, "q", {"callbacks": [watch, handler_of()]})
    assert [name for name, _ in watch.events] == ["bitcal.confidence"] * 2
    assert [data["bitcal"]["confidence"] for _, data in watch.events] == [0.6, 0.9]
    assert watch.events[1][1]["trail"]["confidence"] == 0.6


@BOTH
async def test_astream_events_has_them(handler_of) -> None:
    events = chain().astream_events("q", {"callbacks": [handler_of()]}, version="v2")
    told = [e["data"]["text"] async for e in events if e["name"] == "bitcal.confidence"]
    assert told == ["a draft", "the answer"]


async def test_without_a_run_to_belong_to_there_are_none() -> None:
    watch = Watching()
    config: Any = {"callbacks": [watch, ConfidenceCallbackHandler()]}
    always("x", 0.9).invoke("q", config)
    chain().batch(["q"], config)
    await chain().abatch(["q"], config)
    assert watch.events == []


# ---- ending a chain --------------------------------------------------------------------------


@pytest.mark.parametrize("way", SYNC + ASYNC)
async def test_a_low_answer_ends_the_chain(way) -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.7)
    with pytest.raises(LowConfidenceError, match=r"0\.6 is below raise_below=0\.7") as caught:
        await ask(chain(), way, "q", {"callbacks": [handler]})
    assert caught.value.record.text == "a draft"


@pytest.mark.parametrize("way", SYNC + ASYNC)
async def test_a_sure_answer_ends_the_chain(way) -> None:
    handler = ConfidenceCallbackHandler(stop_above=0.6)
    with pytest.raises(EarlyAnswer) as caught:
        await ask(chain(), way, "q", {"callbacks": [handler]})
    assert caught.value.record.text == "a draft"


@pytest.mark.parametrize("way", ASYNC)
async def test_the_async_handler_ends_async_calls(way) -> None:
    handler = AsyncConfidenceCallbackHandler(raise_below=0.7)
    with pytest.raises(LowConfidenceError):
        await ask(chain(), way, "q", {"callbacks": [handler]})


def test_the_async_handler_cannot_end_a_sync_call(caplog) -> None:
    handler = AsyncConfidenceCallbackHandler(raise_below=0.7)
    with caplog.at_level(logging.WARNING):
        assert chain().invoke("q", {"callbacks": [handler]}) == "the answer"
    assert "LowConfidenceError" in caplog.text
    assert len(handler.records) == 2


def test_a_stream_has_shown_its_tokens_when_it_ends() -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.7)
    shown: list[str] = []

    def read(chunks: Iterator[Any]) -> None:
        for chunk in chunks:
            shown.append(chunk.text)

    with pytest.raises(LowConfidenceError):
        read(always("one two", 0.5).stream("q", {"callbacks": [handler]}))
    assert shown == ["one", " two", ""]


def test_in_a_batch_of_a_chat_model_only_that_item_ends() -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.7)
    found = small_model().batch(
        ["easy", "hard", "easy"], {"callbacks": [handler]}, return_exceptions=True
    )
    assert [isinstance(f, LowConfidenceError) for f in found] == [False, True, False]


def test_a_batch_of_completions_fails_as_a_whole() -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.7)
    found = Completion().batch(
        ["easy", "hard", "easy"], {"callbacks": [handler]}, return_exceptions=True
    )
    assert [isinstance(f, LowConfidenceError) for f in found] == [True, True, True]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sink": 3}, BadRequest, "a sink is a callable"),
        ({"raise_below": 2}, BadRequest, "2"),
        ({"raise_below": 0.9, "stop_above": 0.5}, BadRequest, "above stop_above"),
        ({"aggregate": "median"}, UnknownName, "'median'"),
    ],
)
@BOTH
def test_wrong_arguments_are_refused(handler_of, options, error, words) -> None:
    with pytest.raises(error, match=words):
        handler_of(**options)


# ---- the tree -------------------------------------------------------------------------------


def test_a_tool_or_a_function_around_a_model_is_followed() -> None:
    handler = ConfidenceCallbackHandler()
    inner = always("inner", 0.7)
    outer = RunnableLambda(lambda q: inner.invoke(q).text) | always("outer", 0.9)
    outer.invoke("q", {"callbacks": [handler]})
    assert [r.text for r in handler.records] == ["inner", "outer"]
