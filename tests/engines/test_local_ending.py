"""Cancelled, closed, forgotten, forked: nothing runs on and nobody is left waiting."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import threading

import pytest
from engine_help import Gate, generations, in_forked_child, last_event, submit

from bitcal_integrations.decode.net import Net
from bitcal_integrations.engines._ticket import acollect, astream, collect, stream
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.errors import (
    EngineClosed,
    EngineError,
)
from bitcal_integrations.types import make_request


def test_cancelling_stops_within_one_step_and_frees_the_worker(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(net, monkeypatch)
    engine = LocalEngine(net)
    try:
        ticket, events = submit(engine, make_request("a", max_new_tokens=4000))
        queued_ticket, queued = submit(engine, make_request("never", max_new_tokens=4000))
        assert gate.entered.wait(30)
        ticket.cancel()
        queued_ticket.cancel()
        gate.opened.set()
        assert last_event(events).generation.finish == "cancelled"
        assert last_event(queued).generation.finish == "cancelled"
        assert gate.forwards <= 2
        (after,) = generations(collect(engine, [make_request("b", max_new_tokens=3)]))
        assert after.n_tokens == 3
    finally:
        gate.opened.set()
        engine.close()


def test_closing_a_stream_cancels_its_request(engine: LocalEngine) -> None:
    events = stream(engine, make_request("a", max_new_tokens=4000))
    next(events)
    events.close()
    generations(collect(engine, [make_request("b", max_new_tokens=2)]))
    assert not engine._worker._jobs


async def test_cancelling_a_task_cancels_its_request(engine: LocalEngine) -> None:
    task = asyncio.create_task(acollect(engine, [make_request("a", max_new_tokens=4000)]))
    while not engine._worker._jobs:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await acollect(engine, [make_request("b", max_new_tokens=2)])
    assert not engine._worker._jobs


def test_ctrl_c_while_waiting_cancels(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from bitcal_integrations.engines import _ticket

    def interrupted(events: queue.SimpleQueue, owner: int):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_ticket, "_get", interrupted)
        with pytest.raises(KeyboardInterrupt):
            collect(engine, [make_request("a", max_new_tokens=4000)])
    generations(collect(engine, [make_request("b", max_new_tokens=2)]))
    assert not engine._worker._jobs


def test_close_ends_the_thread_and_tells_those_who_wait(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(net, monkeypatch)
    engine = LocalEngine(net, max_batch=1)
    _, running = submit(engine, make_request("a", max_new_tokens=500))
    _, waiting = submit(engine, make_request("b"))
    assert gate.entered.wait(30)
    closer = threading.Thread(target=engine.close)
    closer.start()
    while not engine._worker._stopping:
        threading.Event().wait(0.001)
    gate.opened.set()
    closer.join()
    assert not engine._worker._thread.is_alive()
    for events in (running, waiting):
        assert isinstance(last_event(events), EngineClosed)
    with pytest.raises(EngineClosed):
        submit(engine, make_request("c"))
    engine.close()


def test_a_forgotten_engine_leaves_no_thread(net: Net) -> None:
    engine = LocalEngine(net)
    generations(collect(engine, [make_request("a", max_new_tokens=2)]))
    thread = engine._worker._thread
    del engine
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_a_fault_of_the_worker_reaches_everybody(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args) -> bool:
        raise SystemError("bug")

    monkeypatch.setattr(engine._worker._room, "fits", broken)
    (result,) = collect(engine, [make_request("a")])
    assert isinstance(result, EngineError)
    assert "SystemError('bug')" in str(result)
    with pytest.raises(EngineError, match="SystemError"):
        submit(engine, make_request("later"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_with_a_reason(engine: LocalEngine) -> None:
    said = in_forked_child(lambda: engine.submit(make_request("a"), print))
    assert f"loaded in process {os.getpid()}" in said


def test_an_event_loop_that_has_gone_cancels_its_request(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave() -> None:
        events = astream(engine, make_request("a", max_new_tokens=4000))
        await anext(events)
        kept.append(events)

    kept: list = []
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    loop.close()
    generations(collect(engine, [make_request("b", max_new_tokens=2)]))
    assert not engine._worker._jobs
    kept.clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_cannot_wait_on_its_parents_stream(engine: LocalEngine) -> None:
    events = stream(engine, make_request("a", max_new_tokens=4000))
    next(events)
    said = in_forked_child(lambda: [next(events) for _ in range(5000)])
    events.close()
    assert f"made in process {os.getpid()}" in said
