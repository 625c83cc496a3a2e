"""Wrong arguments of the LlamaIndex part: one clear error each, before anything is asked."""

from __future__ import annotations

import math
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, response
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.workflow import Event, StopEvent

from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.llama_index.agent import ConfidenceAgentMixin
from bitcal_integrations.llama_index.engine import ConfidenceFallbackQueryEngine
from bitcal_integrations.llama_index.llm import BitCalLLM
from bitcal_integrations.llama_index.rag import RAGConfidence
from bitcal_integrations.llama_index.workflow import ConfidenceFallbackWorkflow, gate
from bitcal_integrations.testing.toy import ToyModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydantic's, in LlamaIndex


class Agent(ConfidenceAgentMixin, FunctionAgent):
    pass


class Again(Event):
    pass


@pytest.mark.parametrize("needed", [7, -0.1, math.nan, "high", True])
def test_the_bound_of_a_tool_is_a_probability(needed: Any) -> None:
    with pytest.raises(BadRequest, match=r"tool_min_confidence\['pay'\]="):
        Agent(llm=ScriptedLLM([("x", 0.9)]), tool_min_confidence={"pay": needed})


@pytest.mark.parametrize("prompt", ["{foo}", "{} again", "{answer", "{answer.foo}"])
def test_the_retry_prompt_has_one_field(prompt: str) -> None:
    with pytest.raises(BadRequest, match="retry_prompt="):
        Agent(llm=ScriptedLLM([("x", 0.9)]), retry_prompt=prompt)


@pytest.mark.parametrize("answer", [7, -1, math.nan])
def test_a_gate_takes_probabilities(answer: float) -> None:
    with pytest.raises(BadRequest, match="is not a number from 0 to 1"):
        gate(answer, 0.7, accept=StopEvent, reject=Again)


@pytest.mark.parametrize("events", [{"accept": "x"}, {"reject": str}])
def test_a_gate_gives_events(events: Any) -> None:
    name = next(iter(events))
    with pytest.raises(BadRequest, match=f"{name}=.* is no event"):
        gate(0.9, 0.7, **{"accept": StopEvent, "reject": Again, **events})


def test_the_fallbacks_are_a_list() -> None:
    one, two = ScriptedEngine(response("a", 0.9)), ScriptedEngine(response("b", 0.9))
    with pytest.raises(BadRequest, match=r"fallback_query_engines=.* must be a list"):
        ConfidenceFallbackQueryEngine(one, two)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"fallbacks=.* must be a list"):
        ConfidenceFallbackWorkflow(one, two)  # type: ignore[arg-type]


def test_a_scorer_predicts() -> None:
    with pytest.raises(BadRequest, match="scorer=5 has no predict"):
        ConfidenceFallbackQueryEngine(ScriptedEngine(response("a", 0.9)), scorer=5)


def test_one_kind_of_error_may_be_handled_by_engines_too() -> None:
    broken, other = ScriptedEngine(ValueError("gone")), ScriptedEngine(response("b", 0.9))
    assert str(ConfidenceFallbackQueryEngine(broken, [other], handle=ValueError).query("?")) == "b"
    with pytest.raises(BadRequest, match="classes of Exception"):
        ConfidenceFallbackQueryEngine(broken, [other], handle=5)  # type: ignore[arg-type]


async def test_a_batch_is_a_list() -> None:
    llm = BitCalLLM(model=ToyModel({}))
    with pytest.raises(BadRequest, match="prompts='one' must be a list"):
        llm.complete_batch("one")
    with pytest.raises(BadRequest, match="prompts='one' must be a list"):
        await llm.acomplete_batch("one")


def test_a_completion_is_no_rag_answer() -> None:
    with pytest.raises(BadRequest, match="no response of a query engine"):
        RAGConfidence().predict("?", CompletionResponse(text="four"))


@pytest.mark.parametrize(
    "data",
    [None, {}, {"kind": "rag", "version": 1}, {**RAGConfidence().to_dict(), "calibrator": {}}],
)
def test_half_a_rag_confidence_is_refused(data: Any) -> None:
    with pytest.raises(CalibrationError):
        RAGConfidence.from_dict(data)
