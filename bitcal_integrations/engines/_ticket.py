"""What an engine hands out for a request, and how callers wait for it, sync and async.

An engine calls the listener from its own thread with Steps, then once with an Outcome or an
exception. Leaving a wait early, by closing a stream, cancelling a task or Ctrl-C, cancels the
request.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from bitcal_integrations.types import Generation, Request, Step, Timing


@dataclass(frozen=True)
class Outcome:
    """A finished request."""

    generation: Generation
    timing: Timing


Event: TypeAlias = "Step | Outcome | Exception"
Listener: TypeAlias = Callable[[Event], None]

# A wait without a limit cannot be interrupted on every platform, so waits are cut into slices.
_SLICE_S = 0.5


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
    try:
        while True:
            event = _get(events)
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, Outcome):
                return
    finally:
        ticket.cancel()


def _get(events: queue.SimpleQueue[Any]) -> Any:
    while True:
        try:
            return events.get(timeout=_SLICE_S)
        except queue.Empty:
            continue


def collect(engine: Engine, requests: Sequence[Request]) -> list[Outcome | Exception]:
    """Every request's Outcome or error, in order."""
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
    results: dict[int, Outcome | Exception] = {}
    tickets = []
    try:
        for index, request in enumerate(requests):
            try:
                tickets.append(engine.submit(request, _labelled(events.put, index), steps=False))
            except Exception as err:
                results[index] = err
        while len(results) < len(requests):
            index, event = _get(events)
            results[index] = event
    finally:
        for ticket in tickets:
            ticket.cancel()
    return [results[index] for index in range(len(requests))]


def _labelled(put: Callable[[Any], None], index: int) -> Listener:
    return lambda event: put((index, event))


async def astream(engine: Engine, request: Request) -> AsyncIterator[Step | Outcome]:
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
    return list(await asyncio.gather(*(_acollect_one(engine, r) for r in requests)))


async def _acollect_one(engine: Engine, request: Request) -> Outcome | Exception:
    events: asyncio.Queue[Any] = asyncio.Queue()
    try:
        ticket = await _submit(engine, request, events.put_nowait, steps=False)
    except Exception as err:
        return err
    try:
        return await events.get()  # type: ignore[no-any-return]
    finally:
        ticket.cancel()


async def _submit(
    engine: Engine, request: Request, put: Callable[[Any], None], steps: bool
) -> Ticket:
    loop = asyncio.get_running_loop()

    def listener(event: Event) -> None:
        loop.call_soon_threadsafe(put, event)

    return engine.submit(request, listener, steps)
