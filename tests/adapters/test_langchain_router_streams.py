"""ConfidenceRouter as a stream: what is shown when, and what is closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator
from langchain_core.runnables.utils import AddableDict
from lc_chain_help import (
    Scripted,
    added,
    always,
    big_model,
    bitcal,
    small_model,
)

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import EngineError, LowConfidenceError
from bitcal_integrations.langchain.confidence import message_in
from bitcal_integrations.langchain.handler import ConfidenceCallbackHandler
from bitcal_integrations.langchain.router import ConfidenceRouter

PROMPT = ChatPromptTemplate.from_template("{q}")


@pytest.fixture
def small() -> Scripted:
    return small_model()


@pytest.fixture
def big() -> Scripted:
    return big_model()


# ---- streams --------------------------------------------------------------------------------


def test_a_draft_is_never_shown_and_an_accepted_answer_comes_in_its_chunks(small, big) -> None:
    router = ConfidenceRouter(small, [big], min_confidence=0.7)
    assert [c.text for c in router.stream("hard?")] == ["big:", " hard?", ""]
    assert [c.text for c in router.stream("easy?")] == ["small:", " easy?", ""]


class Steps:
    """A stream that says how far it was read and whether it was closed."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.closed = False

    def say(self, inputs: Iterator[Any]) -> Iterator[AIMessageChunk]:
        list(inputs)
        try:
            for word in ("one ", "two ", "three"):
                self.read.append(word)
                yield AIMessageChunk(content=word)
            yield AIMessageChunk(content="", response_metadata={"bitcal": bitcal(0.5)})
        finally:
            self.closed = True


def test_the_last_resort_streams_live_where_it_is_given_in_any_case(small) -> None:
    steps = Steps()
    router = ConfidenceRouter(
        small, [RunnableGenerator(steps.say)], min_confidence=0.7, on_exhausted="last"
    )
    chunks = router.stream("hard?")
    assert next(chunks).text == "one "
    assert steps.read == ["one "]
    rest = list(chunks)
    told = added(rest).response_metadata["bitcal"]
    assert told["route"]["chosen"] == 1
    assert told["confidence"] == 0.5


@pytest.mark.parametrize(
    "options",
    [{"on_exhausted": "best"}, {"on_exhausted": "last", "policy": as_policy(0.7, below="raise")}],
)
def test_it_does_not_where_it_might_not_be_given(small, options) -> None:
    steps = Steps()
    options = {"min_confidence": None if "policy" in options else 0.7, **options}
    router = ConfidenceRouter(RunnableGenerator(steps.say), [], **options)
    with pytest.raises(LowConfidenceError) if "policy" in options else _nothing():
        next(router.stream("hard?"))
    assert len(steps.read) == 3


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


def test_a_closed_stream_closes_the_one_inside() -> None:
    steps = Steps()
    router = ConfidenceRouter(
        RunnableGenerator(steps.say), [], min_confidence=0.7, on_exhausted="last"
    )
    chunks = router.stream("hard?")
    next(chunks)
    chunks.close()
    assert steps.closed
    assert steps.read == ["one "]


async def test_a_closed_async_stream_closes_the_one_inside() -> None:
    closed = []

    async def words(inputs: Any) -> Any:
        try:
            for word in ("one ", "two "):
                yield AIMessageChunk(content=word)
        finally:
            closed.append(True)

    router = ConfidenceRouter(RunnableGenerator(words), [], min_confidence=0.7, on_exhausted="last")
    chunks = router.astream("hard?")
    assert (await anext(chunks)).text == "one "
    await chunks.aclose()
    assert closed == [True]


def test_an_error_in_a_live_stream_reaches_the_reader(small) -> None:
    def words(inputs: Any) -> Iterator[AIMessageChunk]:
        yield AIMessageChunk(content="one ")
        raise EngineError("the engine broke")

    router = ConfidenceRouter(
        small, [RunnableGenerator(words)], min_confidence=0.7, on_exhausted="last"
    )
    chunks = router.stream("hard?")
    assert next(chunks).text == "one "
    with pytest.raises(EngineError, match="broke"):
        next(chunks)


