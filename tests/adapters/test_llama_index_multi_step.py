"""The multi-step engine that stops early, and the stop function for the stock one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, events, response
from llama_index.core import get_response_synthesizer
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.indices.query.query_transform.base import (
    BaseQueryTransform,
    StepDecomposeQueryTransform,
)
from llama_index.core.query_engine import MultiStepQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index.multi_step import (
    ConfidenceMultiStepQueryEngine,
    StepTracker,
    make_stop_fn,
)
from bitcal_integrations.llama_index.wrap import with_confidence


class Numbered(BaseQueryTransform):
    """Asks 'step 1', 'step 2', ... by counting the answers so far."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        pass

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        number = metadata["prev_reasoning"].count("- step") + 1
        return QueryBundle(f"step {number} of {query_bundle.query_str}")


def source(name: str) -> NodeWithScore:
    return NodeWithScore(node=TextNode(text=name, id_=name), score=0.5)


def engine(
    values: Sequence[float | None], streaming: bool = False, final: float | None = 0.9, **how: Any
) -> tuple[ScriptedEngine, ScriptedLLM, ConfidenceMultiStepQueryEngine]:
    steps = [response(f"answer {i}", v, [source(f"s{i}")]) for i, v in enumerate(values, 1)]
    inner, llm = ScriptedEngine(*steps), ScriptedLLM([("in all", final)])
    synthesizer = get_response_synthesizer(llm=llm, streaming=streaming)
    return inner, llm, ConfidenceMultiStepQueryEngine(inner, Numbered(), synthesizer, **how)


async def ask(engine: BaseQueryEngine, way: str, question: str = "?") -> Any:
    return engine.query(question) if way == "query" else await engine.aquery(question)


both = pytest.mark.parametrize("way", ["query", "aquery"])


@both
async def test_it_stops_when_a_step_is_certain(way: str) -> None:
    inner, llm, multi = engine([0.5, 0.95, 0.5], stop_above=0.9)
    given = await ask(multi, way)
    assert inner.asked == ["step 1 of ?", "step 2 of ?"]
    assert str(given) == "in all"
    assert given.metadata["confidence"] == 0.5
    trail = given.metadata["bitcal"]["trail"]
    assert (trail["stopped"], trail["steps_saved"]) == ("settled", 1)
    assert [s["confidence"] for s in trail["steps"]] == [0.5, 0.95, 0.9]
    assert [s["name"] for s in trail["steps"]] == ["step 1 of ?", "step 2 of ?", "answer"]
    assert given.metadata["bitcal"]["calibrated"] is False
    json.dumps(given.metadata["bitcal"])
    assert len(llm.asked) == 1


@both
async def test_metadata_is_merged_and_sub_qa_kept(way: str) -> None:
    _, _, multi = engine([0.5, 0.95], stop_above=0.9)
    given = await ask(multi, way)
    assert [(q, str(a)) for q, a in given.metadata["sub_qa"]] == [
        ("step 1 of ?", "answer 1"),
        ("step 2 of ?", "answer 2"),
    ]
    assert {"s1", "s2"} <= {node.node.id_ for node in given.source_nodes}
    assert len(given.metadata) > 3  # and the synthesizer's own, by node


@both
async def test_a_hopeless_step_is_given_up(way: str) -> None:
    inner, llm, multi = engine([0.5, 0.05], stop_below=0.1)
    with pytest.raises(LowConfidenceError, match=r"step 2 is given up: .* 0\.05 is") as caught:
        await ask(multi, way)
    assert caught.value.record.text == "answer 2"
    assert llm.asked == []
    other = ScriptedEngine(response("from the big one", 0.9))
    inner, llm, multi = engine([0.05], stop_below=0.1, fallback_query_engine=other)
    given = await ask(multi, way)
    assert str(given) == "from the big one"
    assert (other.asked, len(inner.asked), llm.asked) == (["?"], 1, [])
    assert given.metadata["confidence"] == 0.9
    assert given.metadata["bitcal"]["trail"]["stopped"] == "hopeless"
    assert given.metadata["bitcal"]["trail"]["steps_saved"] == 2


