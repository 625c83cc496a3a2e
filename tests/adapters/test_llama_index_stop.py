"""Early stops in LlamaIndex: what passes through, what comes back, who takes over from a hopeless
answer."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from adapters.early_stops import GIVES_UP, PROMPTS, SETTLES, certified
from adapters.llama_index_help import engine_of
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, response
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.workflow import Event, StopEvent

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index import (
    BitCalLLM,
    ConfidenceFallbackLLM,
    ConfidenceFallbackQueryEngine,
    ConfidenceFallbackWorkflow,
    gate,
    get_confidence,
    with_confidence,
)
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record

PROMPT = PROMPTS[0]
BIG = "from the big one"


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32") as model:
        yield model


@pytest.fixture
def llm(model: CalibratedModel) -> BitCalLLM:
    return BitCalLLM(model=model, max_tokens=160, early_stop=SETTLES)


@pytest.fixture
def hopeless(model: CalibratedModel) -> BitCalLLM:
    return BitCalLLM(model=model, max_tokens=160, early_stop=GIVES_UP)


def stops(model: CalibratedModel, prompt: str = PROMPT) -> Record:
    return model.ask(prompt, max_new_tokens=160, early_stop=SETTLES)


# ---- what passes through, and what comes back ------------------------------------------------


async def test_a_settled_answer_on_every_endpoint(model: CalibratedModel, llm: BitCalLLM) -> None:
    record, chat = stops(model), [ChatMessage(PROMPT)]
    assert record.generation.n_tokens < model.ask(PROMPT, max_new_tokens=160).generation.n_tokens
    streamed = [
        [*llm.stream_complete(PROMPT)], [*llm.stream_chat(chat)],
        [c async for c in await llm.astream_complete(PROMPT)],
        [c async for c in await llm.astream_chat(chat)],
    ]  # fmt: skip
    for chunks in streamed:
        assert "".join(chunk.delta or "" for chunk in chunks) == record.text
        assert "#### " in "".join(chunk.delta or "" for chunk in chunks[-6:])
    answers = [
        llm.complete(PROMPT), llm.chat(chat), await llm.acomplete(PROMPT), await llm.achat(chat),
        *(chunks[-1] for chunks in streamed),
    ]  # fmt: skip
    for answer in answers:
        assert answer.raw["text"] == record.text
        assert answer.raw["bitcal"] == record.bitcal()
        assert answer.raw["bitcal"]["finish"] == "settled"
        assert answer.raw["bitcal"]["stopped"]["rule"] == "trial_probability >= 0.9"
        assert answer.raw["finish_reason"] == "stop"
        assert answer.raw["usage"]["completion_tokens"] == record.generation.n_tokens
        json.dumps(answer.raw)


def test_as_the_option_of_a_call(model: CalibratedModel) -> None:
    plain = BitCalLLM(model=model, max_tokens=160)
    for value in (SETTLES, SETTLES.to_dict()):
        assert plain.complete(PROMPT, early_stop=value).text == stops(model).text
    batch = plain.complete_batch(PROMPTS, early_stop=SETTLES)
    assert [answer.text for answer in batch] == [stops(model, p).text for p in PROMPTS]


def test_a_certificate_gives_the_confidence_of_its_exits(model: CalibratedModel) -> None:
    llm = BitCalLLM(model=model, max_tokens=160, early_stop=certified())
    confidence = get_confidence(llm.complete(PROMPT))
    assert confidence.calibrated
    assert confidence.value is not None
    assert confidence.value > 0.8


def test_an_engine_tells_it(model: CalibratedModel, llm: BitCalLLM) -> None:
    class Alone(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            return str(llm.complete(query_str).text)

    told = with_confidence(Alone()).query(PROMPT).metadata["bitcal"]
    assert told["finish"] == "settled"
    assert told["stopped"] == stops(model).bitcal()["stopped"]


def test_a_preset_without_a_certificate_says_why_it_does_nothing(model: CalibratedModel) -> None:
    bare = BitCalLLM(model=model.without_profile(), max_tokens=160, early_stop="balanced")
    told = bare.complete(PROMPT).raw["bitcal"]["stopped"]
    assert told["level"] is None
    assert "early_stop='balanced'" in told["reason"]


def test_a_wrong_value_is_refused_at_once() -> None:
    with pytest.raises(BadRequest, match="early_stop='quick' is not allowed: it must be"):
        BitCalLLM(model=ToyModel({}), early_stop="quick")
    with pytest.raises(BadRequest, match="early_stop='quick' is not allowed"):
        BitCalLLM(model=ToyModel({})).complete("q", early_stop="quick")


@pytest.mark.parametrize("value", ["fast", SETTLES, certified()])
def test_it_is_saved_and_read_back(value: Any) -> None:
    llm = BitCalLLM(weights="qint4", max_tokens=8, early_stop=value)
    data = json.loads(json.dumps(llm.to_dict()))
    for again in (BitCalLLM.from_dict(data), pickle.loads(pickle.dumps(llm))):
        assert again.early_stop == llm.early_stop
        assert again.to_dict() == llm.to_dict()


# ---- who takes over from a hopeless answer ---------------------------------------------------


def test_a_hopeless_answer_is_unknown(hopeless: BitCalLLM) -> None:
    told = hopeless.complete(PROMPT).raw["bitcal"]
    assert (told["finish"], told["confidence"]) == ("hopeless", None)
    assert told["reason"] == "no_answer: given up early (tokens <= 1e+09)"
    given = with_confidence(engine_of(hopeless, "A passage.")).query(PROMPT)
    assert given.metadata["confidence"] is None
    assert given.metadata["bitcal"]["finish"] == "hopeless"


async def test_an_engine_and_an_llm_hand_it_on(hopeless: BitCalLLM) -> None:
    engine = ConfidenceFallbackQueryEngine(
        engine_of(hopeless, "A passage."), [ScriptedEngine(response(BIG, 0.9))], min_confidence=0.5
    )
    for answer in (engine.query(PROMPT), await engine.aquery(PROMPT)):
        assert str(answer) == BIG
        first = answer.metadata["bitcal"]["route"]["attempts"][0]
        assert first["finish"] == "hopeless"
        assert first["decision"]["reason"].startswith("unknown: no_answer: given up early")
    llm = ConfidenceFallbackLLM([hopeless, ScriptedLLM([(BIG, 0.9)])], min_confidence=0.5)
    assert llm.complete(PROMPT).text == BIG
    assert [*llm.stream_complete(PROMPT)][-1].text.strip() == BIG


async def test_workflows_hand_it_on(hopeless: BitCalLLM) -> None:
    flow = ConfidenceFallbackWorkflow(hopeless, [ScriptedLLM([(BIG, 0.9)])], min_confidence=0.5)
    assert str(await flow.run(question=PROMPT)) == BIG

    class Again(Event): ...

    assert isinstance(gate(hopeless.complete(PROMPT), 0.1, accept=StopEvent, reject=Again), Again)


def test_whoever_is_not_sure_is_given_before_it(hopeless: BitCalLLM) -> None:
    unsure = ScriptedLLM([("unsure", 0.1)])
    for llms in ((hopeless, unsure), (unsure, hopeless)):
        llm = ConfidenceFallbackLLM(list(llms), min_confidence=0.5)
        assert llm.complete(PROMPT).text == "unsure"
