"""What the tests of the local engine share: requests, failing and gated models, ways to wait."""

from __future__ import annotations

import os
import queue
import random
import threading
from collections.abc import Callable

import pytest

from bitcal_integrations.decode.net import Net
from bitcal_integrations.engines._ticket import Outcome
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.errors import ForkedProcess
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


class Gate:
    """Holds the worker inside a forward until it is opened: no sleeping in tests."""

    def __init__(self, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.forwards = 0
        assert net.kv_bytes_per_token  # is measured by a forward, once: not by one that waits
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


def in_forked_child(work: Callable[[], object]) -> str:
    """Fork, do the work in the child, and give the ForkedProcess that stopped it, as text."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
            word = "it was served"
        except ForkedProcess as err:
            word = str(err)
        except BaseException as err:
            word = repr(err)
        os.write(write, word.encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        return pipe.read().decode()
