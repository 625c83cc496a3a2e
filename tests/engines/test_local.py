"""Requests share batches and nothing else: texts, errors, cancellation, memory, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import random
import threading

import pytest
import torch

from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.run import generate
from bitcal_integrations.engines import _memory
from bitcal_integrations.engines._ticket import Outcome, acollect, astream, collect, stream
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.errors import (
    EngineClosed,
    EngineError,
    ForkedProcess,
    OutOfMemory,
    PromptTooLong,
    QueueFull,
)
from bitcal_integrations.types import Generation, Request, Step, make_request


def mixed_requests(count: int) -> list[Request]:
    """Prompts and answers of many lengths, greedy and sampled, with and without stops."""
    rng = random.Random(0)
    return [
        make_request(
            "".join(rng.choice("abcdef gh.") for _ in range(rng.randrange(1, 60))),
            max_new_tokens=rng.randrange(1, 30),
            temperature=rng.choice([0, 0, 0.7]),
            seed=index,
            stop=rng.choice([(), ("B",)]),
        )
        for index in range(count)
    ]


def generations(results: list) -> list[Generation]:
    assert all(isinstance(r, Outcome) for r in results), results
    return [r.generation for r in results]


def assert_same(one: Generation, other: Generation, tolerance: float) -> None:
    assert (one.raw, one.finish) == (other.raw, other.finish)
    assert [s.token_id for s in one.steps] == [s.token_id for s in other.steps]
    for a, b in zip(one.steps, other.steps, strict=True):
        assert abs(a.logprob - b.logprob) <= tolerance


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


def failing(net: Net, monkeypatch: pytest.MonkeyPatch, when, error: Exception) -> list[int]:
    """Make the model's steps raise where `when(rows, ids)` says so; the batch sizes that ran."""
    sizes: list[int] = []
    forward = net._forward

    def patched(ids, mask, cache, new, carry, first):
        sizes.append(len(ids))
        if when(len(ids), ids):
            raise error
        return forward(ids, mask, cache, new, carry, first)

    monkeypatch.setattr(net, "_forward", patched)
    return sizes


