"""Early stops in LangChain: what passes through, what comes back, who takes over from a hopeless
answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from adapters.early_stops import GIVES_UP, PROMPTS, SETTLES, certified
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps
from lc_chain_help import added, always, six_ways

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.decide import StopPlan, StopRule
from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.langchain import (
    BitCalLLM,
    ChatBitCal,
    ConfidenceFallbackMiddleware,
    ConfidenceGate,
    ConfidenceRouter,
    early_stop_chain,
    get_confidence,
)
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record

FULL = {"max_tokens": 160}
PROMPT = PROMPTS[0]
Kinds = pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32") as model:
        yield model


@pytest.fixture
def chat(model: CalibratedModel) -> ChatBitCal:
    return ChatBitCal(model=model, **FULL)


def stops(model: CalibratedModel, prompt: str = PROMPT) -> Record:
    return model.ask(prompt, max_new_tokens=160, early_stop=SETTLES)


def bitcal(message: Any) -> dict[str, Any]:
    return message.response_metadata["bitcal"]


# ---- what passes through, and what comes back ----------------------------------------------------


async def test_a_settled_answer_in_every_way(model: CalibratedModel, chat: ChatBitCal) -> None:
    record, full = stops(model), model.ask(PROMPT, max_new_tokens=160)
    assert record.generation.n_tokens < full.generation.n_tokens
    by_field = ChatBitCal(model=model, early_stop=SETTLES, **FULL)
    for runnable in (by_field, chat.bind(early_stop=SETTLES)):
        for message in (await six_ways(runnable, PROMPT)).values():
            assert message.text == record.text
            assert bitcal(message) == record.bitcal()
            assert bitcal(message)["finish"] == "settled"
            assert bitcal(message)["stopped"]["rule"] == "trial_probability >= 0.9"
            assert message.response_metadata["finish_reason"] == "stop"
            assert message.usage_metadata["output_tokens"] == record.generation.n_tokens
            json.dumps(message.response_metadata)


async def test_a_stream_carries_the_closing_and_the_answer(
    model: CalibratedModel, chat: ChatBitCal
) -> None:
    chunks = list(chat.stream(PROMPT, early_stop=SETTLES))
    assert added(chunks).text == stops(model).text
    assert "#### " in "".join(chunk.text for chunk in chunks[-5:])
    told = [c for c in chunks if "bitcal" in c.response_metadata]
    assert told == chunks[-1:]
    async_chunks = [c async for c in chat.astream(PROMPT, early_stop=SETTLES)]
    assert [c.text for c in async_chunks] == [c.text for c in chunks]


def test_a_batch_stops_each_on_its_own(model: CalibratedModel, chat: ChatBitCal) -> None:
    answers = chat.batch(PROMPTS, early_stop=SETTLES)
    assert [a.text for a in answers] == [stops(model, prompt).text for prompt in PROMPTS]


async def test_a_completion_model_stops_too(model: CalibratedModel) -> None:
    record = stops(model)
    llm = BitCalLLM(model=model, early_stop=SETTLES, **FULL)
    for result in (llm.generate([PROMPT]), await llm.agenerate([PROMPT])):
        info = result.generations[0][0].generation_info
        assert info["bitcal"] == record.bitcal()
    assert "".join(llm.stream(PROMPT)) == record.text == llm.invoke(PROMPT)


def test_a_certificate_gives_the_confidence_of_its_exits(chat: ChatBitCal) -> None:
    certificate = certified()
    message = chat.invoke(PROMPT, early_stop=certificate)
    confidence = get_confidence(message)
    assert confidence.calibrated
    assert confidence.value is not None
    assert confidence.value > 0.8
    router = ConfidenceRouter(
        chat.bind(early_stop=certificate.to_dict()), [always("b", 0.9)], min_confidence=0.8
    )
    assert router.invoke(PROMPT).text == message.text


def test_a_call_may_turn_it_off(model: CalibratedModel) -> None:
    chat = ChatBitCal(model=model, early_stop=SETTLES, **FULL)
    full = chat.invoke(PROMPT, early_stop=None)
    assert bitcal(full)["finish"] in ("answer", "stop")
    assert bitcal(full)["stopped"] is None


def test_a_preset_without_a_certificate_says_why_it_does_nothing(
    model: CalibratedModel, chat: ChatBitCal
) -> None:
    bare = ChatBitCal(model=model.without_profile(), early_stop="balanced", **FULL)
    told = bitcal(bare.invoke(PROMPT))["stopped"]
    assert told["level"] is None
    assert "early_stop='balanced'" in told["reason"]
    assert bare.invoke(PROMPT).text == chat.invoke(PROMPT).text


def test_a_wrong_value_is_refused_at_once(chat: ChatBitCal) -> None:
    for kind in (ChatBitCal, BitCalLLM):
        with pytest.raises(BadRequest, match="early_stop='quick' is not allowed: it must be"):
            kind(model=ToyModel({}), early_stop="quick")
    with pytest.raises(BadRequest, match="early_stop='quick' is not allowed"):
        chat.invoke(PROMPT, early_stop="quick")


def test_a_form_cannot_be_left_early(chat: ChatBitCal) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    pytest.importorskip("llguidance")
    with pytest.raises(BadRequest, match="early_stop cannot be combined with tools or response"):
        chat.bind(early_stop=SETTLES).with_structured_output(schema).invoke(PROMPT)


# ---- keys and copies -------------------------------------------------------------------------


class Counted(ToyModel):
    """Counts how often it was asked, and takes plans, though it has nothing to end early."""

    asked = 0

    def __init__(self, table: Any) -> None:
        super().__init__(table)
        self._table.stops_early = True  # type: ignore[attr-defined]

    def ask(self, prompt: Any, **options: Any) -> Any:
        self.asked += 1
        return super().ask(prompt, **options)


@Kinds
def test_another_early_stop_is_another_key(kind: Any) -> None:
    model, cache = Counted({"q": ("Paris", 0.9)}), InMemoryCache()
    other = StopPlan(settled=StopRule("settled", "trial_probability", 0.8))
    values = [None, "balanced", "fast", SETTLES, other, certified()]
    for value in values:
        kind(model=model, cache=cache, early_stop=value).invoke("q")
    assert model.asked == len(values)
    again = StopPlan.from_dict(json.loads(json.dumps(SETTLES.to_dict())))
    for value in ("balanced", again, certified()):
        kind(model=model, cache=cache, early_stop=value).invoke("q")
    assert model.asked == len(values)


@Kinds
def test_of_a_call_too(kind: Any) -> None:
    model = Counted({"q": ("Paris", 0.9)})
    llm = kind(model=model, cache=InMemoryCache())
    for value in ("fast", SETTLES, certified(), SETTLES.to_dict()):
        llm.invoke("q", early_stop=value)
    assert model.asked == 4
    for value in ("fast", StopPlan.from_dict(SETTLES.to_dict()), certified()):
        llm.invoke("q", early_stop=value)
    assert model.asked == 4


def test_it_is_named_in_traces_and_copied(model: CalibratedModel) -> None:
    chat = ChatBitCal(model=model, early_stop=SETTLES)
    assert chat._identifying_params["early_stop"].startswith("StopPlan-")
    assert ChatBitCal(model=model, early_stop="fast")._identifying_params["early_stop"] == "fast"
    assert chat.model_copy(deep=True).early_stop == SETTLES
    json.loads(dumps(chat))
    json.loads(dumps(chat.bind(early_stop=SETTLES)))
    assert json.loads(dumps(chat.bind(early_stop="fast")))["kwargs"]["kwargs"] == {
        "early_stop": "fast"
    }


# ---- who takes over from a hopeless answer ---------------------------------------------------


@pytest.fixture
def hopeless(model: CalibratedModel) -> ChatBitCal:
    return ChatBitCal(model=model, early_stop=GIVES_UP, **FULL)


def test_a_hopeless_answer_is_unknown(hopeless: ChatBitCal) -> None:
    told = bitcal(hopeless.invoke(PROMPT))
    assert told["finish"] == "hopeless"
    assert told["confidence"] is None
    assert told["reason"] == "no_answer: given up early (tokens <= 1e+09)"
    assert told["stopped"]["level"] == "hopeless"


async def test_a_router_hands_it_on(hopeless: ChatBitCal) -> None:
    router = hopeless.with_confidence_fallback([always("from the big one", 0.9)])
    for answer in (await six_ways(router, PROMPT)).values():
        assert answer.text == "from the big one"
        first = bitcal(answer)["route"]["attempts"][0]
        assert first["finish"] == "hopeless"
        assert first["decision"]["action"] == "escalate"
        assert first["decision"]["reason"].startswith("unknown: no_answer: given up early")


def test_whoever_is_not_sure_is_given_before_it(hopeless: ChatBitCal) -> None:
    for value in (0.1, None):
        router = ConfidenceRouter(hopeless, [always("unsure", value)], min_confidence=0.7)
        assert router.invoke(PROMPT).text == "unsure"
        router = ConfidenceRouter(always("unsure", value), [hopeless], min_confidence=0.7)
        assert router.invoke(PROMPT).text == "unsure"


def test_on_unknown_decides_about_it(hopeless: ChatBitCal) -> None:
    other = always("from the big one", 0.9)
    raises = ConfidenceRouter(hopeless, [other], min_confidence=0.7, on_unknown="raise")
    with pytest.raises(LowConfidenceError, match="given up early"):
        raises.invoke(PROMPT)
    accepts = ConfidenceRouter(hopeless, [other], min_confidence=0.7, on_unknown="accept")
    assert bitcal(accepts.invoke(PROMPT))["finish"] == "hopeless"


def test_a_gate_refuses_it(hopeless: ChatBitCal) -> None:
    gated = hopeless | ConfidenceGate(min_confidence=0.1)
    with pytest.raises(LowConfidenceError, match="given up early") as refused:
        gated.invoke(PROMPT)
    assert refused.value.record is not None
    assert refused.value.record.generation.finish == "hopeless"
    behind = gated.with_fallbacks(
        [always("from the big one", 0.9)], exceptions_to_handle=(LowConfidenceError,)
    )
    assert behind.invoke(PROMPT).text == "from the big one"


def test_a_chain_goes_on_behind_it(hopeless: ChatBitCal) -> None:
    chain = early_stop_chain([hopeless, always("b", 0.9)], stop_above=0.5, stop_below=0.1)
    assert chain.invoke(PROMPT).text == "b"


def test_a_stream_shows_nothing_of_it(hopeless: ChatBitCal) -> None:
    router = hopeless.with_confidence_fallback([always("from the big one", 0.9)])
    assert added(list(router.stream(PROMPT))).text == "from the big one"


def test_an_agents_step_is_taken_by_the_fallback(hopeless: ChatBitCal) -> None:
    agents = pytest.importorskip("langchain.agents")
    middleware = ConfidenceFallbackMiddleware(always("from the big one", 0.9), min_confidence=0.5)
    agent = agents.create_agent(hopeless, [], middleware=[middleware])
    state = agent.invoke({"messages": [("user", PROMPT)]})
    assert [m.text for m in state["messages"]] == [PROMPT, "from the big one"]
    assert state["bitcal_trace"][0]["attempts"][0]["finish"] == "hopeless"
