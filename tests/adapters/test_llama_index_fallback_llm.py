"""ConfidenceFallbackLLM: who is asked, whose answer is given, and what travels with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedLLM
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms import ChatMessage
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import FunctionTool

from bitcal_integrations.errors import EngineError, LowConfidenceError
from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM

WAYS = ("chat", "complete", "achat", "acomplete")
STREAMS = ("stream_chat", "stream_complete", "astream_chat", "astream_complete")


class Passage(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="a passage"), score=1.0)]


def llm(text: Any, value: float | None = 0.9, **kwargs: Any) -> ScriptedLLM:
    return ScriptedLLM([(text, value)], **kwargs)


async def ask(model: Any, way: str) -> Any:
    asked = [ChatMessage(role="user", content="?")] if "chat" in way else "?"
    if way in STREAMS:
        stream = getattr(model, way)(asked)
        if way.startswith("a"):
            return [chunk async for chunk in await stream]
        return list(stream)
    answer = getattr(model, way)(asked)
    return await answer if way.startswith("a") else answer


def text_of(answer: Any) -> str:
    return answer.text if hasattr(answer, "text") else answer.message.content


def small_and_big(**kwargs: Any) -> tuple[ScriptedLLM, ScriptedLLM, ConfidenceFallbackLLM]:
    small, big = llm("four", 0.4, name="small"), llm("five", 0.95, name="big")
    return small, big, ConfidenceFallbackLLM([small, big], **kwargs)


@pytest.mark.parametrize("way", WAYS)
async def test_an_unsure_answer_is_asked_again_of_the_next(way: str) -> None:
    small, big, model = small_and_big()
    answer = await ask(model, way)
    assert text_of(answer) == "five"
    assert (len(small.asked), len(big.asked)) == (1, 1)
    assert answer.raw["confidence"] == 0.95
    route = answer.raw["bitcal"]["route"]
    assert [a["confidence"] for a in route["attempts"]] == [0.4, 0.95]
    assert (route["chosen"], route["escalations"]) == (1, 1)
    assert answer.raw["usage"]["completion_tokens"] == 2
    json.dumps(answer.raw)


@pytest.mark.parametrize("way", WAYS)
async def test_a_sure_answer_is_the_first_ones(way: str) -> None:
    small, big = llm("four", 0.9), llm("five")
    answer = await ask(ConfidenceFallbackLLM([small, big], min_confidence=0.8), way)
    assert text_of(answer) == "four"
    assert big.asked == []
    assert answer.raw["bitcal"]["decision"]["action"] == "accept"


@pytest.mark.parametrize("way", [*WAYS, *STREAMS])
async def test_an_error_passes_on_and_another_kind_is_raised(way: str) -> None:
    broken, big = llm(EngineError("out of memory")), llm("five")
    answer = await ask(ConfidenceFallbackLLM([broken, big]), way)
    last = answer[-1] if isinstance(answer, list) else answer
    assert text_of(last).strip() == "five"
    assert "out of memory" in last.raw["bitcal"]["route"]["attempts"][0]["error"]
    with pytest.raises(KeyError):
        await ask(ConfidenceFallbackLLM([llm(KeyError("x")), big]), way)


async def test_more_kinds_of_errors_can_be_handled() -> None:
    model = ConfidenceFallbackLLM([llm(ConnectionError("down")), llm("five")], handle=[OSError])
    assert text_of(model.complete("?")) == "five"


@pytest.mark.parametrize("way", STREAMS)
async def test_a_stream_holds_drafts_back(way: str) -> None:
    small, big = llm("one two", 0.3), llm("three four", 0.9)
    chunks = await ask(ConfidenceFallbackLLM([small, big]), way)
    assert "".join(c.delta for c in chunks) == "three four "
    assert text_of(chunks[-1]) == "three four "
    assert chunks[-1].raw["confidence"] == 0.9
    assert chunks[-1].raw["bitcal"]["route"]["chosen"] == 1
    assert all(c.raw["bitcal"]["route"]["chosen"] == 1 for c in chunks)


@pytest.mark.parametrize("way", STREAMS)
async def test_an_accepted_draft_is_streamed_in_its_chunks(way: str) -> None:
    model = ConfidenceFallbackLLM([llm("one two", 0.9), llm("three")])
    chunks = await ask(model, way)
    assert [c.delta for c in chunks] == ["one ", "two ", ""]
    assert chunks[-1].raw["bitcal"]["decision"]["action"] == "accept"


def test_the_last_llm_streams_as_it_comes_and_stops_when_closed() -> None:
    small, big = llm("one", 0.3), llm("a b c d", 0.2)
    stream = ConfidenceFallbackLLM([small, big]).stream_complete("?")
    assert next(stream).delta == "a "
    stream.close()
    assert big.closed == 1


async def test_an_async_stream_stops_when_closed() -> None:
    big = llm("a b c d", 0.2)
    stream = await ConfidenceFallbackLLM([llm("one", 0.3), big]).astream_complete("?")
    assert (await anext(stream)).delta == "a "
    await stream.aclose()
    while not big.closed:  # LlamaIndex's decorator leaves the inner generator to the loop
        await asyncio.sleep(0)


def test_a_stream_that_may_withhold_is_held_back_to_the_end() -> None:
    model = ConfidenceFallbackLLM([llm("one", 0.3), llm("two", 0.2)], on_exhausted="Ask us later.")
    assert [c.delta for c in model.stream_complete("?")] == ["Ask us later."]
    with pytest.raises(LowConfidenceError) as caught:
        next(ConfidenceFallbackLLM([llm("one", 0.3)], on_exhausted="raise").stream_complete("?"))
    assert caught.value.record is not None


def test_what_is_given_when_nobody_was_certain() -> None:
    def given(on_exhausted: str, second: float | None = 0.2) -> Any:
        llms = [llm("one", 0.3), llm("two", second)]
        return ConfidenceFallbackLLM(llms, on_exhausted=on_exhausted).complete("?")

    assert given("best").text == "one"
    assert given("best", None).text == "two"  # unknown counts as better than too low
    assert given("last").text == "two"
    assert given("best").raw["bitcal"]["decision"]["action"] == "escalate"
    review = given("review")
    assert review.text == "one"
    assert review.raw["bitcal"]["decision"]["action"] == "review"
    sentence = given("I would rather not say.")
    assert sentence.text == "I would rather not say."
    assert sentence.raw["confidence"] is None
    assert sentence.raw["bitcal"]["route"]["chosen"] is None
    with pytest.raises(LowConfidenceError) as caught:
        given("raise")
    assert caught.value.record.text == "one"


class City(BaseModel):
    """A city."""

    name: str


TOOL = FunctionTool.from_defaults(fn=lambda a, b: a + b, name="add", description="adds")
CALL = {"name": "add", "a": 2, "b": 3}
