"""More of the fallback LLM: what it keeps and how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from adapters.scripted_llm import ScriptedLLM, events
from llama_index.core import Settings, get_response_synthesizer
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import FunctionTool

from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index.collector import collect
from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM
from bitcal_integrations.llama_index.wrap import with_confidence


class Passage(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="a passage"), score=1.0)]


def llm(text: Any, value: float | None = 0.9, **kwargs: Any) -> ScriptedLLM:
    return ScriptedLLM([(text, value)], **kwargs)


def small_and_big(**kwargs: Any) -> tuple[ScriptedLLM, ScriptedLLM, ConfidenceFallbackLLM]:
    small, big = llm("four", 0.4, name="small"), llm("five", 0.95, name="big")
    return small, big, ConfidenceFallbackLLM([small, big], **kwargs)


class City(BaseModel):
    """A city."""

    name: str


TOOL = FunctionTool.from_defaults(fn=lambda a, b: a + b, name="add", description="adds")


CALL = {"name": "add", "a": 2, "b": 3}


def test_another_models_answer_keeps_its_own_raw() -> None:
    other = llm("five", None, ours=False)
    answer = ConfidenceFallbackLLM([llm("four", 0.1), other]).complete("?")
    assert answer.text == "five"
    assert answer.raw["usage"] == {"prompt_tokens": 3, "completion_tokens": 2}
    assert answer.raw["confidence"] is None
    assert answer.raw["bitcal"]["reason"]


def test_every_call_fires_its_own_events_and_tokens_count_once() -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    _, _, model = small_and_big(callback_manager=CallbackManager([counter]))
    with events() as seen:
        model.complete("?")
    assert seen.count("LLMCompletionStartEvent") == seen.count("LLMCompletionEndEvent") == 2
    assert len(counter.llm_token_counts) == 2
    assert counter.total_llm_token_count == 2 * 5


def test_settings_hand_their_callback_manager_on() -> None:
    small, _, model = small_and_big()
    manager = CallbackManager([])
    model.callback_manager = manager
    assert small.callback_manager is manager
    before = Settings._llm
    try:
        Settings.llm = model
        assert Settings.llm is model
    finally:
        Settings._llm = before


def test_a_query_sees_only_the_answer_that_was_given() -> None:
    with collect() as collected:
        small_and_big()[2].complete("?")
    assert [r.confidence.value for r in collected.records] == [0.95]
    with collect() as collected:
        list(small_and_big()[2].stream_complete("?"))
    assert [r.confidence.value for r in collected.records] == [0.95]
    assert not collected.open


@pytest.mark.parametrize("streaming", [False, True])
async def test_in_an_engine_the_answer_that_was_given_counts(streaming: bool) -> None:
    def engine() -> Any:
        model = small_and_big()[2]
        synthesizer = get_response_synthesizer(llm=model, streaming=streaming)
        return with_confidence(RetrieverQueryEngine(Passage(), synthesizer))

    given = engine().query("?")
    assert str(given).strip() == "five"
    assert given.metadata["confidence"] == 0.95
    given = await engine().aquery("?")
    if streaming:
        assert given.metadata["confidence"] is None
        assert "".join([piece async for piece in given.async_response_gen()]) == "five "
    assert given.metadata["confidence"] == 0.95


async def test_structured_answers_are_the_chosen_ones() -> None:
    def model(value: float | None = 0.9, **kwargs: Any) -> ConfidenceFallbackLLM:
        llms = llm('{"name": "Lyon"}', 0.2), llm('{"name": "Paris"}', value, ours=value is not None)
        for one in llms:
            one.calls_tools = False
        return ConfidenceFallbackLLM(llms, **kwargs)

    prompt = PromptTemplate("Which city?")
    with collect() as collected:
        assert model().structured_predict(City, prompt) == City(name="Paris")
        assert await model().astructured_predict(City, prompt) == City(name="Paris")
    assert [r.confidence.value for r in collected.records] == [0.9, 0.9]
    assert model(None).structured_predict(City, prompt) == City(name="Paris")  # another's: unknown
    assert model(0.1).structured_predict(City, prompt) == City(name="Lyon")  # the best
    with pytest.raises(LowConfidenceError, match="no value is certain enough"):
        model(0.1, on_exhausted="abstain").structured_predict(City, prompt)


def test_metadata_is_what_every_llm_can_do() -> None:
    model = small_and_big()[2]
    assert model.metadata.model_name == "small | big"
    assert model.metadata.is_function_calling_model
    mixed = ConfidenceFallbackLLM([llm("one"), llm("two", calls_tools=False)])
    assert not mixed.metadata.is_function_calling_model
    assert mixed.metadata.model_name == "scripted | scripted#2"
    with pytest.raises(BadRequest, match=r"scripted#2.* does not"):
        mixed.chat_with_tools([], "?")


async def test_tool_calls_are_read_by_the_llm_that_wrote_them() -> None:
    model = ConfidenceFallbackLLM([llm("no idea", 0.2), llm(CALL, 0.9)])
    for answer in (
        model.chat_with_tools([TOOL], "?"),
        await model.achat_with_tools([TOOL], "?"),
        list(model.stream_chat_with_tools([TOOL], "?"))[-1],
        [c async for c in await model.astream_chat_with_tools([TOOL], "?")][-1],
    ):
        (call,) = model.get_tool_calls_from_response(answer)
        assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 3})
    assert str(model.predict_and_call([TOOL], "?")) == "5"


def test_a_sentence_holds_no_tool_call() -> None:
    model = ConfidenceFallbackLLM([llm(CALL, 0.1)], on_exhausted="abstain")
    answer = model.chat_with_tools([TOOL], "?")
    assert model.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="no tool call"):
        model.get_tool_calls_from_response(answer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of pydantic
async def test_an_agent_runs_on_it() -> None:
    small = ScriptedLLM([("hm", 0.1), ("hm", 0.1)])
    big = ScriptedLLM([(CALL, 0.9), ("It is five.", 0.95)])
    agent = FunctionAgent(tools=[TOOL], llm=ConfidenceFallbackLLM([small, big]))
    output = await agent.run(user_msg="2 and 3?")
    assert str(output) == "It is five. "
    assert output.raw["confidence"] == 0.95
    assert output.raw["bitcal"]["route"]["escalations"] == 1


def test_wrong_arguments_are_refused_at_once() -> None:
    with pytest.raises(BadRequest, match="at least one LLM"):
        ConfidenceFallbackLLM([])
    with pytest.raises(BadRequest, match="on_exhausted='panic'"):
        ConfidenceFallbackLLM([MockLLM()], on_exhausted="panic")
    with pytest.raises(BadRequest, match="same twice"):
        ConfidenceFallbackLLM([MockLLM()], policy=0.5, min_confidence=0.5)
    with pytest.raises(BadRequest, match="different names"):
        ConfidenceFallbackLLM([MockLLM(), MockLLM()], names=["a", "a"])
    with pytest.raises(BadRequest, match="scored_by has 'b'"):
        ConfidenceFallbackLLM([MockLLM()], names=["a"], scored_by={"b": None})
    with pytest.raises(BadRequest, match="call chat_with_tools"):
        ConfidenceFallbackLLM([MockLLM()])._prepare_chat_with_tools([])
