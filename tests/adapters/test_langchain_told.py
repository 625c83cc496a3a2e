"""What chain parts say of tool calls, tokens and routes, and what a router and a schema take."""

from __future__ import annotations

import copy
from concurrent.futures import Future
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from lc_chain_help import Scripted, always, bitcal, six_ways
from pydantic import BaseModel

from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError
from bitcal_integrations.langchain import (
    BitCalLLM,
    ChatBitCal,
    ConfidenceCallbackHandler,
    ConfidenceGate,
    ConfidenceRouter,
    early_stop_chain,
)
from bitcal_integrations.langchain._batch import Gathering, _Question
from bitcal_integrations.langchain.confidence import find_record
from bitcal_integrations.testing.toy import ToyModel


class P(BaseModel):
    """A number."""

    a: int


# ---- a model of its own ------------------------------------------------------------------------


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def chat(asked: list[Any]) -> ChatBitCal:
    toy = ToyModel({"q": ('{"a": 3}', 0.9)})
    toy.add_sink(lambda record: asked.append(record.request))
    return ChatBitCal(model=toy)


# ---- tool calls, records and tokens ----------------------------------------------------------


def calling(value: float) -> Scripted:
    return Scripted(say=lambda _: ("", None, "pay", {"amount": 5}, value))


@pytest.mark.parametrize(("value", "text"), [(0.99, ""), (0.5, "else")])
def test_a_router_and_a_gate_judge_calls_by_their_confidence(value: float, text: str) -> None:
    router = ConfidenceRouter(calling(value), [always("else", 0.95)], min_confidence=0.9)
    answer = router.invoke("q")
    assert (answer.text, len(answer.tool_calls)) == (text, 0 if text else 1)
    heard = ConfidenceRouter(calling(value) | bool, [lambda _: "else"], min_confidence=0.9)
    assert heard.invoke("q") == (text or True)
    chain = calling(value) | ConfidenceGate(min_confidence=0.9)
    if text:
        with pytest.raises(LowConfidenceError, match=r"0\.50 < 0\.90"):
            chain.invoke("q")
    else:
        assert chain.invoke("q").tool_calls


def test_no_handler_ends_a_chain_before_its_tools_have_run() -> None:
    handler = ConfidenceCallbackHandler(stop_above=0.9)
    assert calling(0.99).invoke("q", {"callbacks": [handler]}).tool_calls
    assert handler.confidence == 0.99


def test_the_tokens_of_a_text_model_are_told() -> None:
    llm = BitCalLLM(model=ToyModel({"q": ("Paris is big", 0.65)}))
    record = find_record(llm.generate(["q"]))
    assert record is not None
    assert record.generation.n_tokens == llm.calibrated_model.ask("q").generation.n_tokens > 0


def test_the_chosen_record_keeps_its_prompt_and_tokens() -> None:
    handler = ConfidenceCallbackHandler()
    router = ConfidenceRouter(always("Lyon", 0.3), [always("It is Paris", 0.9)], min_confidence=0.7)
    router.invoke("Capital?", {"callbacks": [handler]})
    (record,) = handler.records
    assert record.request.prompt == ({"role": "user", "content": "Capital?"},)
    assert (record.text, record.generation.n_tokens) == ("It is Paris", 3)
    assert record.decision is not None
    assert record.decision.action == "accept"


def test_a_step_has_spent_the_tokens_of_its_drafts_too() -> None:
    step = ConfidenceRouter(always("a b", 0.3), [always("c d e", 0.65)], min_confidence=0.6)
    chain = early_stop_chain(
        [lambda x: AIMessage(x, response_metadata={"bitcal": bitcal(float(x))}), step],
        stop_above=0.7, carry=lambda _, x: x,
    )  # fmt: skip
    chain.invoke("0.1")
    saved = chain.invoke("0.9").response_metadata["bitcal"]["steps"]["saved"]
    assert saved == {"steps": 1, "tokens": 5}


def test_a_handlers_aggregate_holds_over_the_steps_of_a_chain() -> None:
    handler = ConfidenceCallbackHandler(aggregate="product")
    chain = early_stop_chain([always("a", 0.5), always("b", 0.8)], stop_above=0.9)
    chain.invoke("q", {"callbacks": [handler]})
    assert handler.confidence == pytest.approx(0.4)
    assert copy.deepcopy(handler).confidence == handler.confidence


def test_a_fallbacks_answer_stands_alone() -> None:
    handler = ConfidenceCallbackHandler(aggregate="product")
    chain = early_stop_chain([always("a", 0.1)], stop_below=0.3, fallback=always("c", 0.8))
    chain.invoke("q", {"callbacks": [handler]})
    assert [record.text for record in handler.records] == ["c"]


# ---- what a router says of itself ------------------------------------------------------------


async def test_the_confidence_beside_the_decision_is_the_one_that_was_judged() -> None:
    chain = always("a", 0.5) | (lambda m: m.text) | always("b", 0.9)
    router = ConfidenceRouter(chain, [], min_confidence=0.6, aggregate="product")
    for answer in (await six_ways(router, "q")).values():
        told = answer.response_metadata["bitcal"]
        assert told["confidence"] == pytest.approx(0.45)
        assert told["decision"]["reason"] == "0.45 < 0.60"


def test_a_stream_of_dicts_tells_the_route() -> None:
    def one(_: Any) -> Any:
        return {"messages": [always("Paris", 0.9).invoke("q")]}

    router = ConfidenceRouter(one, [], min_confidence=0.7)
    (chunk,) = list(router.stream("q"))
    told = chunk["messages"][0].response_metadata["bitcal"]
    assert told["route"] == router.invoke("q")["messages"][0].response_metadata["bitcal"]["route"]


@pytest.mark.parametrize("fallbacks", [None, "gpt", 3])
def test_fallbacks_that_are_none(fallbacks: Any) -> None:
    with pytest.raises(BadRequest, match="fallbacks="):
        ConfidenceRouter(always("a", 0.5), fallbacks, min_confidence=0.7)


@pytest.mark.parametrize("key", ["type", "properties"])
def test_a_schema_needs_no_title(chat: ChatBitCal, asked: list[Any], key: str) -> None:
    whole: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
    schema = {key: whole[key]}
    assert chat.with_structured_output(schema).invoke("q") == {"a": 3}
    assert asked[-1].response_schema == schema


def test_an_interrupt_loses_no_question_of_a_batch() -> None:
    gathering = Gathering(1, 1)
    told = _Question(ToyModel({"q": ("Paris", 0.9)}), "q", {}, Future())
    waits = _Question(told.model, "q", {}, Future())
    told.answer.set_result("told")
    gathering._waiting = [told, waits]
    gathering._close()
    assert told.answer.result() == "told"
    with pytest.raises(EngineError, match="cancelled"):
        waits.answer.result(timeout=1)
