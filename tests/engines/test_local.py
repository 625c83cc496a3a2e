"""Requests share batches and nothing else: texts, errors, lists, parsers."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing

import pytest
from engine_help import (
    Gate,
    assert_same,
    failing,
    generations,
    last_event,
    mixed_requests,
    submit,
)

from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.run import generate
from bitcal_integrations.engines._ticket import Outcome, acollect, astream, collect, stream
from bitcal_integrations.engines.local import MAX_BATCH, LocalEngine
from bitcal_integrations.errors import (
    PromptTooLong,
    QueueFull,
)
from bitcal_integrations.types import Step, make_request


def test_64_concurrent_mixed_requests_equal_one_by_one(net: Net, engine: LocalEngine) -> None:
    requests = mixed_requests(64)
    alone = [generate(net, [r])[0] for r in requests]
    results: dict[int, list] = {}

    def caller(part: int) -> None:
        results[part] = collect(engine, requests[part::8])

    threads = [threading.Thread(target=caller, args=(part,)) for part in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for part in range(8):
        for got, expected in zip(generations(results[part]), alone[part::8], strict=True):
            assert_same(got, expected, 1e-4)
    assert engine.report()["largest_batch"] > 4


def test_deterministic_mode_is_bit_equal(net: Net) -> None:
    requests = mixed_requests(24)
    alone = [generate(net, [r])[0] for r in requests]
    engine = LocalEngine(net, max_batch=1)
    try:
        for got, expected in zip(generations(collect(engine, requests)), alone, strict=True):
            assert_same(got, expected, 0.0)
    finally:
        engine.close()


async def test_a_list_meets_in_the_same_batches_each_time(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = mixed_requests(40)
    sizes = failing(net, monkeypatch, lambda rows, ids: False, ValueError())
    first = generations(collect(engine, requests))
    course = list(sizes)
    assert course[0] == MAX_BATCH  # none of them began before the others were there
    for awaited in (False, False, True):
        sizes.clear()
        found = await acollect(engine, requests) if awaited else collect(engine, requests)
        for got, expected in zip(generations(found), first, strict=True):
            assert_same(got, expected, 0.0)
        assert sizes == course


def test_a_list_longer_than_the_queue_is_answered_to_its_end(net: Net) -> None:
    requests = mixed_requests(30)
    with closing(LocalEngine(net, max_batch=2, max_queue=3)) as engine:
        for got, expected in zip(
            generations(collect(engine, requests)), generate(net, requests), strict=True
        ):
            assert_same(got, expected, 1e-4)


def test_a_stream_gives_steps_then_the_outcome(engine: LocalEngine) -> None:
    request = make_request("abc", max_new_tokens=8)
    *steps, outcome = list(stream(engine, request))
    assert isinstance(outcome, Outcome)
    assert [s.token_id for s in outcome.generation.steps] == [s.token_id for s in steps]
    assert "".join(s.text for s in steps) == outcome.generation.raw
    assert 0 <= outcome.timing.queued <= outcome.timing.first_token <= outcome.timing.total


async def test_async_waits_share_the_batch_and_never_block_the_loop(engine: LocalEngine) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    results = await acollect(engine, [make_request(c, max_new_tokens=40) for c in "abcd"])
    events = [e async for e in astream(engine, make_request("x", max_new_tokens=5))]
    ticker.cancel()
    assert len(generations(results)) == 4
    assert [type(e) for e in events] == [Step] * 5 + [Outcome]
    assert ticks > 20


def test_errors_stay_with_their_request(engine: LocalEngine) -> None:
    def broken(text: str, ended: bool = True) -> str:
        raise ZeroDivisionError("my parser")

    requests = [
        make_request("fine", max_new_tokens=12),
        make_request("bad", max_new_tokens=12, parser=broken),
        make_request("x" * 5000),
        make_request("fine too", max_new_tokens=12),
    ]
    first, second, third, fourth = collect(engine, requests)
    assert isinstance(second, ZeroDivisionError)
    assert isinstance(third, PromptTooLong)
    expected = generate(engine._worker._net, [requests[0], requests[3]])
    for got, want in zip(generations([first, fourth]), expected, strict=True):
        assert_same(got, want, 1e-4)


def test_the_queue_is_bounded(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(net, monkeypatch)
    engine = LocalEngine(net, max_batch=1, max_queue=2)
    try:
        _, first = submit(engine, make_request("a", max_new_tokens=2))
        assert gate.entered.wait(30)
        waiting = [submit(engine, make_request("b", max_new_tokens=2))[1] for _ in range(2)]
        with pytest.raises(QueueFull, match="2 requests are waiting"):
            submit(engine, make_request("c"))
        gate.opened.set()
        for events in (first, *waiting):
            assert isinstance(last_event(events), Outcome)
    finally:
        gate.opened.set()
        engine.close()


def test_a_list_may_be_longer_than_the_queue(net: Net) -> None:
    engine = LocalEngine(net, max_batch=2, max_queue=3)
    requests = [make_request(c, max_new_tokens=2) for c in "abcdefghijklmnop"]
    try:
        assert len(generations(collect(engine, requests))) == 16
        assert len(generations(asyncio.run(acollect(engine, requests)))) == 16
    finally:
        engine.close()


def test_an_exit_in_a_parser_ends_its_own_request_only(engine: LocalEngine) -> None:
    def leaves(text: str, ended: bool = True) -> str:
        raise SystemExit(3)

    bad, good = collect(
        engine,
        [make_request("a", max_new_tokens=2, parser=leaves), make_request("b", max_new_tokens=2)],
    )
    assert "SystemExit(3)" in str(bad)
    assert isinstance(good, Outcome)
    generations(collect(engine, [make_request("c", max_new_tokens=2)]))


def test_a_parser_that_asks_its_own_model_is_told(engine: LocalEngine) -> None:
    def asks(text: str, ended: bool = True) -> str:
        (inner,) = collect(engine, [make_request("x", max_new_tokens=1)])
        raise inner

    (result,) = collect(engine, [make_request("a", max_new_tokens=2, parser=asks)])
    assert "a parser asked the model that it parses for" in str(result)
