"""ConfidenceFallbackQueryEngine: who is asked, whose response is given, what travels with it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, record, response
from llama_index.core import get_response_synthesizer
from llama_index.core.query_engine import (
    RetrieverQueryEngine,
)
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from workflows.runtime.types.results import WaitingForEvent

from bitcal_integrations.errors import EngineError, LowConfidenceError
from bitcal_integrations.llama_index.engine import ConfidenceFallbackQueryEngine
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


def test_an_unsure_answer_is_put_to_the_next_engine() -> None:
    small, big = llm("four", 0.4), llm("five", 0.9)
    engine = ConfidenceFallbackQueryEngine(rag(small), [rag(big, "one", "two")], names=["s", "b"])
    given = engine.query("?")
    assert str(given) == "five"
    assert given.metadata["n0"] == {"page": 0}
    assert [n.node.text for n in given.source_nodes] == ["one", "two"]
    assert given.metadata["confidence"] == 0.9
    bitcal = given.metadata["bitcal"]
    assert bitcal["decision"] == {"action": "accept", "reason": "0.90 >= 0.70"}
    assert [a["name"] for a in bitcal["route"]["attempts"]] == ["s", "b"]
    assert (bitcal["route"]["chosen"], bitcal["route"]["escalations"]) == (1, 1)
    json.dumps(given.metadata)


async def test_async_asks_async() -> None:
    small, big = llm("four", 0.4), llm("five", 0.9)
    engine = ConfidenceFallbackQueryEngine(rag(small), [rag(big)])
    given = await engine.aquery("?")
    assert (str(given), given.metadata["confidence"]) == ("five", 0.9)


def test_a_sure_answer_asks_nobody_else() -> None:
    second = ScriptedEngine(response("five", 0.9))
    engine = ConfidenceFallbackQueryEngine(rag(llm("four", 0.8)), [second])
    assert str(engine.query("?")) == "four"
    assert second.asked == []


class Held(ScriptedEngine):
    """Waits until it is let go."""

    def __init__(self, *answers: Any) -> None:
        super().__init__(*answers)
        self.gate, self.reached = asyncio.Event(), asyncio.Event()

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        self.reached.set()
        await self.gate.wait()
        return self._query(query_bundle)


async def test_the_loop_runs_while_an_engine_is_held() -> None:
    held = Held(response("five", 0.9))
    engine = ConfidenceFallbackQueryEngine(ScriptedEngine(response("four", 0.1)), [held])
    task = asyncio.create_task(engine.aquery("?"))
    await held.reached.wait()
    assert not task.done()
    held.gate.set()
    assert str(await task) == "five"


async def test_a_cancelled_query_is_cancelled() -> None:
    held, later = Held(response("five", 0.9)), ScriptedEngine(response("six", 0.9))
    task = asyncio.create_task(ConfidenceFallbackQueryEngine(held, [later]).aquery("?"))
    await held.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert later.asked == []


async def test_concurrent_queries_keep_their_own_confidence() -> None:
    class Own(ScriptedEngine):
        async def _aquery(self, query_bundle: QueryBundle) -> Any:
            await asyncio.sleep(0)
            value = int(query_bundle.query_str) / 100
            return await inner(value).aquery(query_bundle)

    def inner(value: float) -> Any:
        return rag(llm("so", value))

    engine = ConfidenceFallbackQueryEngine(Own(None), min_confidence=0.0)
    given = await asyncio.gather(*(engine.aquery(str(i)) for i in range(32)))
    assert [r.metadata["confidence"] for r in given] == [i / 100 for i in range(32)]


def test_errors_pass_on_and_other_kinds_are_raised() -> None:
    broken = ScriptedEngine(EngineError("gone"))
    engine = ConfidenceFallbackQueryEngine(broken, [rag(llm("five", 0.9))])
    given = engine.query("?")
    assert str(given) == "five"
    assert given.metadata["bitcal"]["route"]["attempts"][0]["error"] == "EngineError: gone"
    with pytest.raises(EngineError, match="gone"):
        ConfidenceFallbackQueryEngine(broken, [broken]).query("?")
    with pytest.raises(KeyError):
        ConfidenceFallbackQueryEngine(ScriptedEngine(KeyError("x")), [broken]).query("?")
    low = ScriptedEngine(LowConfidenceError("low", record(0.2)))
    assert str(ConfidenceFallbackQueryEngine(low, [rag(llm("five", 0.9))]).query("?")) == "five"


def test_a_workflow_that_waits_has_not_failed() -> None:
    waits = WaitingForEvent.__new__(WaitingForEvent)
    second = ScriptedEngine(response("five", 0.9))
    engine = ConfidenceFallbackQueryEngine(ScriptedEngine(waits), [second], handle=[Exception])
    with pytest.raises(WaitingForEvent):
        engine.query("?")
    assert second.asked == []


def test_an_answer_withheld_inside_can_be_abstained_from() -> None:
    low = ScriptedEngine(LowConfidenceError("low", record(0.2)))
    given = ConfidenceFallbackQueryEngine(low, on_exhausted="abstain").query("?")
    assert "certain" in str(given)
    assert given.metadata["bitcal"]["decision"]["action"] == "abstain"
    assert given.metadata["bitcal"]["route"]["attempts"][0]["confidence"] == 0.2


def test_what_is_given_when_nobody_was_certain() -> None:
    def given(on_exhausted: str, second: float | None = 0.2) -> Any:
        engines = ScriptedEngine(response("one", 0.3)), ScriptedEngine(response("two", second))
        return ConfidenceFallbackQueryEngine(
            engines[0], [engines[1]], on_exhausted=on_exhausted
        ).query("?")

    assert str(given("best")) == "one"
    assert str(given("best", None)) == "two"
    assert str(given("last")) == "two"
    assert given("review").metadata["bitcal"]["decision"]["action"] == "review"
    sentence = given("Ask the help desk.")
    assert str(sentence) == "Ask the help desk."
    assert sentence.metadata["confidence"] is None
    assert sentence.metadata["bitcal"]["route"]["chosen"] is None
    with pytest.raises(LowConfidenceError) as caught:
        given("raise")
    assert caught.value.record.confidence.value == 0.3


class Scorer:
    """Scores by the nodes alone."""

    def predict(self, question: str, answer: Any) -> Confidence:
        return Confidence(0.1 if str(answer) == "one " else 0.9, reason=question)

    async def apredict(self, question: str, answer: Any) -> Confidence:
        return self.predict(question, answer)
