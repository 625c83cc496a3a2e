"""The collector: whose call a call is, in blocks inside blocks and in streams read later."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from adapters.llama_index_help import Held, engine_of
from llama_index.core.query_engine import CustomQueryEngine

from bitcal_integrations.errors import EngineError, PromptTooLong
from bitcal_integrations.llama_index import BitCalLLM, with_confidence
from bitcal_integrations.llama_index.collector import Collector, collect, note, seen_by, start_call
from bitcal_integrations.testing.toy import ToyModel

TOY = ToyModel({}, default=("Paris", 0.9))


def test_a_block_inside_is_seen_outside_unless_it_hides() -> None:
    record = TOY.ask("?")
    with collect() as outer:
        with collect() as inner:
            note(record)
        with collect(hide=True) as hidden:
            note(record)
    assert [len(c.records) for c in (outer, inner, hidden)] == [1, 1, 1]
    note(record)  # nobody is told
    assert len(outer.records) == 1


def test_a_collector_says_what_is_open() -> None:
    collector = Collector()
    heard: list[int] = []
    collector.watch(lambda: heard.append(len(collector.records)))
    first, second = collector.start(), collector.start()
    second.end(TOY.ask("?"))
    assert collector.open
    first.end(None)
    first.end(TOY.ask("?"))  # it had ended
    assert not collector.open
    assert (len(collector.calls), heard) == (2, [1, 1])


def test_a_stream_counts_for_the_block_that_began_it() -> None:
    llm = BitCalLLM(model=TOY)
    with collect() as first:
        stream = llm.stream_complete("?")
    with collect() as second:
        assert "".join(chunk.delta for chunk in stream) == "Paris"
    assert (len(first.records), len(second.calls)) == (1, 0)


def test_a_stream_that_is_dropped_ends_without_a_record() -> None:
    llm = BitCalLLM(model=Held({}, default=("one two", 0.9)))
    with collect() as collector:
        stream = llm.stream_complete("?")
        next(stream)
    assert collector.open
    stream.close()
    assert not collector.open
    assert collector.records == ()


def test_what_is_left_of_a_query_is_seen() -> None:
    with collect() as collector:
        pass
    with seen_by(collector):
        BitCalLLM(model=TOY).complete("?")
    BitCalLLM(model=TOY).complete("?")
    assert len(collector.records) == 1


def test_threads_have_a_collector_only_with_the_context() -> None:
    with collect() as collector:
        context = contextvars.copy_context()
        for target in (lambda: note(TOY.ask("?")), lambda: context.run(note, TOY.ask("?"))):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert len(collector.records) == 1


async def test_tasks_have_their_own() -> None:
    async def one(n: int) -> int:
        with collect() as collector:
            for _ in range(n):
                await asyncio.sleep(0)
                start_call().end(TOY.ask("?"))
            return len(collector.records)

    assert await asyncio.gather(*(one(n) for n in range(5))) == [0, 1, 2, 3, 4]


class TooLong(ToyModel):
    """Its context is always too short."""

    def ask(self, prompt: Any, **options: Any) -> Any:
        raise PromptTooLong(300, 200)


def test_a_prompt_that_is_too_long_is_no_empty_response() -> None:
    """LlamaIndex's synthesizers swallow a ValueError, which PromptTooLong is."""
    with pytest.raises(EngineError, match="the prompt has 300 tokens"):
        engine_of(BitCalLLM(model=TooLong({})), "a").query("?")


def test_an_error_that_an_engine_swallows_is_told() -> None:
    class Swallows(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            try:
                return str(BitCalLLM(model=TooLong({})).complete(query_str))
            except EngineError:
                return "I could not ask."

    response = with_confidence(Swallows()).query("?")
    assert response.metadata["confidence"] is None
    assert "the last call failed: PromptTooLong" in response.metadata["bitcal"]["reason"]
