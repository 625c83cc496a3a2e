"""What is told of calls that fail, of routes inside an engine, and by handlers attached twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, response
from llama_index.core import get_response_synthesizer
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations.errors import BatchError, EngineError
from bitcal_integrations.llama_index.collector import collect
from bitcal_integrations.llama_index.engine import ConfidenceFallbackQueryEngine
from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM
from bitcal_integrations.llama_index.handler import ConfidenceEventHandler
from bitcal_integrations.llama_index.llm import BitCalLLM
from bitcal_integrations.llama_index.wrap import confidence_of, with_confidence
from bitcal_integrations.testing._probes import watched
from bitcal_integrations.testing.toy import ToyModel


class Passage(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="a passage"), score=1.0)]


def engine(llm: Any, streaming: bool = False) -> Any:
    synthesizer = get_response_synthesizer(llm=llm, streaming=streaming)
    return RetrieverQueryEngine(Passage(), response_synthesizer=synthesizer)


@pytest.mark.parametrize("streaming", [False, True])
def test_the_route_of_an_llm_is_told_by_the_engine_round_it(streaming: bool) -> None:
    llms = [ScriptedLLM([("four", 0.3)], name="small"), ScriptedLLM([("five", 0.9)], name="big")]
    answer = with_confidence(engine(ConfidenceFallbackLLM(llms), streaming)).query("?")
    assert str(answer).strip() == "five"
    route = answer.metadata["bitcal"]["route"]
    assert [(a["name"], a["confidence"]) for a in route["attempts"]] == [
        ("small", 0.3),
        ("big", 0.9),
    ]
    assert route["chosen"] == 1


def breaks() -> Any:
    yield "fi"
    raise EngineError("gone")


async def abreaks() -> Any:
    yield "fi"
    raise EngineError("gone")


async def test_a_stream_that_breaks_is_an_attempt_too() -> None:
    def made(stream: Any) -> Any:
        return ConfidenceFallbackQueryEngine(ScriptedEngine(response("four", 0.3)), [stream])

    answer = made(ScriptedEngine(StreamingResponse(breaks()))).query("?")
    with pytest.raises(EngineError, match="gone"):
        list(answer.response_gen)
    later = await made(ScriptedEngine(AsyncStreamingResponse(abreaks()))).aquery("?")
    with pytest.raises(EngineError, match="gone"):
        [piece async for piece in later.async_response_gen()]
    for told in (answer.metadata, later.metadata):
        attempts = told["bitcal"]["route"]["attempts"]
        assert [a["error"] and a["error"].split(".")[0] for a in attempts] == [
            None, "EngineError: gone",
        ]  # fmt: skip
        assert told["bitcal"]["route"]["chosen"] is None
        assert (told["confidence"], told["bitcal"]["reason"][:17]) == (None, "the stream failed")


def test_the_stream_of_an_llm_that_breaks_is_told_with_its_error() -> None:
    class Breaks(ScriptedLLM):
        def stream_complete(self, *args: Any, **kwargs: Any) -> Any:
            yield next(iter(super().stream_complete("?")))
            raise EngineError("gone")

    with collect() as seen, pytest.raises(EngineError, match="gone"):
        list(ConfidenceFallbackLLM([Breaks([("four", 0.9)])]).stream_complete("?"))
    assert confidence_of(seen)["bitcal"]["reason"] == "the last call failed: EngineError: gone"


class Half(ToyModel):
    """Fails for one of the prompts."""

    def ask(self, prompt: Any, **options: Any) -> Any:
        raise BatchError([super().ask(prompt[0]), EngineError("gone")])

    async def aask(self, prompt: Any, **options: Any) -> Any:
        return self.ask(prompt, **options)


async def test_what_became_of_each_prompt_of_a_batch_is_told() -> None:
    llm = BitCalLLM(model=Half({}, default=("five", 0.9)))
    with collect() as seen:
        with pytest.raises(BatchError):
            llm.complete_batch(["one", "two"])
        with pytest.raises(BatchError):
            await llm.acomplete_batch(["one", "two"])
    assert not seen.open
    assert [call.record is not None for call in seen.calls] == [True, False] * 2
    assert [str(call.error) for call in seen.calls[1::2]] == ["gone"] * 2


def test_a_handler_attached_twice_hears_once_and_to_the_end() -> None:
    handler = ConfidenceEventHandler()
    llm = BitCalLLM(model=ToyModel({}, default=("five", 0.9)))
    with handler.attached():
        with handler.attached():
            llm.complete("?")
        assert len(handler.records) == 1
        llm.complete("?")
    assert len(handler.records) == 2
    llm.complete("?")
    assert len(handler.records) == 2


def test_a_watched_model_gets_its_own_forward_back() -> None:
    model, own = torch.nn.Linear(1, 1), lambda *args, **kwargs: "own"
    model.forward = own  # type: ignore[method-assign]
    with watched(model) as probe:
        assert model(torch.ones(1, 1)) == "own"
    assert probe.forwards == 1
    assert model.forward is own
    plain = torch.nn.Linear(1, 1)
    with watched(plain):
        pass
    assert "forward" not in vars(plain)
