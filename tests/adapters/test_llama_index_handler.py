"""The handlers: what they hear, whose query it was, and which of them can end one."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM
from llama_index.core import get_response_synthesizer
from llama_index.core.base.llms.types import ChatMessage, LogProb
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.llama_index._records import chosen_of, record_of
from bitcal_integrations.llama_index.handler import (
    ConfidenceCallbackHandler,
    ConfidenceEventHandler,
)
from bitcal_integrations.llama_index.wrap import with_confidence


class Passages(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="a passage", id_="n"), score=0.5)]


def rag(llm: Any, manager: CallbackManager | None = None, **how: Any) -> RetrieverQueryEngine:
    if manager is not None:
        llm.callback_manager = manager
    synthesizer = get_response_synthesizer(llm=llm, callback_manager=manager, **how)
    return RetrieverQueryEngine(Passages(), synthesizer, callback_manager=manager)


def logprobs(*tokens: str) -> list[list[tuple[str, float]]]:
    return [[(token, math.log(0.8)), ("other", math.log(0.1))] for token in tokens]


def other(text: str, *tokens: str) -> ScriptedLLM:
    """An llm that is not ours and gives log-probabilities."""
    return ScriptedLLM([(text, None)], ours=False, logprobs={text: logprobs(*tokens)})


# ---- the CallbackManager's -----------------------------------------------------------------------


def test_it_hears_every_answer_by_query() -> None:
    seen: list[Any] = []
    handler = ConfidenceCallbackHandler(sink=seen.append)
    engine = rag(ScriptedLLM([("one", 0.9), ("two", 0.4)]), CallbackManager([handler]))
    engine.query("a?")
    assert handler.confidence == 0.9
    engine.query("b?")
    assert handler.confidence == 0.4
    assert [r.text for r in handler.records] == [r.text for r in seen] == ["one", "two"]
    assert "b?" in handler.records[1].request.prompt[-1]["content"]


def test_answers_of_one_query_are_one_number() -> None:
    handler = ConfidenceCallbackHandler(aggregate="product")
    llm = ScriptedLLM([("one", 0.9), ("two", 0.5)])
    llm.callback_manager = manager = CallbackManager([handler])

    class Twice(ScriptedEngine):
        def _query(self, query_bundle: QueryBundle) -> Any:
            with manager.event(CBEventType.QUERY):
                return Response(f"{llm.complete('a')} {llm.complete('b')}")

    Twice(None).query("?")
    assert handler.confidence == pytest.approx(0.45)
    assert handler.trail.to_dict()["aggregate"] == "product"


def test_it_ends_a_query_by_raising() -> None:
    def engine(value: float, **how: Any) -> RetrieverQueryEngine:
        handler = ConfidenceCallbackHandler(**how)
        return rag(ScriptedLLM([("one", value)]), CallbackManager([handler]))

    with pytest.raises(LowConfidenceError, match=r"0.2 is below raise_below=0.5") as low:
        engine(0.2, raise_below=0.5).query("?")  # through the default synthesizer
    assert low.value.record.text == "one"
    with pytest.raises(EarlyAnswer, match=r"0.95 is at least stop_above=0.9") as early:
        engine(0.95, stop_above=0.9).query("?")
    assert early.value.record.confidence.value == 0.95
    assert str(engine(0.7, raise_below=0.5, stop_above=0.9).query("?")) == "one"


async def test_it_ends_async_calls_too() -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.5)
    engine = rag(ScriptedLLM([("one", 0.2)]), CallbackManager([handler]))
    with pytest.raises(LowConfidenceError):
        await engine.aquery("?")


def test_a_stream_ends_after_its_last_token() -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.5)
    llm = ScriptedLLM([("one two", 0.2)])
    llm.callback_manager = CallbackManager([handler])
    stream = llm.stream_complete("?")
    assert [next(stream).delta for _ in range(3)] == ["one ", "two ", ""]
    with pytest.raises(LowConfidenceError):
        next(stream)


def test_a_failed_call_is_no_answer() -> None:
    handler = ConfidenceCallbackHandler(raise_below=0.5)
    llm = ScriptedLLM([(KeyError("x"), None)])
    llm.callback_manager = CallbackManager([handler])
    with pytest.raises(KeyError):
        llm.complete("?")
    assert handler.records == []
    assert handler.confidence is None


def test_only_the_last_queries_are_kept() -> None:
    handler = ConfidenceCallbackHandler(keep=2)
    engine = rag(ScriptedLLM([("one", 0.9)]), CallbackManager([handler]))
    for _ in range(5):
        engine.query("?")
    assert len(handler.records) == 2


# ---- the dispatcher's ----------------------------------------------------------------------------


def test_it_writes_into_the_responses_of_other_llms() -> None:
    handler = ConfidenceEventHandler()
    with handler.attached():
        given = rag(other("Paris", "Par", "is")).query("capital?")
    assert given.metadata["n"] == {}
    assert given.metadata["confidence"] is None  # no profile: nobody measured this llm
    assert given.metadata["bitcal"]["raw"] == pytest.approx(0.8)
    assert "profile" in given.metadata["bitcal"]["reason"]
    (record,) = handler.records
    assert record.generation.n_tokens == 2
    assert "capital?" in record.request.prompt[-1]["content"]


async def test_concurrent_queries_do_not_mix() -> None:
    handler = ConfidenceEventHandler()

    class Slow(ScriptedLLM):
        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            return await super().achat(messages, **kwargs)

    with handler.attached():
        engines = [rag(Slow([("so", i / 100)])) for i in range(32)]
        given = await asyncio.gather(*(engine.aquery("?") for engine in engines))
    assert [r.metadata["confidence"] for r in given] == [i / 100 for i in range(32)]


async def test_a_stream_read_later_counts_for_its_query() -> None:
    handler = ConfidenceEventHandler()
    with handler.attached():
        first = rag(ScriptedLLM([("one two", 0.9)]), streaming=True).query("?")
        second = await rag(ScriptedLLM([("three", 0.4)]), streaming=True).aquery("?")
        assert first.metadata["confidence"] is second.metadata["confidence"] is None
        assert [p async for p in second.async_response_gen()] == ["three ", ""]
        assert second.metadata["confidence"] == 0.4
        assert first.metadata["confidence"] is None
        assert str(first) == "one two "
    assert first.metadata["confidence"] == 0.9


def test_several_calls_have_a_trail_and_a_query_inside_belongs_to_both() -> None:
    inner = rag(ScriptedLLM([("one", 0.5)]))
    llm = ScriptedLLM([("two", 0.9)])

    class Around(ScriptedEngine):
        def _query(self, query_bundle: QueryBundle) -> Any:
            return Response(f"{inner.query('in')} {llm.complete('out')}")

    handler = ConfidenceEventHandler(aggregate="minimum")
    with handler.attached():
        given = Around(None).query("?")
    assert given.metadata["confidence"] == 0.5
    assert [s["confidence"] for s in given.metadata["bitcal"]["trail"]["steps"]] == [0.5, 0.9]


def test_what_was_written_before_stays() -> None:
    with ConfidenceEventHandler().attached():
        given = with_confidence(rag(ScriptedLLM([("one", 0.9)]))).query("?")
    assert given.metadata["confidence"] == 0.9
    with ConfidenceEventHandler(write=False).attached():
        assert "bitcal" not in rag(ScriptedLLM([("one", 0.9)])).query("?").metadata


class Echo(CustomLLM):
    """A stock custom llm: its chat passes on what complete gave, without the log-probabilities."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        rows = [[LogProb(token=t, logprob=p) for t, p in row] for row in logprobs("so")]
        return CompletionResponse(text="so", logprobs=rows)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise AssertionError("nothing here asks for a stream")