def test_models_of_others_get_the_route_in_one_more_chunk(small) -> None:
    other = always("an answer", None, "hosted", mute=True)
    router = ConfidenceRouter(small, [other], min_confidence=0.7)
    whole = added(list(router.stream("hard?")))
    assert whole.text == "an answer"
    told = whole.response_metadata["bitcal"]
    assert told["confidence"] is None
    assert told["route"]["attempts"][1]["model"] == "hosted"
    assert told == router.invoke("hard?").response_metadata["bitcal"]


def test_an_early_answer_ends_a_live_stream_with_its_confidence(small) -> None:
    router = ConfidenceRouter(small, min_confidence=0.7, on_exhausted="last")
    handler = ConfidenceCallbackHandler(stop_above=0.8)
    chunks = list(router.stream("easy?", {"callbacks": [handler]}))
    assert added(chunks).text == "small: easy?"
    assert added(chunks).response_metadata["bitcal"]["route"]["chosen"] == 0


# ---- the route is in every kind of chunk that has a place for it -------------------------------


def chunk(text: str, confidence: float | None = None) -> AIMessageChunk:
    metadata = {} if confidence is None else {"bitcal": bitcal(confidence)}
    return AIMessageChunk(content=text, response_metadata=metadata)


def raw_parts(inputs: Any) -> Iterator[Any]:
    """A structured output with its message, as LangChain streams it."""
    yield AddableDict(raw=chunk("one "))
    yield AddableDict(raw=chunk("two", 0.5))
    yield AddableDict(parsed=2)


def mute_raw_parts(inputs: Any) -> Iterator[Any]:
    yield AddableDict(raw=chunk("one "))
    yield AddableDict(raw=chunk("two"))
    yield AddableDict(parsed=2)


def states(inputs: Any) -> Iterator[Any]:
    yield {"messages": ["q"]}
    yield {"messages": ["q", AIMessage("one two", response_metadata={"bitcal": bitcal(0.5)})]}


def whole(inputs: Any) -> Iterator[Any]:
    yield AIMessage("one two", response_metadata={"bitcal": bitcal(0.5)})


def bitcals(chunks: list[Any]) -> list[Any]:
    messages = [c if isinstance(c, AIMessage) else message_in(c) for c in chunks]
    found = [m.response_metadata.get("bitcal") for m in messages if m is not None]
    return [told for told in found if told is not None]


@pytest.mark.parametrize("on_exhausted", ["best", "last"])
@pytest.mark.parametrize("stream", [raw_parts, mute_raw_parts, states, whole])
async def test_the_route_is_told_in_chunks_of_every_kind(stream, on_exhausted) -> None:
    async def asynchronous(inputs: Any) -> Any:
        for part in stream(inputs):
            yield part

    inner = RunnableGenerator(stream, asynchronous)
    router = ConfidenceRouter(inner, [], min_confidence=0.7, on_exhausted=on_exhausted)
    for chunks in (list(router.stream("q")), [c async for c in router.astream("q")]):
        (told,) = bitcals(chunks)
        assert told["route"]["chosen"] == 0
        assert told["confidence"] == (None if stream is mute_raw_parts else 0.5)
    if stream in (raw_parts, mute_raw_parts):
        assert added(chunks)["raw"].text == "one two"
        assert added(chunks)["parsed"] == 2


def test_parts_of_a_dict_are_shown_live(small) -> None:
    read: list[str] = []

    def words(inputs: Any) -> Iterator[Any]:
        for part in raw_parts(inputs):
            read.append(next(iter(part)))
            yield part

    router = ConfidenceRouter(
        small, [RunnableGenerator(words)], min_confidence=0.7, on_exhausted="last"
    )
    assert next(router.stream("hard?"))["raw"].text == "one "
    assert read == ["raw"]
