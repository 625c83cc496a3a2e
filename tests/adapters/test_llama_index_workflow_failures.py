"""ConfidenceFallbackWorkflow: how the asked fail, and what is kept of it."""

from __future__ import annotations

from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, record, response

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import (
    BadRequest,
    EngineClosed,
    EngineError,
    LowConfidenceError,
    PromptTooLong,
)
from bitcal_integrations.llama_index.workflow import ConfidenceFallbackWorkflow


def withheld(value: float) -> ScriptedEngine:
    return ScriptedEngine(LowConfidenceError("too low", record(value, "four")))


async def test_what_was_withheld_can_be_abstained_from() -> None:
    flow = ConfidenceFallbackWorkflow(withheld(0.2), [withheld(0.3)], on_exhausted="abstain")
    result = await flow.run(question="?")
    assert str(result) == "I am not certain enough to answer."
    assert result.metadata["confidence"] is None
    attempts = result.metadata["bitcal"]["route"]["attempts"]
    assert [a["confidence"] for a in attempts] == [0.2, 0.3]
    assert attempts[0]["error"].startswith("LowConfidenceError: too low. The answer")


async def test_an_error_keeps_its_kind_and_its_record() -> None:
    with pytest.raises(LowConfidenceError, match="too low") as low:
        await ConfidenceFallbackWorkflow(withheld(0.2)).run(question="?")
    assert low.value.record is not None
    assert low.value.record.text == "four"
    with pytest.raises(EngineClosed, match=r"^closed\. Load it again"):
        await ConfidenceFallbackWorkflow(ScriptedEngine(EngineClosed("closed"))).run(question="?")


async def test_a_prompt_that_is_too_long_is_not_asked_again() -> None:
    error = EngineError("too long")
    error.__cause__ = PromptTooLong(9, 8)
    engine = ScriptedEngine(error)
    flow = ConfidenceFallbackWorkflow(engine, [ScriptedEngine(response("five", 0.9))])
    assert str(await flow.run(question="?")) == "five"
    assert len(engine.asked) == 1


async def test_a_later_run_begins_anew() -> None:
    engine = ScriptedEngine(response("four", 0.9), response("five", 0.3))
    flow = ConfidenceFallbackWorkflow(engine)
    handler = flow.run(question="2 and 2?")
    assert str(await handler) == "four"
    result = await flow.run(question="2 and 3?", ctx=handler.ctx)
    assert (str(result), len(result.metadata["bitcal"]["route"]["attempts"])) == ("five", 1)


def test_a_person_has_the_time_they_need() -> None:
    engine = ScriptedEngine(response("four", 0.3))

    def timeout(**how: Any) -> Any:
        return ConfidenceFallbackWorkflow(engine, **how)._timeout

    assert timeout(on_exhausted="review") is None
    assert timeout(policy=as_policy(0.7, below="review")) is None
    assert timeout(on_exhausted="review", timeout=7.0) == 7.0
    assert timeout() == 45.0


async def test_a_function_must_be_async() -> None:
    def at_once(question: str) -> str:
        return "four"

    with pytest.raises(BadRequest, match="at_once gave 'four': it must be an async function"):
        await ConfidenceFallbackWorkflow(at_once).run(question="?")