def test_an_answer_passed_on_is_heard_once() -> None:
    handler = ConfidenceEventHandler()
    with handler.attached():
        Echo().chat([ChatMessage(role="user", content="?")])
    (record,) = handler.records
    assert record.confidence.raw == pytest.approx(0.8)


def test_it_can_only_watch(caplog: pytest.LogCaptureFixture) -> None:
    """The trap: the dispatcher swallows what a handler raises, exits included."""

    def broken(record: Any) -> None:
        raise RuntimeError("no disk")

    class Exits(ConfidenceEventHandler):
        def handle(self, event: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    llm = ScriptedLLM([("one", 0.2)])
    with Exits().attached():
        assert str(llm.complete("?")) == "one"
    with caplog.at_level(logging.ERROR), ConfidenceEventHandler(sink=broken).attached():
        assert str(llm.complete("?")) == "one"
    assert "no disk" in caplog.text
    with pytest.raises(BadRequest, match="swallows"):
        ConfidenceEventHandler(raise_below=0.5)


def test_it_leaves_the_dispatcher_as_it_was() -> None:
    root = get_dispatcher()
    before = list(root.event_handlers), list(root.span_handlers)
    with ConfidenceEventHandler().attached():
        assert root.event_handlers != before[0]
    assert (root.event_handlers, root.span_handlers) == before


def test_wrong_arguments_are_refused_at_once() -> None:
    for kind in (ConfidenceCallbackHandler, ConfidenceEventHandler):
        with pytest.raises(BadRequest, match="sink"):
            kind(sink="file")
        with pytest.raises(BadRequest, match="keep"):
            kind(keep=0)
    with pytest.raises(BadRequest, match="stop_below"):
        ConfidenceCallbackHandler(raise_below=0.9, stop_above=0.1)


# ---- log-probabilities of other llms -------------------------------------------------------------


def rows(*candidates: dict[str, float]) -> list[list[LogProb]]:
    return [[LogProb(token=t, logprob=p) for t, p in row.items()] for row in candidates]


def test_the_generated_token_is_found_among_the_candidates() -> None:
    found = chosen_of("Paris", rows({"Lon": -0.1, "Par": -2.0}, {"don": -0.1, "is": -0.3}))
    assert found == [("Par", -2.0), ("is", -0.3)]
    two_ways = rows({"a": -1.0, "ab": -3.0}, {"bc": -1.0, "c": -0.5})
    assert chosen_of("abc", two_ways) == [("a", -1.0), ("bc", -1.0)]
    assert chosen_of("so", rows({"so": -0.1}, {"</s>": -0.1})) == [("so", -0.1)]
    assert chosen_of("so", rows({"no": -0.1})) is None


def test_log_probabilities_that_do_not_spell_the_text_are_unknown() -> None:
    answer = CompletionResponse(text="so", logprobs=rows({"no": -0.1}))
    confidence = record_of(answer).confidence
    assert confidence.value is confidence.raw is None
    assert "spell" in confidence.reason