def test_one_poisoned_request_does_not_fail_its_batch(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = net.tokenizer("~")["input_ids"][0]
    requests = [make_request(p, max_new_tokens=6) for p in ("good", "~", "also good")]
    expected = [generate(net, [requests[i]])[0] for i in (0, 2)]
    failing(net, monkeypatch, lambda rows, ids: bool((ids == poison).any()), IndexError("poison"))
    good, bad, also = collect(engine, requests)
    assert isinstance(bad, EngineError)
    assert "IndexError: poison" in str(bad)
    for got, want in zip(generations([good, also]), expected, strict=True):
        assert_same(got, want, 1e-4)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    requests = [make_request(c * 5, max_new_tokens=9) for c in "abcdefgh"]
    expected = generate(net, requests)
    failing(net, monkeypatch, lambda rows, ids: rows > 3, error)
    for got, want in zip(generations(collect(engine, requests)), expected, strict=True):
        assert_same(got, want, 1e-4)
    assert engine.report()["halved_for_memory"] >= 1
    assert engine.report()["cells_allowed"] < 4 * (5 + 9)


def test_out_of_memory_alone_is_one_clear_error(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(net, monkeypatch, lambda rows, ids: True, MemoryError())
    (result,) = collect(engine, [make_request("abc")])
    assert isinstance(result, OutOfMemory)
    assert "3 prompt tokens, 0 of 512 new tokens" in str(result)


def test_a_request_beyond_the_memory_for_keys_and_values_is_refused(net: Net) -> None:
    engine = LocalEngine(net, kv_bytes=100 * net.kv_bytes_per_token)
    try:
        with pytest.raises(OutOfMemory, match="bytes of keys and values"):
            next(stream(engine, make_request("a", max_new_tokens=100)))
        requests = [make_request("a", max_new_tokens=39) for _ in range(6)]
        generations(collect(engine, requests))
        assert engine.report()["largest_batch"] == 2  # 2 x 40 fit into 100 tokens, 3 x 40 do not
    finally:
        engine.close()


class Gate:
    """Holds the worker inside a forward until it is opened: no sleeping in tests."""

    def __init__(self, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.forwards = 0
        forward = net._forward

        def patched(*args, **kwargs):
            self.forwards += 1
            self.entered.set()
            assert self.opened.wait(30)
            return forward(*args, **kwargs)

        monkeypatch.setattr(net, "_forward", patched)


def submit(engine: LocalEngine, request: Request):
    events: queue.SimpleQueue = queue.SimpleQueue()
    return engine.submit(request, events.put), events


def last_event(events: queue.SimpleQueue):
    while isinstance(event := events.get(timeout=30), Step):
        pass
    return event


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
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine.submit(make_request("a"), print)
            word = b"served"
        except ForkedProcess as err:
            word = str(err).encode()
        except BaseException as err:
            word = repr(err).encode()
        os.write(write, word)
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        assert f"loaded in process {os.getpid()}" in pipe.read().decode()


def test_memory_errors_are_told_from_others() -> None:
    assert _memory.is_out_of_memory(MemoryError())
    assert not _memory.is_out_of_memory(RuntimeError("shape mismatch"))
    assert not _memory.is_out_of_memory(ValueError("out of memory"))
    assert _memory.kv_budget(torch.device("cpu")) > 0


def test_a_list_may_be_longer_than_the_queue(net: Net) -> None:
    engine = LocalEngine(net, max_batch=2, max_queue=3)
    requests = [make_request(c, max_new_tokens=2) for c in "abcdefghijklmnop"]
    try:
        assert len(generations(collect(engine, requests))) == 16
        assert len(generations(asyncio.run(acollect(engine, requests)))) == 16
    finally:
        engine.close()


@pytest.mark.parametrize("where", ["join", "keep_rows"])
def test_a_stream_loses_no_step_when_memory_runs_out_after_the_choice(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from bitcal_integrations.decode import cache

    failures = [MemoryError()]
    original = getattr(cache, where)

    def once(*args):
        if failures:
            raise failures.pop()
        return original(*args)

    monkeypatch.setattr(cache, where, once)
    waits = [submit(engine, make_request(c, max_new_tokens=n))[1] for c, n in (("a", 9), ("b", 4))]
    waits.append(submit(engine, make_request("c", max_new_tokens=12))[1])
    for events in waits:
        steps = []
        while isinstance(event := events.get(timeout=30), Step):
            steps.append(event)
        assert isinstance(event, Outcome)
        assert [s.token_id for s in steps] == [s.token_id for s in event.generation.steps]
        assert "".join(s.text for s in steps) == event.generation.raw


def test_after_a_while_of_good_turns_the_batch_grows_again(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(net, patch, lambda rows, ids: rows > 1, MemoryError())
        generations(collect(engine, [make_request(c, max_new_tokens=3) for c in "abcd"]))
    assert engine.report()["cells_allowed"] is not None
    for _ in range(4):
        generations(collect(engine, [make_request("a", max_new_tokens=300, loop_stop=False)]))
    assert engine.report()["cells_allowed"] is None


def test_logits_that_are_no_numbers_are_an_error(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = net._forward, []

    def patched(*args, **kwargs):
        logits, cache = forward(*args, **kwargs)
        calls.append(None)
        return (logits * float("nan") if len(calls) > 2 else logits), cache

    monkeypatch.setattr(net, "_forward", patched)
    (result,) = collect(engine, [make_request("a", max_new_tokens=9)])
    assert isinstance(result, EngineError)
    assert "not finite at new token 2" in str(result)


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


def test_an_error_does_not_keep_what_the_failed_forward_held(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import weakref

    held: list = []

    def patched(*args, **kwargs):
        activations = torch.ones(8)
        held.append(weakref.ref(activations))
        raise RuntimeError("broken kernel")

    monkeypatch.setattr(net, "_forward", patched)
    (result,) = collect(engine, [make_request("a")])
    assert "broken kernel" in str(result)
    assert held[0]() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_cannot_wait_on_its_parents_stream(engine: LocalEngine) -> None:
    events = stream(engine, make_request("a", max_new_tokens=4000))
    next(events)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(5000):
                next(events)
            word = b"went on"
        except ForkedProcess as err:
            word = str(err).encode()
        except BaseException as err:
            word = repr(err).encode()
        os.write(write, word)
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    events.close()
    with os.fdopen(read, "rb") as pipe:
        assert f"made in process {os.getpid()}" in pipe.read().decode()
