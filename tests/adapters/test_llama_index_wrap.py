"""with_confidence: every engine, every way to ask, one query's confidence never another's."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from adapters.llama_index_help import Held, Saying, Texts, engine_of
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import Response
from llama_index.core.chat_engine import (
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import QueryBundle

from bitcal_integrations.errors import BadRequest, LowConfidenceError, UnknownName
from bitcal_integrations.llama_index import BitCalLLM, get_confidence, with_confidence
from bitcal_integrations.llama_index.collector import note
from bitcal_integrations.testing._llama_index_help import events, memory
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record

CITIES = {"France": ("Paris", 0.9), "Italy": ("Rome", 0.6), "Spain": ("Madrid", 0.3)}


class Oracle(ToyModel):
    """Answers a prompt by the country that is named last in it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__({}, **kwargs)
        self._table.look_up = self._look_up  # type: ignore[method-assign]

    def _look_up(self, request: Any) -> tuple[str, float | None]:
        text = request.prompt if isinstance(request.prompt, str) else str(request.prompt[-1])
        named = [(text.rfind(country), country) for country in CITIES if country in text]
        return CITIES[max(named)[1]] if named else ("I do not know.", None)


@pytest.fixture
def llm() -> BitCalLLM:
    return BitCalLLM(model=Oracle())


def check(response: Any, country: str) -> None:
    text, confidence = CITIES[country]
    assert str(response) == text
    assert response.metadata["confidence"] == confidence
    assert get_confidence(response).value == confidence
    assert response.metadata["bitcal"]["confidence"] == confidence
    json.dumps(response.metadata)


class TestQueryEngines:
    """One query."""

    def test_the_confidence_stands_beside_the_nodes(self, llm: BitCalLLM) -> None:
        response = with_confidence(engine_of(llm, "some text")).query("Capital of France?")
        check(response, "France")
        assert response.metadata["n0"] == {"at": 0}
        assert response.metadata["bitcal"] == Oracle().ask("Capital of France?").bitcal() | {
            "signals": response.metadata["bitcal"]["signals"]
        }

    async def test_async(self, llm: BitCalLLM) -> None:
        check(await with_confidence(engine_of(llm, "a")).aquery("Capital of Italy?"), "Italy")

    def test_a_stream_is_unknown_until_it_is_read(self, llm: BitCalLLM) -> None:
        engine = with_confidence(engine_of(llm, "a", streaming=True))
        response = engine.query("Capital of France?")
        assert response.metadata["confidence"] is None
        assert "has not been read" in get_confidence(response).reason
        assert "".join(response.response_gen) == "Paris"
        assert response.metadata["confidence"] == 0.9
        again = engine.query("Capital of France?").get_response()
        check(again, "France")

    async def test_an_async_stream(self, llm: BitCalLLM) -> None:
        engine = with_confidence(engine_of(llm, "a", streaming=True))
        response = await engine.aquery("Capital of Spain?")
        assert response.metadata["confidence"] is None
        assert [text async for text in response.async_response_gen()] == ["Madrid", ""]
        assert response.metadata["confidence"] == 0.3
        check(await response.get_response(), "Spain")

    def test_a_stream_closed_early_stays_unknown(self) -> None:
        llm = BitCalLLM(model=Held({}, default=("one two three", 0.9)))
        response = with_confidence(engine_of(llm, "a", streaming=True)).query("?")
        assert next(response.response_gen) == "one"
        response.response_gen.close()
        assert response.metadata["confidence"] is None
        assert "closed before its end" in get_confidence(response).reason

    def test_nothing_found_is_unknown(self, llm: BitCalLLM) -> None:
        """LlamaIndex gives "Empty Response" without metadata there."""
        response = with_confidence(engine_of(llm)).query("Capital of France?")
        assert str(response) == "Empty Response"
        assert response.metadata["confidence"] is None
        assert response.metadata["bitcal"]["reason"] == "no BitCalLLM was asked"

    def test_another_llm_is_unknown(self) -> None:
        response = with_confidence(engine_of(MockLLM(), "a")).query("?")
        assert get_confidence(response).value is None

    def test_the_parts_of_an_engine(self, llm: BitCalLLM) -> None:
        engine = with_confidence(engine_of(llm, "a"))
        bundle = QueryBundle("Capital of Italy?")
        nodes = engine.retrieve(bundle)
        check(engine.synthesize(bundle, nodes), "Italy")
        check(asyncio.run(engine.asynthesize(bundle, nodes)), "Italy")
        assert "query_engine:response_synthesizer:text_qa_template" in engine.get_prompts()

    def test_events_of_both_engines_fire(self, llm: BitCalLLM) -> None:
        with events() as seen:
            with_confidence(engine_of(llm, "a")).query("Capital of Italy?")
        kinds = [type(event).__name__ for event in seen.seen]
        assert (kinds.count("QueryEndEvent"), kinds.count("LLMChatEndEvent")) == (2, 1)

    def test_an_engine_may_give_one_object_again_and_again(self) -> None:
        class Constant(CustomQueryEngine):
            def custom_query(self, query_str: str) -> Response:
                note(Oracle().ask(query_str))
                return SAME

        engine = with_confidence(Constant())
        for country in CITIES:
            response = engine.query(country)
            assert response.metadata["confidence"] == CITIES[country][1]
        assert SAME.metadata is None


