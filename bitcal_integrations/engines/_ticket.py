"""What an engine hands out for a request, and how callers wait for it, sync and async.

An engine calls the listener from its own thread with Steps, then once with an Outcome or an
exception. Leaving a wait early, by closing a stream, cancelling a task or Ctrl-C, cancels the
request.
"""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from bitcal_integrations.errors import ForkedProcess, QueueFull
from bitcal_integrations.types import Generation, Request, Step, Timing


@dataclass(frozen=True)
class Outcome:
    """A finished request."""

    generation: Generation
    timing: Timing


Event: TypeAlias = "Step | Outcome | Exception"
Listener: TypeAlias = Callable[[Event], None]
_T = TypeVar("_T")

# A wait without a limit cannot be interrupted on every platform, so waits are cut into slices.
_SLICE_S = 0.5
AT_ONCE = 1024  # of a longer list the rest is submitted one by one


class Ticket(Protocol):
    def cancel(self) -> None:
        """Ask the engine to stop this request; harmless when it has ended."""


class Engine(Protocol):
    def submit(self, request: Request, listener: Listener, steps: bool = True) -> Ticket: ...

    def close(self) -> None: ...

    def report(self) -> dict[str, Any]: ...


def stream(engine: Engine, request: Request) -> Iterator[Step | Outcome]:
    """The request's Steps, then its Outcome. It is submitted when the first one is asked for."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    ticket = engine.submit(request, events.put)
    owner = os.getpid()
    try:
        while True:
            event = _get(events, owner)
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Outcome):
                return
    finally:
        ticket.cancel()


def _get(events: queue.SimpleQueue[Any], owner: int) -> Any:
    while True:
        if os.getpid() != owner:
            raise ForkedProcess(
                f"the request was made in process {owner} and this is its fork {os.getpid()}"
            )
        try:
            return events.get(timeout=_SLICE_S)
        except queue.Empty:
            continue


class _Results:
    """What has come of a list of requests so far; shared by the sync and the async wait."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.found: dict[int, Outcome | Exception] = {}
        self.tickets: dict[int, Ticket] = {}

    @property
    def under_way(self) -> bool:
        return any(index not in self.found for index in self.tickets)

    @property
    def complete(self) -> bool:
        return len(self.found) == self.count

    def submit_first(
        self, engine: Engine, requests: Sequence[Request], put: Callable[[Any], None]
    ) -> dict[int, Exception]:
        """Submit the first ones at one moment, where an engine can do that; which it refuses."""
        submit_all = getattr(engine, "submit_all", None)
        if submit_all is None:
            return {}
        asked = [(request, _labelled(put, i)) for i, request in enumerate(requests[:AT_ONCE])]
        try:
            found = dict(enumerate(submit_all(asked, steps=False)))
        except Exception as err:  # closed, for one
            return dict.fromkeys(range(len(asked)), err)
        refused = {i: one for i, one in found.items() if isinstance(one, Exception)}
        self.tickets.update({i: one for i, one in found.items() if i not in refused})
        return refused

    def refuse(self, index: int, err: Exception) -> bool:
        """Keep a refusal, or say True: the queue holds requests of ours, so wait and try again."""
        if isinstance(err, QueueFull) and self.under_way:
            return True
        self.found[index] = err
        return False

    def cancel(self) -> None:
        for ticket in list(self.tickets.values()):  # a helper thread may still add some
            ticket.cancel()

    def in_order(self) -> list[Outcome | Exception]:
        return [self.found[index] for index in range(self.count)]


def collect(engine: Engine, requests: Sequence[Request]) -> list[Outcome | Exception]:
    """Every request's Outcome or error, in order; a list may be longer than the queue."""
    found = dict(each(engine, requests))
    return [found[index] for index in range(len(requests))]


def each(
    engine: Engine, requests: Sequence[Request]
) -> Generator[tuple[int, Outcome | Exception], None, None]:
    """(index, Outcome or error) of every request as it ends; closing it cancels the rest."""
    events: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
    results, owner = _Results(len(requests)), os.getpid()

    def take() -> tuple[int, Outcome | Exception]:
        index, event = _get(events, owner)
        results.found[index] = event
        return index, event

    try:
        refused = results.submit_first(engine, requests, events.put)
        for index, request in enumerate(requests):
            again = index not in results.tickets
            while again:
                try:
                    if index in refused:
                        raise refused.pop(index)
                    listener = _labelled(events.put, index)
                    results.tickets[index] = engine.submit(request, listener, steps=False)
                    again = False
                except Exception as err:
                    again = results.refuse(index, err)
                    yield take() if again else (index, err)
        while not results.complete:
            yield take()
    finally:
        results.cancel()


def _labelled(put: Callable[[Any], None], index: int) -> Listener:
    return lambda event: put((index, event))


async def astream(engine: Engine, request: Request) -> AsyncGenerator[Step | Outcome]:
    """`stream` for an event loop, which is never blocked."""
    events: asyncio.Queue[Event] = asyncio.Queue()
    ticket = await _submit(engine, request, events.put_nowait, steps=True)
    try:
        while True:
            event = await events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Outcome):
                return
    finally:
        ticket.cancel()


async def acollect(engine: Engine, requests: Sequence[Request]) -> list[Outcome | Exception]:
    """`collect` for an event loop."""
    events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
    results = _Results(len(requests))

    async def take() -> None:
        index, event = await events.get()
        results.found[index] = event

    try:
        refused = await _submit_first(results, engine, requests, events.put_nowait)
        for index, request in enumerate(requests):
            again = index not in results.tickets
            while again:
                try:
                    if index in refused:
                        raise refused.pop(index)
                    put = _labelled(events.put_nowait, index)
                    results.tickets[index] = await _submit(engine, request, put, steps=False)
                    again = False
                except Exception as err:
                    again = results.refuse(index, err)
                    if again:
                        await take()
        while not results.complete:
            await take()
    finally:
        results.cancel()
    return results.in_order()


async def _submit_first(
    results: _Results, engine: Engine, requests: Sequence[Request], put: Callable[[Any], None]
) -> dict[int, Exception]:
    return await _from_helper(
        lambda listener: results.submit_first(engine, requests, listener),
        put,
        lambda _: results.cancel(),
    )


async def _submit(
    engine: Engine, request: Request, put: Callable[[Any], None], steps: bool
) -> Ticket:
    return await _from_helper(
        lambda listener: engine.submit(request, listener, steps),
        put,
        lambda ticket: ticket.cancel(),
    )


async def _from_helper(
    submit: Callable[[Listener], _T], put: Callable[[Any], None], undo: Callable[[_T], None]
) -> _T:
    """Submit from a helper thread: encoding a long prompt would hold up the event loop.

    What is submitted after the caller was cancelled is undone.
    """
    loop = asyncio.get_running_loop()

    def listener(event: Any) -> None:
        loop.call_soon_threadsafe(put, event)

    def late(done: asyncio.Future[_T]) -> None:
        if not done.cancelled() and done.exception() is None:
            undo(done.result())

    submitted = asyncio.ensure_future(asyncio.to_thread(submit, listener))
    try:
        return await asyncio.shield(submitted)
    except asyncio.CancelledError:
        submitted.add_done_callback(late)
        raise