@both
async def test_the_step_that_settles_it_may_be_the_answer(way: str) -> None:
    _, llm, multi = engine([0.5, 0.95], stop_above=0.9, answer_with="step")
    given = await ask(multi, way)
    assert (str(given), given.metadata["confidence"]) == ("answer 2", 0.95)
    assert given.metadata["bitcal"]["calibrated"]
    assert len(given.metadata["sub_qa"]) == 2
    assert llm.asked == []
    _, llm, multi = engine([0.5], stop_above=0.9, answer_with="step")
    assert str(await ask(multi, way)) == "in all"  # no step did
    with pytest.raises(BadRequest, match="answer_with='both'"):
        engine([0.5], answer_with="both")


def test_nothing_stops_it_but_the_number_of_steps() -> None:
    inner, _, multi = engine([0.5], stop_above=0.9)
    trail = multi.query("?").metadata["bitcal"]["trail"]
    assert len(inner.asked) == 3
    assert (trail["stopped"], trail["steps_saved"]) == ("num_steps", 0)


def test_early_stopping_false_is_obeyed() -> None:
    """The stock engine only validates it: its stop_fn is asked all the same."""
    inner, _, multi = engine(
        [0.99], stop_above=0.5, early_stopping=False, num_steps=2, stop_fn=lambda _: True
    )
    multi.query("?")
    assert len(inner.asked) == 2
    stock = ScriptedEngine(response("so", 0.9))
    MultiStepQueryEngine(
        stock, Numbered(), get_response_synthesizer(llm=ScriptedLLM([("so", 0.9)])),
        num_steps=2, early_stopping=False, stop_fn=lambda _: True,
    ).query("?")  # fmt: skip
    assert stock.asked == []


def test_stop_fn_ends_the_steps() -> None:
    inner, _, multi = engine(
        [0.5], stop_fn=lambda about: "step 2" in about["query_bundle"].query_str
    )
    assert multi.query("?").metadata["bitcal"]["trail"]["stopped"] == "stop_fn"
    assert len(inner.asked) == 1


def test_a_policy_settles_and_unknown_is_unknown() -> None:
    inner, _, multi = engine([None, 0.8], policy=0.7)
    given = multi.query("?")
    assert len(inner.asked) == 2
    assert given.metadata["confidence"] is None
    assert "unknown" in given.metadata["bitcal"]["reason"]


@pytest.mark.parametrize(
    ("aggregate", "value"), [("minimum", 0.5), ("product", 0.36), ("last", 0.9)]
)
def test_the_aggregate(aggregate: str, value: float) -> None:
    _, _, multi = engine([0.5, 0.8], num_steps=2, aggregate=aggregate)
    assert multi.query("?").metadata["confidence"] == pytest.approx(value)


async def test_the_answer_streams_and_the_steps_are_read() -> None:
    _, _, multi = engine([0.8], streaming=True, num_steps=1)
    given = multi.query("?")
    assert given.metadata["confidence"] is None
    assert list(given.response_gen) == ["in ", "all ", ""]
    assert given.metadata["confidence"] == 0.8
    given = await multi.aquery("?")
    assert [p async for p in given.async_response_gen()] == ["in ", "all ", ""]
    assert given.metadata["confidence"] == 0.8
    assert given.metadata["bitcal"]["trail"]["steps"][-1]["name"] == "answer"


async def test_async_is_async_all_the_way() -> None:
    class Gated(ScriptedEngine):
        def __init__(self) -> None:
            super().__init__(response("so", 0.5))
            self.gate, self.reached = asyncio.Event(), asyncio.Event()

        async def _aquery(self, query_bundle: QueryBundle) -> Any:
            self.reached.set()
            await self.gate.wait()
            return self._query(query_bundle)

    inner = Gated()
    synthesizer = get_response_synthesizer(llm=ScriptedLLM([("so", 0.9)]))
    multi = ConfidenceMultiStepQueryEngine(inner, Numbered(), synthesizer, num_steps=1)
    task = asyncio.create_task(multi.aquery("?"))
    await inner.reached.wait()  # the loop runs while a step is under way
    assert not task.done()
    inner.gate.set()
    assert str(await task) == "so"


