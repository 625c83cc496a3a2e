"""ConfidenceEvaluator, by itself and in the engines and runners that take evaluators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from adapters.scripted_llm import ScriptedEngine, response
from llama_index.core import Settings
from llama_index.core.base.response.schema import PydanticResponse, Response
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.evaluation import BatchEvalRunner
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetryQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode

from bitcal_integrations.decide import as_policy, certify_threshold
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index.evaluator import ConfidenceEvaluator
from bitcal_integrations.llama_index.wrap import with_confidence


@pytest.fixture
def _some_llm() -> Iterator[None]:
    """RetryQueryEngine asks Settings for an llm that it never uses."""
    before, Settings._llm = Settings._llm, MockLLM()
    yield
    Settings._llm = before


def test_passes_what_is_certain_enough() -> None:
    node = NodeWithScore(node=TextNode(text="a passage"))
    result = ConfidenceEvaluator(0.7).evaluate_response("?", response("four", 0.9, [node]))
    assert (result.passing, result.score, result.invalid_result) == (True, 0.9, False)
    assert (result.query, result.response, result.contexts) == ("?", "four", ["a passage"])
    low = ConfidenceEvaluator(0.95).evaluate_response("?", response("four", 0.9))
    assert (low.passing, low.score) == (False, 0.9)
    assert low.feedback == "confidence too low: 0.90 < 0.95"


def test_unknown_follows_the_policy() -> None:
    result = ConfidenceEvaluator().evaluate_response("?", Response("four"))
    assert (result.passing, result.score) == (False, None)
    assert ConfidenceEvaluator(on_unknown="accept").evaluate_response("?", Response("4")).passing
    # A runner would wait and try three times if this raised.
    raising = ConfidenceEvaluator(as_policy(0.7, on_unknown="raise"))
    assert raising.evaluate_response("?", Response("four")).passing is False


def test_a_certificate_is_a_policy() -> None:
    p, y = [0.9] * 500 + [0.2] * 500, [1] * 500 + [0] * 500
    evaluator = ConfidenceEvaluator(certify_threshold(p, y, max_error=0.1, delta=0.1))
    assert evaluator.evaluate_response("?", response("four", 0.95)).passing
    assert not evaluator.evaluate_response("?", response("four", 0.1)).passing


def test_a_text_alone_is_invalid() -> None:
    result = ConfidenceEvaluator().evaluate("?", "four")
    assert result.invalid_result
    assert result.passing is None
    assert "carries no confidence" in result.invalid_reason
    assert ConfidenceEvaluator().evaluate_response("?").invalid_result


def test_a_model_as_response_has_a_text() -> None:
    class City(BaseModel):
        name: str

    result = ConfidenceEvaluator().evaluate_response("?", PydanticResponse(City(name="Paris")))
    assert result.response == '{"name":"Paris"}'


@pytest.mark.usefixtures("_some_llm")
def test_in_a_retry_engine() -> None:
    inner = ScriptedEngine(response("four", 0.2), response("five", 0.9))
    engine = RetryQueryEngine(with_confidence(inner), ConfidenceEvaluator(0.7))
    assert str(engine.query("2+3?")) == "five"
    assert len(inner.asked) == 2
    assert "confidence too low: 0.20 < 0.70" in inner.asked[1]
    assert "2+3?" in inner.asked[1]


@pytest.mark.usefixtures("_some_llm")
async def test_in_a_retry_engine_async() -> None:
    inner = ScriptedEngine(response("four", 0.9))
    engine = RetryQueryEngine(with_confidence(inner), ConfidenceEvaluator(0.7))
    assert str(await engine.aquery("?")) == "four"


@pytest.mark.filterwarnings("ignore:asyncio_module:DeprecationWarning")  # its own
async def test_in_a_batch_runner() -> None:
    runner = BatchEvalRunner({"confidence": ConfidenceEvaluator(0.7)}, workers=2)
    responses = [response("four", 0.9), response("five", 0.3), Response("six")]
    results = await runner.aevaluate_responses(["a", "b", "c"], responses)
    assert [r.passing for r in results["confidence"]] == [True, False, False]
    assert [r.score for r in results["confidence"]] == [0.9, 0.3, None]
    strings = await runner.aevaluate_response_strs(["a"], ["four"])
    assert strings["confidence"][0].invalid_result


@pytest.mark.filterwarnings("ignore:asyncio_module:DeprecationWarning")
async def test_a_runner_that_asks_the_engine() -> None:
    runner = BatchEvalRunner({"confidence": ConfidenceEvaluator(0.7)})
    engine = with_confidence(ScriptedEngine(response("four", 0.9)))
    results = await runner.aevaluate_queries(engine, ["a", "b"])
    assert [r.passing for r in results["confidence"]] == [True, True]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(BadRequest, match="threshold"):
        ConfidenceEvaluator(1.5)
    with pytest.raises(BadRequest, match="same twice"):
        ConfidenceEvaluator(0.5, min_confidence=0.5)
    assert ConfidenceEvaluator().get_prompts() == {}
