"""The gate between steps, its event on the stream, and the fallback workflow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, record, response
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.workflow import Context, Event, StartEvent, StopEvent, Workflow, step
from workflows import catch_error
from workflows.events import StepFailedEvent

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError
from bitcal_integrations.llama_index.workflow import (
    ConfidenceEvent,
    ConfidenceFallbackWorkflow,
    ConfidenceGate,
    ReviewAnswer,
    ReviewEvent,
    gate,
)
from bitcal_integrations.types import Confidence


class Again(Event):
    pass


# ---- the gate ------------------------------------------------------------------------------------


def test_the_gate_gives_one_of_two_events() -> None:
    passed = gate(response("four", 0.9), 0.7, accept=StopEvent, reject=Again)
    assert isinstance(passed, StopEvent)
    assert str(passed.result) == "four"
    assert passed.confidence == 0.9
    stopped = gate(response("four", 0.3), 0.7, accept=StopEvent, reject=Again)
    assert isinstance(stopped, Again)
    assert (str(stopped.answer), stopped.confidence) == ("four", 0.3)
    assert stopped.bitcal["decision"] == {"action": "escalate", "reason": "0.30 < 0.70"}


def test_the_gate_takes_numbers_confidences_and_records() -> None:
    again = Again()
    for answer in (0.3, Confidence(0.3), record(0.3), None, Response("unknown")):
        assert gate(answer, 0.7, accept=StopEvent, reject=again) is again
    for answer in (0.9, Confidence(0.9), record(0.9)):
        assert isinstance(gate(answer, 0.7, accept=StopEvent, reject=again), StopEvent)
    assert ConfidenceGate(0.5).decide(0.6).action == "accept"
    with pytest.raises(BadRequest, match="no answer"):
        gate("four", 0.7, accept=StopEvent, reject=again)


def test_a_policy_may_raise() -> None:
    with pytest.raises(LowConfidenceError) as caught:
        gate(response("four", 0.3), as_policy(0.7, below="raise"), accept=StopEvent, reject=Again)
    assert caught.value.record.text == "four"


class Gated(Workflow):
    """Asks twice at most; the graph is read from the annotations as ever."""

    def __init__(self, *answers: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.engine, self.gate = ScriptedEngine(*answers), ConfidenceGate(0.7)

    @step
    async def first(self, ctx: Context, ev: StartEvent) -> StopEvent | Again:
        answer = await self.engine.aquery("?")
        return self.gate(answer, accept=StopEvent, reject=Again, ctx=ctx)

    @step
    async def second(self, ctx: Context, ev: Again) -> StopEvent:
        answer = await self.engine.aquery("again?")
        return self.gate(answer, accept=StopEvent, reject=StopEvent(result="nobody knows"), ctx=ctx)


async def run(workflow: Workflow, **kwargs: Any) -> tuple[Any, list[ConfidenceEvent]]:
    handler = workflow.run(**kwargs)
    seen = [e async for e in handler.stream_events() if isinstance(e, ConfidenceEvent)]
    return await handler, seen


async def test_a_workflow_branches_and_tells_the_stream() -> None:
    result, seen = await run(Gated(response("four", 0.3), response("five", 0.9)))
    assert str(result) == "five"
    assert [(e.confidence, e.action, e.text) for e in seen] == [
        (0.3, "escalate", "four"),
        (0.9, "accept", "five"),
    ]
    json.dumps([e.model_dump() for e in seen])
    result, _ = await run(Gated(response("four", 0.3)))
    assert result == "nobody knows"


async def test_low_confidence_is_caught_by_catch_error() -> None:
    class Caught(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> StopEvent:
            raise LowConfidenceError("too low", record(0.2))

        @catch_error(for_steps=["ask"])
        async def instead(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=ev.exception.record.confidence.value)

    assert await Caught().run() == 0.2


# ---- the fallback workflow -----------------------------------------------------------------------


def engines(*values: float | None) -> list[ScriptedEngine]:
    node = NodeWithScore(node=TextNode(text="a passage", id_="n"))
    return [ScriptedEngine(response(f"a{i}", v, [node], n={})) for i, v in enumerate(values)]


def flow(*values: float | None, **how: Any) -> ConfidenceFallbackWorkflow:
    first, *rest = engines(*values)
    return ConfidenceFallbackWorkflow(first, rest, **how)


async def test_the_first_that_is_certain_answers() -> None:
    result, seen = await run(flow(0.3, 0.5, 0.9), question="?")
    assert str(result) == "a2"
    assert [e.confidence for e in seen] == [0.3, 0.5, 0.9]
    assert result.metadata["confidence"] == 0.9
    assert result.metadata["n"] == {}
    assert [n.node.id_ for n in result.source_nodes] == ["n"]
    route = result.metadata["bitcal"]["route"]
    assert (route["chosen"], route["escalations"]) == (2, 2)
    result, seen = await run(flow(0.9, 0.5), question="?")
    assert (str(result), len(seen)) == ("a0", 1)


async def test_a_failed_engine_is_tried_again_then_passed_over() -> None:
    flaky = ScriptedEngine(EngineError("busy"), response("four", 0.9))
    assert str(await ConfidenceFallbackWorkflow(flaky).run(question="?")) == "four"
    assert len(flaky.asked) == 2
    broken = ScriptedEngine(EngineError("gone"))
    result = await ConfidenceFallbackWorkflow(broken, engines(0.9)).run(question="?")
    assert str(result) == "a0"
    assert len(broken.asked) == 2
    assert "gone" in result.metadata["bitcal"]["route"]["attempts"][0]["error"]
    later = ConfidenceFallbackWorkflow(*engines(0.1)[:1], [broken])
    assert str(await later.run(question="?")) == "a0"  # the best of those that answered
    with pytest.raises(EngineError, match="gone"):
        await ConfidenceFallbackWorkflow(broken, [broken]).run(question="?")


async def test_other_errors_fail_the_workflow() -> None:
    wrong = ScriptedEngine(KeyError("x"))
    with pytest.raises(KeyError):
        await ConfidenceFallbackWorkflow(wrong, engines(0.9)).run(question="?")
    with pytest.raises(KeyError):
        await ConfidenceFallbackWorkflow(engines(0.1)[0], [wrong]).run(question="?")
    with pytest.raises(BadRequest, match="question"):
        await flow(0.9).run()


async def test_what_is_given_when_nobody_was_certain() -> None:
    assert str(await flow(0.3, 0.2).run(question="?")) == "a0"
    assert str(await flow(0.3, 0.2, on_exhausted="last").run(question="?")) == "a1"
    sentence = await flow(0.3, on_exhausted="Ask the desk.").run(question="?")
    assert (str(sentence), sentence.metadata["confidence"]) == ("Ask the desk.", None)
    with pytest.raises(LowConfidenceError) as caught:
        await flow(0.3, 0.2, on_exhausted="raise").run(question="?")
    assert caught.value.record.confidence.value == 0.3


async def review(workflow: Workflow, said: str | None) -> tuple[ReviewEvent, Any]:
    handler = workflow.run(question="?")
    asked = None
    async for event in handler.stream_events():
        if isinstance(event, ReviewEvent):
            asked = event
            handler.ctx.send_event(ReviewAnswer(answer=said))
    assert asked is not None
    return asked, await handler


async def test_a_person_is_asked() -> None:
    asked, result = await review(flow(0.3, 0.2, on_exhausted="review"), "forty-two")
    assert (asked.question, asked.answer, asked.confidence) == ("?", "a0", 0.3)
    assert len(asked.route["attempts"]) == 2
    assert str(result) == "forty-two"
    assert result.metadata["confidence"] is None
    assert result.metadata["bitcal"]["reason"] == "a person gave this answer"
    asked, result = await review(flow(0.3, policy=as_policy(0.7, below="review")), None)
    assert (str(result), result.metadata["confidence"]) == ("a0", 0.3)
    assert result.metadata["bitcal"]["decision"]["action"] == "review"


async def test_a_waiting_workflow_can_be_saved_and_taken_up() -> None:
    first = flow(0.3, on_exhausted="review")
    handler = first.run(question="?")
    async for event in handler.stream_events():
        if isinstance(event, ReviewEvent):
            saved = json.loads(json.dumps(handler.ctx.to_dict()))
            await handler.cancel_run()
            break
    second = flow(0.3, on_exhausted="review")
    again = second.run(ctx=Context.from_dict(second, saved))
    again.ctx.send_event(ReviewAnswer(answer=None))
    assert str(await again) == "a0"


async def test_llms_and_functions_are_asked_too() -> None:
    llm = ScriptedLLM([("four", 0.4)], name="small")
    other = ScriptedLLM([("five", None)], ours=False)

    async def ask(question: str) -> Any:
        return await ScriptedLLM([("six", 0.9)]).acomplete(question)

    result = await ConfidenceFallbackWorkflow(llm, [other, ask]).run(question="?")
    assert str(result) == "six"
    attempts = result.metadata["bitcal"]["route"]["attempts"]
    assert [a["name"] for a in attempts] == ["small", "scripted", "ask"]
    assert [a["confidence"] for a in attempts] == [0.4, None, 0.9]


async def test_two_runs_at_once_do_not_mix() -> None:
    class Own(ScriptedEngine):
        async def _aquery(self, query_bundle: Any) -> Any:
            return response(query_bundle.query_str, 0.9 if query_bundle.query_str > "4" else 0.1)

    workflow = ConfidenceFallbackWorkflow(Own(None), engines(0.95))
    handlers = [workflow.run(question=str(i)) for i in range(8)]
    assert [str(await h) for h in handlers] == ["a0"] * 5 + ["5", "6", "7"]


def test_wrong_arguments_are_refused_at_once() -> None:
    with pytest.raises(BadRequest, match="cannot be asked"):
        ConfidenceFallbackWorkflow("engine")
    with pytest.raises(BadRequest, match="on_exhausted"):
        flow(0.3, on_exhausted="panic")
