"""Streams that are left, models that fail: nothing goes on, and the caller hears it at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine_help import Gate, failing
from families import tiny_model, tiny_tokenizer

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.errors import EngineError
from bitcal_integrations.langchain import BitCalLLM, ChatBitCal
from bitcal_integrations.testing.toy import ToyModel

LONG = {"max_tokens": 400, "loop_stop": False}
Kinds = pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    tokenizer = tiny_tokenizer(chat=True)
    with load(tiny_model("llama"), tokenizer=tokenizer, weights=None) as model:
        yield model


def worker(model: CalibratedModel) -> Any:
    return model._engine._worker


def assert_idle(model: CalibratedModel) -> None:
    """Whatever was cancelled has left before the next request is answered."""
    model.ask("x", max_new_tokens=1)
    assert not worker(model)._jobs
    assert not worker(model)._waiting


def counting(model: CalibratedModel, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many forwards have run since."""
    sizes = failing(worker(model)._net, monkeypatch, lambda rows, ids: False, RuntimeError())
    return lambda: len(sizes)


@Kinds
def test_a_stream_that_is_left_stops_the_model(
    kind: Any, model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, forwards = set(threading.enumerate()), counting(model, monkeypatch)
    stream = kind(model=model, **LONG).stream("hi")
    next(stream)
    stream.close()
    assert_idle(model)
    assert forwards() < 100
    assert set(threading.enumerate()) <= threads


@Kinds
async def test_an_async_stream_that_is_left_stops_the_model(
    kind: Any, model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, forwards = asyncio.all_tasks(), counting(model, monkeypatch)
    stream = kind(model=model, **LONG).astream("hi")
    await anext(stream)
    await stream.aclose()
    await model.aask("x", max_new_tokens=1)
    assert not worker(model)._jobs
    assert forwards() < 100
    assert asyncio.all_tasks() == tasks


@Kinds
async def test_a_cancelled_task_stops_the_model(
    kind: Any, model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(worker(model)._net, monkeypatch)
    task = asyncio.create_task(kind(model=model, **LONG).ainvoke("hi"))
    await asyncio.to_thread(gate.entered.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    assert_idle(model)


@Kinds
async def test_the_event_loop_goes_on_while_the_model_computes(
    kind: Any, model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(worker(model)._net, monkeypatch)
    task = asyncio.create_task(kind(model=model, max_tokens=2).ainvoke("hi"))
    await asyncio.to_thread(gate.entered.wait, 30)
    ticked = await asyncio.gather(*(asyncio.sleep(0, i) for i in range(3)))
    assert ticked == [0, 1, 2]
    assert not task.done()
    gate.opened.set()
    await task


@Kinds
async def test_a_failure_of_the_model_reaches_the_caller(
    kind: Any, model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RuntimeError("CUDA error: an illegal memory access was encountered")
    failing(worker(model)._net, monkeypatch, lambda rows, ids: True, broken)
    chat = kind(model=model, max_tokens=4)
    with pytest.raises(EngineError, match="illegal memory access"):
        chat.invoke("hi")
    with pytest.raises(EngineError, match="illegal memory access"):
        await chat.ainvoke("hi")
    with pytest.raises(EngineError, match="illegal memory access"):
        list(chat.stream("hi"))
    with pytest.raises(EngineError, match="illegal memory access"):
        [chunk async for chunk in chat.astream("hi")]
    with pytest.raises(EngineError, match="illegal memory access"):
        chat.batch(["hi", "ho"])


def test_a_stop_string_in_pieces_is_never_shown() -> None:
    chat = ChatBitCal(model=ToyModel({"?": ("one two three four", 0.9)}))
    for stop in (["three"], "three"):
        assert chat.invoke("?", stop=stop).text == "one two "
        assert "".join(chunk.text for chunk in chat.stream("?", stop=stop)) == "one two "
    assert ChatBitCal(model=ToyModel({"?": ("a b", 0.9)}), stop="b").invoke("?").text == "a "


def test_stop_over_several_tokens(model: CalibratedModel) -> None:
    whole = ChatBitCal(model=model, max_tokens=40, loop_stop=False).invoke("hi").text
    stop = whole[10:13]
    cut = whole[: whole.index(stop)]
    chat = ChatBitCal(model=model, max_tokens=40, loop_stop=False, stop=[stop])
    assert chat.invoke("hi").text == cut
    assert "".join(chunk.text for chunk in chat.stream("hi")) == cut
    assert [message.text for message in chat.batch(["hi", "hi"])] == [cut, cut]


def test_reasoning_is_kept_apart() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
        "<s>assistant: <think>"
    )
    with load(tiny_model("llama"), tokenizer=tokenizer, weights=None) as thinker:
        chat = ChatBitCal(model=thinker, max_tokens=12, loop_stop=False)
        message = chat.invoke("hi")
        chunks = list(chat.stream("hi"))
    thoughts = message.additional_kwargs["reasoning_content"]
    assert thoughts
    assert message.text == ""
    assert [block["type"] for block in message.content_blocks] == ["reasoning"]
    streamed = "".join(c.additional_kwargs.get("reasoning_content", "") for c in chunks)
    assert streamed == thoughts
    assert message.usage_metadata["output_token_details"] == {"reasoning": 12}
    assert message.response_metadata["bitcal"]["confidence"] is None