async def test_the_transform_asks_the_same_both_ways() -> None:
    sync, other = ScriptedLLM([("the next question", 0.9)]), ScriptedLLM([("the next question", 1)])
    for llm, way in ((sync, "query"), (other, "aquery")):
        inner = ScriptedEngine(response("so", 0.5))
        multi = ConfidenceMultiStepQueryEngine(
            inner, StepDecomposeQueryTransform(llm=llm), num_steps=2, index_summary="countries"
        )
        await ask(multi, way, "who?")
        assert inner.asked == ["the next question"] * 2
    assert sync.asked == other.asked
    assert "countries" in sync.asked[0]


async def test_concurrent_queries_keep_their_own() -> None:
    class Own(ScriptedEngine):
        async def _aquery(self, query_bundle: QueryBundle) -> Any:
            await asyncio.sleep(0)
            return response("so", int(query_bundle.query_str.split()[-1]) / 100)

    synthesizer = get_response_synthesizer(llm=ScriptedLLM([("so", 1.0)]))
    multi = ConfidenceMultiStepQueryEngine(Own(None), Numbered(), synthesizer, num_steps=2)
    given = await asyncio.gather(*(multi.aquery(str(i)) for i in range(32)))
    assert [r.metadata["confidence"] for r in given] == [i / 100 for i in range(32)]


def test_a_query_around_it_sees_one_call_and_events_fire() -> None:
    _, _, multi = engine([0.5, 0.95], stop_above=0.9)

    class Around(ScriptedEngine):
        def _query(self, query_bundle: QueryBundle) -> Any:
            return Response(str(multi.query(query_bundle)))

    with events() as seen:
        given = with_confidence(Around(None)).query("?")
    assert given.metadata["confidence"] == 0.5
    assert "trail" not in given.metadata["bitcal"]
    assert seen.count("QueryStartEvent") == seen.count("QueryEndEvent")


# ---- the stock engine ----------------------------------------------------------------------------


def stock(tracker: StepTracker, **how: Any) -> MultiStepQueryEngine:
    synthesizer = get_response_synthesizer(llm=ScriptedLLM([("in all", 0.9)]))
    stop_fn = make_stop_fn(tracker, **how)
    return MultiStepQueryEngine(tracker, Numbered(), synthesizer, stop_fn=stop_fn)


def test_the_stock_engine_stops_too() -> None:
    inner = ScriptedEngine(response("one", 0.95), response("two", 0.2), response("three", 0.95))
    multi = stock(StepTracker(inner), stop_above=0.9)
    multi.query("a")
    assert inner.asked == ["step 1 of a"]
    multi.query("b")  # a 0.95 of the query before would stop this one at its first step
    assert inner.asked[1:] == ["step 1 of b", "step 2 of b"]


async def test_the_stock_engine_concurrently() -> None:
    class Own(ScriptedEngine):
        def _query(self, query_bundle: QueryBundle) -> Any:
            self.asked.append(query_bundle.query_str)
            return response("so", 0.95 if "even" in query_bundle.query_str else 0.2)

    inner = Own(None)
    multi = stock(StepTracker(inner), stop_above=0.9)
    await asyncio.gather(*(multi.aquery(f"{k} {i}") for i in range(8) for k in ("even", "odd")))
    assert sum("even" in q for q in inner.asked) == 8
    assert sum("odd" in q for q in inner.asked) == 24


def test_the_stock_engine_gives_up_and_takes_policies() -> None:
    low = ScriptedEngine(response("one", 0.05))
    stock(StepTracker(low), stop_below=0.1).query("?")
    assert len(low.asked) == 1
    sure = ScriptedEngine(response("one", 0.8))
    stock(StepTracker(sure), policy=0.7).query("?")
    assert len(sure.asked) == 1


def test_wrong_arguments_are_refused_at_once() -> None:
    with pytest.raises(BadRequest, match=r"stop_below=0\.9 is above"):
        engine([0.5], stop_above=0.1, stop_below=0.9)
    with pytest.raises(BadRequest, match="no StepTracker"):
        make_stop_fn(ScriptedEngine())
    with pytest.raises(BadRequest, match="stop_above=2"):
        make_stop_fn(StepTracker(ScriptedEngine()), stop_above=2)
