"""More of the fallback query engine: what it keeps and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, events, response
from llama_index.core import get_response_synthesizer
from llama_index.core.base.response.schema import PydanticResponse, Response
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import (
    CustomQueryEngine,
    RetrieverQueryEngine,
    RetryQueryEngine,
)
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index.engine import ConfidenceFallbackQueryEngine
from bitcal_integrations.llama_index.wrap import with_confidence
from bitcal_integrations.types import Confidence


class Passages(BaseRetriever):
    """Always the same passages, with their scores."""

    def __init__(self, *texts: str) -> None:
        self.nodes = [
            NodeWithScore(node=TextNode(text=t, id_=f"n{i}", metadata={"page": i}), score=1.0 - i)
            for i, t in enumerate(texts)
        ]
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


def rag(llm: ScriptedLLM, *texts: str, streaming: bool = False) -> RetrieverQueryEngine:
    synthesizer = get_response_synthesizer(llm=llm, streaming=streaming)
    return RetrieverQueryEngine(Passages(*(texts or ("a passage",))), synthesizer)


def llm(text: Any, value: float | None, **kwargs: Any) -> ScriptedLLM:
    return ScriptedLLM([(text, value)], **kwargs)


class Scorer:
    """Scores by the nodes alone."""

    def predict(self, question: str, answer: Any) -> Confidence:
        return Confidence(0.1 if str(answer) == "one " else 0.9, reason=question)

    async def apredict(self, question: str, answer: Any) -> Confidence:
        return self.predict(question, answer)


def test_a_policy_decides() -> None:
    engine = ConfidenceFallbackQueryEngine(
        ScriptedEngine(response("one", 0.3)), policy=as_policy(0.7, below="abstain")
    )
    assert engine.query("?").metadata["bitcal"]["decision"]["action"] == "abstain"
    unknown = ConfidenceFallbackQueryEngine(
        ScriptedEngine(Response("one")), [ScriptedEngine(response("two", 0.9))], on_unknown="accept"
    )
    assert str(unknown.query("?")) == "one"


def test_streams_are_held_back_and_the_last_is_live() -> None:
    small, big = llm("one two", 0.3), llm("a b c", 0.95)
    engine = ConfidenceFallbackQueryEngine(rag(small, streaming=True), [rag(big, streaming=True)])
    given = engine.query("?")
    assert given.metadata["confidence"] is None
    assert "not been read" in given.metadata["bitcal"]["reason"]
    assert given.metadata["bitcal"]["route"]["attempts"][0]["confidence"] == 0.3
    assert list(given.response_gen) == ["a ", "b ", "c ", ""]
    assert given.metadata["confidence"] == 0.95
    assert given.metadata["bitcal"]["route"]["chosen"] == 1
    assert given.metadata["n0"] == {"page": 0}


def test_an_accepted_draft_is_streamed_in_its_pieces() -> None:
    engine = ConfidenceFallbackQueryEngine(
        rag(llm("one two", 0.9), streaming=True), [rag(llm("three", 0.9))]
    )
    given = engine.query("?")
    assert given.metadata["confidence"] == 0.9
    assert list(given.response_gen) == ["one ", "two ", ""]
    again = engine.query("?")
    assert str(again) == "one two "
    assert again.get_response().metadata["bitcal"]["route"]["chosen"] == 0


async def test_async_streams_too() -> None:
    engine = ConfidenceFallbackQueryEngine(
        rag(llm("one", 0.3), streaming=True), [rag(llm("a b", 0.2), streaming=True)]
    )
    given = await engine.aquery("?")
    pieces = [piece async for piece in given.async_response_gen()]
    assert pieces == ["a ", "b ", ""]
    assert given.metadata["confidence"] == 0.2
    assert given.metadata["bitcal"]["decision"]["action"] == "escalate"
    held = ConfidenceFallbackQueryEngine(
        rag(llm("one two", 0.9), streaming=True), [rag(llm("a", 0.2), streaming=True)]
    )
    response = await held.aquery("?")
    assert [piece async for piece in response.async_response_gen()] == ["one ", "two ", ""]
    assert (await response.get_response()).metadata["confidence"] == 0.9


def test_a_stream_that_may_be_withheld_is_not_shown() -> None:
    engine = ConfidenceFallbackQueryEngine(
        rag(llm("one", 0.3), streaming=True), on_exhausted="Nobody knows that."
    )
    assert list(engine.query("?").response_gen) == ["Nobody knows that."]


def test_a_stream_left_early_stops_its_llm() -> None:
    big = llm("a b c d", 0.9)
    engine = ConfidenceFallbackQueryEngine(rag(big, streaming=True))
    given = engine.query("?")
    assert next(given.response_gen) == "a "
    given.response_gen.close()
    assert big.closed == 1
    assert given.metadata["confidence"] is None


def test_events_fire_for_it_and_for_what_is_inside() -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([debug])
    engine = ConfidenceFallbackQueryEngine(
        rag(llm("four", 0.4)), [rag(llm("five", 0.9))], callback_manager=manager
    )
    with events() as seen:
        engine.query("?")
    assert seen.count("QueryStartEvent") == seen.count("QueryEndEvent") == 5  # own, 2 x (wrap, rag)
    assert seen.count("LLMChatEndEvent") == 2
    assert len(debug.get_event_pairs(CBEventType.QUERY)) == 1


def test_a_query_around_it_sees_one_call() -> None:
    inner = ConfidenceFallbackQueryEngine(rag(llm("four", 0.4)), [rag(llm("five", 0.9))])

    class Around(ScriptedEngine):
        def _query(self, query_bundle: QueryBundle) -> Any:
            return Response(str(inner.query(query_bundle)))  # its metadata is lost

    given = with_confidence(Around(None)).query("?")
    assert given.metadata["confidence"] == 0.9
    assert "trail" not in given.metadata["bitcal"]


def test_wrapped_it_keeps_its_route() -> None:
    inner = ConfidenceFallbackQueryEngine(rag(llm("four", 0.4)), [rag(llm("five", 0.9))])
    assert with_confidence(inner).query("?").metadata["bitcal"]["route"]["chosen"] == 1


def test_it_stands_in_for_an_engine() -> None:
    engine = ConfidenceFallbackQueryEngine(rag(llm("four", 0.9), "x"), [], names=["rag"])
    assert [n.node.text for n in engine.retrieve(QueryBundle("?"))] == ["x"]
    nodes = engine.retrieve(QueryBundle("?"))
    assert engine.synthesize(QueryBundle("?"), nodes).metadata["confidence"] == 0.9
    name = "rag.response_synthesizer:text_qa_template"
    assert name in engine.get_prompts()
    engine.update_prompts({name: PromptTemplate("{context_str} {query_str} now")})
    assert engine.get_prompts()[name].get_template().endswith("now")


async def test_custom_engines_work_where_retry_engines_fail() -> None:
    class Custom(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            return "custom"

    engine = ConfidenceFallbackQueryEngine(Custom(), on_unknown="accept")
    assert str(engine.query("?")) == "custom"
    assert str(await engine.aquery("?")) == "custom"
    with pytest.raises(NotImplementedError):  # the trap: it calls _query of what it wraps
        RetryQueryEngine(Custom(), None).query("?")


def test_a_pydantic_response_stays_one() -> None:
    class City(BaseModel):
        text: str

    inner = PydanticResponse(City(text="Paris"), metadata={"n": 1})
    given = ConfidenceFallbackQueryEngine(ScriptedEngine(inner)).query("?")
    assert isinstance(given, PydanticResponse)
    assert given.metadata["n"] == 1
    assert given.metadata["confidence"] is None


async def test_a_scorer_gives_the_confidence_to_go_by() -> None:
    first = rag(llm("one", 0.99), streaming=True)
    engine = ConfidenceFallbackQueryEngine(first, [rag(llm("two", 0.2))], scorer=Scorer())
    given = engine.query("why")
    assert (str(given), given.metadata["confidence"]) == ("two", 0.9)
    assert given.metadata["bitcal"]["reason"] == "why"
    assert str(await engine.aquery("why")) == "two"


def test_wrong_arguments_are_refused_at_once() -> None:
    engine = ScriptedEngine(response("one", 0.3))
    with pytest.raises(BadRequest, match="no query engine"):
        ConfidenceFallbackQueryEngine("engine")
    with pytest.raises(BadRequest, match="on_exhausted"):
        ConfidenceFallbackQueryEngine(engine, on_exhausted="panic")
    with pytest.raises(BadRequest, match="threshold"):
        ConfidenceFallbackQueryEngine(engine, min_confidence=7)
