"""BitCalLLM on toys: what goes in, what comes out, keywords, copies. The suite checks the rest."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest
from adapters.llama_index_help import Held, Spy
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

from bitcal_integrations.errors import BadRequest, BatchError, BitcalError, EngineClosed
from bitcal_integrations.llama_index import BitCalLLM, get_confidence
from bitcal_integrations.llama_index.collector import collect
from bitcal_integrations.request import OPTIONS
from bitcal_integrations.testing._llama_index_help import (
    BOTH,
    Callbacks,
    called_back,
    chunks_of,
    events,
    text_of,
)
from bitcal_integrations.testing.toy import ToyModel

TABLE = {
    "Capital of France?": ("The capital is Paris.", 0.9),
    "Capital of Italy?": ("Rome", 0.4),
    "And of Utopia?": ("Nowhere", None),
}
FRANCE = "Capital of France?"


@pytest.fixture
def spy() -> Spy:
    return Spy(TABLE)


@pytest.fixture
def llm(spy: Spy) -> BitCalLLM:
    return BitCalLLM(model=spy)


class TestRaw:
    """What a response says beside its text."""

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_is_the_record_of_the_model(self, llm: BitCalLLM, endpoint: str) -> None:
        last = chunks_of(llm, endpoint, FRANCE)[-1]
        record = ToyModel(TABLE).ask(FRANCE)
        assert last.raw == {
            "text": record.text,
            "model": "toy",
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
            "finish_reason": "stop",
            "confidence": 0.9,
            "bitcal": record.bitcal(),
            "record_id": last.raw["record_id"],
        }
        assert last.additional_kwargs == {}

    def test_every_response_has_its_own(self, llm: BitCalLLM) -> None:
        first, second = llm.complete(FRANCE), llm.complete(FRANCE)
        first.raw["bitcal"]["signals"].clear()
        assert second.raw["bitcal"]["signals"]

    def test_unknown_is_none_with_the_reason(self, llm: BitCalLLM) -> None:
        raw = llm.complete("And of Utopia?").raw
        assert raw["confidence"] is None
        assert raw["bitcal"]["reason"] == "the table gives no confidence"

    def test_a_cut_answer_says_length(self, llm: BitCalLLM) -> None:
        raw = llm.complete(FRANCE, max_tokens=2).raw
        assert (raw["text"], raw["finish_reason"]) == ("The capital", "length")
        assert raw["confidence"] == get_confidence(llm.complete(FRANCE, max_tokens=2)).value

    @pytest.mark.parametrize("endpoint", [e for e in BOTH if "stream" in e])
    def test_only_the_last_chunk_has_it(self, llm: BitCalLLM, endpoint: str) -> None:
        *chunks, last = chunks_of(llm, endpoint, FRANCE)
        assert [c.delta for c in chunks] == ["The", " capital", " is", " Paris."]
        assert all(c.raw is None and c.logprobs is None for c in chunks)
        assert (last.delta, text_of(last)) == ("", "The capital is Paris.")
        assert len(last.logprobs) == 4


class TestKeywords:
    """Of the LLM and of a call."""

    def test_a_call_changes_the_request(self, llm: BitCalLLM, spy: Spy) -> None:
        llm.complete(
            FRANCE, max_tokens=9, temperature=0.5, top_p=0.8, seed=3, stop=["x"], top_logprobs=2
        )
        (request,) = spy.requests
        assert (request.max_new_tokens, request.temperature, request.top_p) == (9, 0.5, 0.8)
        assert (request.seed, request.stop, request.top_logprobs) == (3, ("x",), 2)

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_each_endpoint_takes_them(self, llm: BitCalLLM, spy: Spy, endpoint: str) -> None:
        chunks_of(llm, endpoint, FRANCE, max_tokens=1, stop=["x"], seed=None)
        (request,) = spy.requests
        assert (request.max_new_tokens, request.stop, request.seed) == (1, ("x",), None)

    def test_a_call_comes_before_the_llm_and_the_llm_before_the_model(self) -> None:
        spy = Spy(TABLE)
        spy._defaults = {"max_new_tokens": 7, "temperature": 0.25}
        llm = BitCalLLM(model=spy, max_tokens=5, stop="y")
        llm.complete(FRANCE)
        llm.complete(FRANCE, max_new_tokens=4, stop="z")
        first, second = spy.requests
        assert (first.max_new_tokens, first.temperature, first.stop) == (5, 0.25, ("y",))
        assert (second.max_new_tokens, second.stop) == (4, ("z",))

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_an_unknown_one_is_refused_by_name(self, llm: BitCalLLM, endpoint: str) -> None:
        with pytest.raises(BadRequest, match=r"'max_length'; a call takes .*max_new_tokens"):
            chunks_of(llm, endpoint, FRANCE, max_length=3)

    def test_every_option_of_ask_is_one(self, llm: BitCalLLM) -> None:
        for name in OPTIONS:
            llm.complete(FRANCE, **{name: None})

    def test_two_names_for_one_thing_are_refused(self, llm: BitCalLLM) -> None:
        with pytest.raises(BadRequest, match="say the same"):
            llm.complete(FRANCE, max_tokens=3, max_new_tokens=4)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"temperature": -1}, "temperature=-1"),
            ({"max_tokens": 0}, "max_new_tokens=0"),
            ({"parser": "no_such"}, "no_such"),
            ({"weight": "qint4"}, r"unknown argument 'weight'.*weights"),
            ({"weights": "qint4"}, r"'weights' is an argument for loading"),
        ],
    )
    def test_a_wrong_argument_is_refused_at_once(self, arguments: Any, words: str) -> None:
        with pytest.raises(BitcalError, match=words):
            BitCalLLM(model=ToyModel(TABLE), **arguments)

    def test_a_prompt_must_be_text(self, llm: BitCalLLM) -> None:
        with pytest.raises(BadRequest, match="complete takes a text"):
            llm.complete(["a"])  # type: ignore[arg-type]
        with pytest.raises(BadRequest, match="list of ChatMessage"):
            llm.chat([])


class TestPrompts:
    """How a prompt reaches the model."""

    def test_a_system_prompt_is_one_turn_whatever_the_way(self, spy: Spy) -> None:
        llm = BitCalLLM(model=spy, system_prompt="Be brief.")
        llm.complete(FRANCE)
        llm.chat([ChatMessage(FRANCE)])
        llm.predict(PromptTemplate("Capital of {c}?"), c="France")
        turns = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": FRANCE})
        assert [request.prompt for request in spy.requests] == [turns] * 3

    def test_a_template_with_a_system_turn_keeps_both(self, spy: Spy) -> None:
        llm = BitCalLLM(model=spy, system_prompt="Be brief.")
        system = ChatMessage("Be kind.", role=MessageRole.SYSTEM)
        llm.predict(ChatPromptTemplate([system, ChatMessage(FRANCE)]))
        assert spy.requests[0].prompt[0] == {"role": "system", "content": "Be brief.\n\nBe kind."}

    def test_own_functions_for_prompts(self, spy: Spy) -> None:
        llm = BitCalLLM(
            model=spy,
            completion_to_prompt=lambda text: f"<{text}>",
            messages_to_prompt=lambda messages: "|".join(m.content for m in messages),
            system_prompt="Be brief.",
        )
        llm.complete("a")
        llm.complete("a", formatted=True)
        llm.chat([ChatMessage("a"), ChatMessage("b", role=MessageRole.ASSISTANT)])
        assert [r.prompt for r in spy.requests] == ["<a>", "a", "Be brief.|a|b"]


class TestAtOnce:
    """Many prompts in one call."""

    async def test_one_ask_for_all(self, llm: BitCalLLM, spy: Spy) -> None:
        calls: list[int] = []
        ask, aask = spy.ask, spy.aask
        spy.ask = lambda p, **o: (calls.append(len(p)), ask(p, **o))[1]  # type: ignore[method-assign]
        spy.aask = lambda p, **o: (calls.append(len(p)), aask(p, **o))[1]  # type: ignore[method-assign]
        prompts = list(TABLE)
        with events() as seen, called_back(llm, Callbacks()) as handler, collect() as collector:
            found = llm.complete_batch(prompts, max_tokens=8)
            again = await llm.acomplete_batch(prompts, max_tokens=8)
        assert calls == [3, 3]
        assert [r.text for r in found] == [TABLE[p][0] for p in prompts]
        ids = {r.raw.pop("record_id") for r in (*found, *again)}
        assert len(ids) == 6
        assert [r.raw for r in again] == [r.raw for r in found]
        assert (handler.started, handler.ended, len(collector.records)) == (6, 6, 6)
        assert len([e for e in seen.seen if "CompletionEnd" in type(e).__name__]) == 6
        assert llm.complete_batch([]) == []

    def test_what_failed_is_told_with_what_came(self, spy: Spy) -> None:
        submit = spy._table.submit

        def failing(request: Any, listener: Any, steps: bool = True) -> Any:
            if "Italy" in request.prompt[-1]["content"]:
                raise EngineClosed("the model is closed")
            return submit(request, listener, steps)

        spy._table.submit = failing  # type: ignore[method-assign]
        with pytest.raises(BatchError) as caught:
            BitCalLLM(model=spy).complete_batch(list(TABLE))
        assert [isinstance(r, Exception) for r in caught.value.results] == [False, True, False]


class TestCopies:
    """By a name it can be made again; round an object it says so."""

    def test_a_loaded_object_is_not_loaded_again(self, llm: BitCalLLM, spy: Spy) -> None:
        data = json.loads(json.dumps(llm.to_dict()))
        with pytest.raises(BadRequest, match=r"'toy' was passed as an object.*model=\.\.\."):
            BitCalLLM.from_dict(data)
        assert BitCalLLM.from_dict(data, model=spy).calibrated is spy
        with pytest.raises(BitcalError, match="cannot be pickled"):
            pickle.dumps(llm)

    def test_copies_share_the_model(self, llm: BitCalLLM, spy: Spy) -> None:
        for copied in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy(deep=True)):
            assert copied.calibrated is spy

    def test_it_is_the_default_until_it_is_taken_back(self, llm: BitCalLLM) -> None:
        before = Settings._llm
        undo = llm.set_as_default()
        try:
            assert Settings.llm is llm
        finally:
            undo()
        assert Settings._llm is before

    def test_traces_see_names_only(self, llm: BitCalLLM) -> None:
        payload = llm.to_payload()
        assert payload["class_name"] == "BitCalLLM"
        assert payload["model_name"] == "toy"
        json.dumps(payload)

    def test_the_default_answer_leaves_room_for_a_prompt(self, spy: Spy) -> None:
        short = BitCalLLM(model=spy, max_tokens=100).metadata
        assert short.num_output == 100
        default = BitCalLLM(model=spy).metadata
        assert default.num_output <= default.context_window // 4


class TestStreams:
    """What happens when nobody reads on."""

    def test_a_closed_stream_cancels_the_request(self) -> None:
        held = Held(TABLE)
        stream = BitCalLLM(model=held).stream_complete(FRANCE)
        assert next(stream).delta == "The"
        stream.close()
        assert held.cancelled.is_set()

    async def test_a_cancelled_task_cancels_the_request(self) -> None:
        import asyncio

        held = Held(TABLE)
        task = asyncio.create_task(BitCalLLM(model=held).acomplete(FRANCE))
        assert await asyncio.to_thread(held.asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(held.cancelled.wait, 30)

    def test_an_error_of_a_stream_is_raised_where_it_is_read(self, spy: Spy) -> None:
        spy.close()
        with pytest.raises(EngineClosed):
            list(BitCalLLM(model=spy).stream_complete(FRANCE))

    def test_the_rate_limiter_is_asked_once(self, spy: Spy) -> None:
        class Limiter:
            asked = 0

            def acquire(self) -> None:
                self.asked += 1

        llm = BitCalLLM(model=spy, rate_limiter=Limiter())
        llm.complete(FRANCE)
        assert llm.rate_limiter.asked == 1
