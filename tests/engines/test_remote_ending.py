"""Cancelled, closed, forgotten, forked, out of budget: nothing runs on, nobody is left waiting."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
from collections.abc import Iterator
from typing import Any

import pytest
from engine_help import in_forked_child
from remote_help import Clock, Fault, Server, listening, remote_threads, said, serving

from bitcal_integrations.engines._remote_errors import BudgetSpent
from bitcal_integrations.engines._ticket import Outcome, acollect, astream, collect, stream
from bitcal_integrations.engines.remote import Budget, RemoteEngine, connect
from bitcal_integrations.errors import EngineClosed, QueueFull
from bitcal_integrations.types import Step, make_request

ASKED = make_request("2 + 2", max_new_tokens=8)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(default=said("4", " is", " it", ""))) as server:
        yield server


@pytest.fixture
def engine(server: Server) -> Iterator[RemoteEngine]:
    engine = connect(server.url, api="completions", patience=Clock().patience(3))
    yield engine
    engine.close()


def one(engine: RemoteEngine) -> Any:
    return collect(engine, [ASKED])[0]


def test_closing_a_stream_closes_the_response(server: Server, engine: RemoteEngine) -> None:
    server.faults = [Fault(then="hang", tokens=2)]
    events = stream(engine, ASKED)
    assert isinstance(next(events), Step)
    assert server.hanging.acquire(timeout=30)
    events.close()
    assert server.left.acquire(timeout=30)
    assert isinstance(one(engine), Outcome)


async def test_cancelling_a_task_closes_the_response(server: Server, engine: RemoteEngine) -> None:
    server.faults = [Fault(then="hang", tokens=2), Fault(then="hang")]
    events = astream(engine, ASKED)
    await anext(events)
    await events.aclose()
    task = asyncio.create_task(acollect(engine, [ASKED]))
    for _ in range(2):
        assert await asyncio.to_thread(server.hanging.acquire, timeout=30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(2):
        assert await asyncio.to_thread(server.left.acquire, timeout=30)


def test_a_cancelled_request_says_so_once(server: Server, engine: RemoteEngine) -> None:
    server.faults = [Fault(then="hang", tokens=2)]
    ticket, heard = listening(engine, ASKED, steps=True)
    assert server.hanging.acquire(timeout=30)
    texts = [heard.get(timeout=30).text for _ in range(2)]
    ticket.cancel()
    ticket.cancel()
    outcome = heard.get(timeout=30)
    assert (outcome.generation.finish, outcome.generation.raw) == ("cancelled", "".join(texts))
    with pytest.raises(queue.Empty):
        heard.get_nowait()


def test_a_listener_that_has_gone_closes_the_response(server: Server, engine: RemoteEngine) -> None:
    def gone(event: Any) -> None:
        raise RuntimeError("Event loop is closed")

    server.faults = [Fault(then="hang", tokens=2)]
    engine.submit(ASKED, gone)
    assert server.left.acquire(timeout=30)
    assert isinstance(one(engine), Outcome)


def test_closing_the_engine_tells_all_that_wait(server: Server) -> None:
    before = len(remote_threads())
    engine = connect(server.url, api="completions", max_in_flight=1)
    server.always = Fault(then="hang")
    waiting = [listening(engine, ASKED)[1] for _ in range(3)]
    assert server.hanging.acquire(timeout=30)
    engine.close()
    for heard in waiting:
        assert isinstance(heard.get(timeout=30), EngineClosed)
    assert server.left.acquire(timeout=30)
    assert len(remote_threads()) == before
    engine.close()
    with pytest.raises(EngineClosed):
        engine.submit(ASKED, print)


def test_a_forgotten_engine_ends_its_thread(server: Server) -> None:
    engine = connect(server.url, api="completions")
    thread = engine._worker._thread
    del engine
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_is_refused_with_a_reason(engine: RemoteEngine) -> None:
    said = in_forked_child(lambda: engine.submit(ASKED, print))
    assert f"loaded in process {os.getpid()}" in said


def test_a_full_queue_is_refused(server: Server) -> None:
    engine = connect(server.url, api="completions", max_in_flight=1, max_queue=1)
    server.always = Fault(then="hang")
    try:
        for _ in range(2):
            listening(engine, ASKED)
        with pytest.raises(QueueFull, match="1 requests are waiting"):
            listening(engine, ASKED)
    finally:
        engine.close()


def test_a_budget_ends_the_asking_when_what_is_in_flight_has_come(server: Server) -> None:
    engine = connect(server.url, api="completions", max_in_flight=2, budget=Budget(requests=5))
    results = collect(engine, [ASKED] * 9)
    engine.close()
    assert [type(r) for r in results] == [Outcome] * 5 + [BudgetSpent] * 4
    assert "the budget of 5 requests is spent" in str(results[-1])
    assert len(server.bodies()) == 5
    tokens = connect(server.url, api="completions", max_in_flight=1, budget=Budget(tokens=10))
    results = collect(tokens, [ASKED] * 9)  # 3 of the prompt and 4 of the answer, each time
    tokens.close()
    assert [type(r) for r in results] == [Outcome] * 2 + [BudgetSpent] * 7


@pytest.mark.parametrize("fault", [SystemExit(3), RuntimeError("mine")])
def test_a_parser_that_fails_hits_its_own_request(
    engine: RemoteEngine, fault: BaseException
) -> None:
    def parse(text: str, ended: bool = True) -> None:
        raise fault

    bad = make_request("2 + 2", parser=parse)
    first, second, third = collect(engine, [ASKED, bad, ASKED])
    assert isinstance(first, Outcome)
    assert isinstance(third, Outcome)
    assert isinstance(second, Exception)
    assert str(fault) in str(second)


def test_a_parser_that_asks_the_same_engine_is_refused(engine: RemoteEngine) -> None:
    def parse(text: str, ended: bool = True) -> None:
        engine.submit(ASKED, print)

    (result,) = collect(engine, [make_request("2 + 2", parser=parse)])
    assert "a parser asked the model that it parses for" in str(result)