SAME = Response("the same")


class TestSeveralCalls:
    """Engines that ask more than once for one answer."""

    def test_the_minimum_by_default(self) -> None:
        llm = BitCalLLM(model=Saying(("first", 0.4), ("second", 0.8)))
        engine = with_confidence(engine_of(llm, "a", "b", mode="refine"))
        response = engine.query("?")
        bitcal = response.metadata["bitcal"]
        assert str(response) == "second"
        assert response.metadata["confidence"] == 0.4
        assert [step["confidence"] for step in bitcal["trail"]["steps"]] == [0.4, 0.8]
        assert bitcal["raw"] == pytest.approx(0.8)  # the last call's
        assert (bitcal["calibrated"], bitcal["low"], bitcal["decision"]) == (False, None, None)
        assert bitcal["reason"] == "the minimum over 2 calls"

    @pytest.mark.parametrize(
        ("aggregate", "value"), [("product", 0.81), ("mean", 0.9), ("last", 0.9)]
    )
    def test_other_aggregates(self, aggregate: str, value: float) -> None:
        llm = BitCalLLM(model=ToyModel({}, default=("x", 0.9)))
        engine = with_confidence(engine_of(llm, "a", "b", mode="refine"), aggregate)
        assert engine.query("?").metadata["confidence"] == pytest.approx(value)

    def test_one_unknown_call_makes_it_unknown(self, llm: BitCalLLM) -> None:
        class Two(CustomQueryEngine):
            def custom_query(self, query_str: str) -> str:
                llm.complete("France")
                return llm.complete("Utopia").text

        response = with_confidence(Two()).query("?")
        assert response.metadata["confidence"] is None
        assert "the table gives no confidence" in response.metadata["bitcal"]["reason"]

    def test_an_unknown_aggregate_is_refused(self, llm: BitCalLLM) -> None:
        with pytest.raises(UnknownName, match="'median' is not one of minimum"):
            with_confidence(engine_of(llm), aggregate="median")

    def test_what_is_no_engine_is_refused(self, llm: BitCalLLM) -> None:
        with pytest.raises(BadRequest, match="no query engine and no chat engine"):
            with_confidence(llm)


