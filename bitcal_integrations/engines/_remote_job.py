"""One request on its way to a server and back: attempts, what its listener hears, how it ends.

It runs in the event loop of its worker, which it knows as a Service; the caller has it as a ticket.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from bitcal_integrations.engines._remote_errors import Failed, Patience, Trouble
from bitcal_integrations.engines._remote_text import RemoteText
from bitcal_integrations.engines._remote_wire import Calls, piece_of
from bitcal_integrations.engines._ticket import Event, Listener, Outcome
from bitcal_integrations.errors import BitcalError, EngineError
from bitcal_integrations.types import Request, Timing

logger = logging.getLogger(__name__)


class Service(Protocol):
    """What a job needs of its worker."""

    patience: Patience

    def slot(self) -> AbstractAsyncContextManager[Any]:
        """A place among the requests in flight; BudgetSpent where there is none left to give."""

    def post(self, way: str, body: dict[str, Any]) -> AsyncGenerator[Any]:
        """The events of an answer, or Failed; leaving it early closes the response."""

    def spent(self, tokens: int) -> None:
        """So many tokens of prompt and answer have been used."""


@dataclass(frozen=True)
class Call:
    """A request as it is sent: which call, its body, and how many alternatives it asks for."""

    request: Request
    way: str
    body: dict[str, Any]
    top: int | None


class Job:
    """A ticket. `cancel` may be called from any thread and at any time."""

    def __init__(
        self, call: Call, listener: Listener, steps: bool, wake: Callable[[Job], None]
    ) -> None:
        self.call = call
        self.cancelled = False
        self.closing: Exception | None = None  # why the engine ends it
        self._listener, self._steps, self._wake = listener, steps, wake
        self._text = RemoteText(call.request)
        self._shown = 0
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._submitted = time.perf_counter()
        self._started: float | None = None
        self._first: float | None = None

    def cancel(self) -> None:
        if not self._ended:
            self.cancelled = True
            self._wake(self)

    # ---- in the loop's own thread --------------------------------------------------------------

    def stop(self) -> None:
        """End it where it is; before its first step it finds that out by itself."""
        if self._task is not None:
            self._task.cancel()

    async def run(self, service: Service) -> None:
        """Ask, send what comes to the listener, and end with an Outcome or an error."""
        try:
            if not self.cancelled and self.closing is None:
                self._task = asyncio.current_task()
                await self._answer(service)
            event = self._outcome()
        except asyncio.CancelledError:
            event = self.closing or self._outcome()
        except BitcalError as err:
            event = err
        except Exception as err:  # the caller's own parser, or a fault of ours
            event = err
        self._task = None
        self.end(self.closing or event)

    def end(self, event: Event) -> None:
        """The last thing that the listener hears; what comes later is left out."""
        if not self._ended:
            self._ended = True
            self._send(event)

    def _outcome(self) -> Event:
        now, since = time.perf_counter(), self._submitted
        timing = Timing((self._started or now) - since, (self._first or now) - since, now - since)
        try:
            return Outcome(self._text.generation(), timing)
        except Exception as err:
            return err

    async def _answer(self, service: Service) -> None:
        attempt = 0
        while (trouble := await self._tried(service)) is not None:
            if not trouble.again or self._shown or attempt >= service.patience.retries:
                raise self._told(trouble.error, attempt)
            wait = service.patience.pause(attempt, trouble.after_s)
            logger.info("%s; again in %.1f s", trouble.error.message, wait)
            await service.patience.sleep(wait)
            attempt += 1

    async def _tried(self, service: Service) -> Trouble | None:
        """What went wrong with one attempt. No error of the client is kept: it holds the key."""
        try:
            async with service.slot():
                self._started = self._started or time.perf_counter()
                await self._attempt(service)
        except Failed as failed:
            return failed.trouble
        return None

    def _told(self, error: BitcalError, attempt: int) -> BitcalError:
        """The error with what was tried, or what had been shown already."""
        if self._shown:
            more = f", after {self._shown} tokens of the answer had been given out"
        elif attempt:
            more = f", after {attempt + 1} attempts"
        else:
            return error
        return type(error)(error.message + more, error.hint)

    async def _attempt(self, service: Service) -> None:
        self._text, calls = RemoteText(self.call.request), Calls()
        try:
            async with aclosing(service.post(self.call.way, self.call.body)) as events:
                async for event in events:
                    piece = piece_of(event, self.call.top)
                    calls.add(piece.calls)
                    ended = self._text.finish is not None
                    for step in self._text.push(piece):
                        self._show(step)
                    if self.cancelled:  # nobody takes the steps any more
                        return
                    # A finish of the server's own is followed by its count of tokens.
                    if self._text.finish is not None and not ended and piece.finish is None:
                        break
        except Failed as failed:
            if self._text.finish is None:
                raise
            logger.info("%s, after the answer was there", failed.trouble.error.message)
        finally:
            service.spent(self._text.total)
        if self._text.finish is None:
            cut = EngineError("the server's stream ended before the answer did")
            raise Failed(Trouble(cut, again=True))
        if text := calls.text():
            self._show(self._text.add_calls(text))

    def _show(self, step: Any) -> None:
        if self._first is None:
            self._first = time.perf_counter()
        if self._steps:
            self._shown += 1
            self._send(step)

    def _send(self, event: Event) -> None:
        try:
            self._listener(event)
        except Exception as err:  # its event loop has gone: nobody is waiting
            logger.debug("nobody takes the events of a request any more: %s", err)
            self.cancelled = True