class TestChatEngines:
    """Whole, async, and as streams with a thread or a task of LlamaIndex's own."""

    def test_simple(self, llm: BitCalLLM) -> None:
        engine = with_confidence(SimpleChatEngine.from_defaults(llm=llm, memory=memory()))
        check(engine.chat("Capital of France?"), "France")
        check(engine.chat("Capital of Italy?"), "Italy")
        assert len(engine.chat_history) == 4
        assert all(not m.additional_kwargs for m in engine.chat_history)
        engine.reset()
        assert engine.chat_history == []

    async def test_simple_async(self, llm: BitCalLLM) -> None:
        engine = with_confidence(SimpleChatEngine.from_defaults(llm=llm, memory=memory()))
        check(await engine.achat("Capital of Spain?"), "Spain")

    def test_streamed(self, llm: BitCalLLM) -> None:
        engine = with_confidence(SimpleChatEngine.from_defaults(llm=llm, memory=memory()))
        response = engine.stream_chat("Capital of France?")
        assert "".join(response.response_gen) == "Paris"
        check(response, "France")

    async def test_streamed_async(self, llm: BitCalLLM) -> None:
        engine = with_confidence(SimpleChatEngine.from_defaults(llm=llm, memory=memory()))
        response = await engine.astream_chat("Capital of Italy?")
        assert "".join([text async for text in response.async_response_gen()]) == "Rome"
        check(response, "Italy")

    async def test_with_retrieval(self, llm: BitCalLLM) -> None:
        """Its stream asks the LLM in another thread, or task, than the caller's."""

        def engine() -> Any:
            found = ContextChatEngine.from_defaults(Texts("a text"), llm=llm, memory=memory())
            return with_confidence(found)

        response = engine().chat("Capital of Spain?")
        check(response, "Spain")
        assert response.source_nodes
        check(await engine().achat("Capital of Italy?"), "Italy")
        streamed = engine().stream_chat("Capital of Italy?")
        assert "".join(streamed.response_gen) == "Rome"
        check(streamed, "Italy")
        streamed = await engine().astream_chat("Capital of France?")
        assert "".join([text async for text in streamed.async_response_gen()]) == "Paris"
        check(streamed, "France")

    def test_a_chat_on_a_query_engine(self) -> None:
        """Whose first call makes one question of the chat: it counts as well."""
        llm = BitCalLLM(model=Saying(("Capital of Italy?", 0.5), ("Rome", 0.6)))
        queries = engine_of(llm, "a", streaming=True)
        engine = with_confidence(
            CondenseQuestionChatEngine.from_defaults(queries, llm=llm, memory=memory())
        )
        history = [ChatMessage("Hello"), ChatMessage("Hello", role="assistant")]
        response = engine.stream_chat("And of Italy?", history)
        assert "".join(response.response_gen) == "Rome"
        steps = response.metadata["bitcal"]["trail"]["steps"]
        assert [step["confidence"] for step in steps] == [0.5, 0.6]
        assert response.metadata["confidence"] == 0.5


class TestAtOnce:
    """Queries under way together."""

    async def test_32_queries_keep_their_own(self, llm: BitCalLLM) -> None:
        engine = with_confidence(engine_of(llm, "a"))
        countries = [list(CITIES)[i % 3] for i in range(32)]
        responses = await asyncio.gather(*(engine.aquery(f"Capital of {c}?") for c in countries))
        for response, country in zip(responses, countries, strict=True):
            check(response, country)

    async def test_queries_that_start_together_let_the_loop_in_between(self) -> None:
        """What LlamaIndex does before it asks the LLM is never done for two in a row."""
        order: list[str] = []

        class Noting(CustomQueryEngine):
            async def acustom_query(self, query_str: str) -> str:
                order.append("query")
                return query_str

            def custom_query(self, query_str: str) -> str:
                return query_str

        async def tick() -> None:
            while order.count("query") < 8:
                order.append("tick")
                await asyncio.sleep(0)

        engine = with_confidence(Noting())
        await asyncio.gather(tick(), *(engine.aquery("?") for _ in range(8)))
        assert "query query" not in " ".join(order)

    async def test_the_loop_ticks_while_the_model_is_held(self) -> None:
        held = Held({}, default=("Paris", 0.9))
        engine = with_confidence(engine_of(BitCalLLM(model=held), "a"))
        queries = [asyncio.create_task(engine.aquery("?")) for _ in range(4)]
        while len(held.waiting) < 4:  # this loop is what ticks
            await asyncio.sleep(0)
        assert not any(query.done() for query in queries)
        held.release()
        responses = await asyncio.gather(*queries)
        assert [r.metadata["confidence"] for r in responses] == [0.9] * 4


class TestErrors:
    """What passes through LlamaIndex's synthesizers."""

    @pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize"])
    def test_low_confidence_is_not_swallowed(self, mode: str) -> None:
        class Strict(Oracle):
            def ask(self, prompt: Any, **options: Any) -> Any:
                record: Record = super().ask(prompt, **options)
                raise LowConfidenceError("too low", record)

        engine = with_confidence(engine_of(BitCalLLM(model=Strict()), "a", mode=mode))
        with pytest.raises(LowConfidenceError) as caught:
            engine.query("Capital of Spain?")
        assert caught.value.record is not None
        assert caught.value.record.text == "Madrid"
