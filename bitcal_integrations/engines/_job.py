"""One request on its way through the local engine: what is sent to its listener, and when.

It knows its row and its listener, not the queue or the batch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from bitcal_integrations.decode.row import Row, own_error
from bitcal_integrations.engines._ticket import Event, Listener, Outcome
from bitcal_integrations.types import Timing

logger = logging.getLogger(__name__)


class Job:
    """A ticket. Every step of the row is sent once, whatever happened between row and job."""

    def __init__(self, row: Row, listener: Listener, steps: bool, wake: Callable[[], None]) -> None:
        self.row = row
        self.cancelled = False
        self.alone = False  # runs by itself, after a batch it was in failed
        self._listener = listener
        self._steps = steps
        self._wake = wake
        self._sent = 0
        self._submitted = time.perf_counter()
        self._started: float | None = None
        self._first: float | None = None

    @property
    def cells(self) -> int:
        """Tokens that the row may hold at its longest."""
        return self.row.prompt_tokens + self.row.limit

    def cancel(self) -> None:
        self.cancelled = True
        self._wake()

    def start(self) -> None:
        self._started = self._started or time.perf_counter()

    def send_steps(self) -> None:
        """Send what the row has gained since the last call."""
        new = self.row.steps[self._sent :]
        self._sent += len(new)
        if new and self._first is None:
            self._first = time.perf_counter()
        for step in new if self._steps else ():
            self._send(step)

    def end(self) -> None:
        """Send the rest and the Outcome, or the row's own error."""
        self.send_steps()
        if self.row.error is not None:
            self._send(self.row.error)
            return
        now, since = time.perf_counter(), self._submitted
        timing = Timing((self._started or now) - since, (self._first or now) - since, now - since)
        try:
            event: Event = Outcome(self.row.generation(), timing)
        except BaseException as err:  # the caller's own parser
            event = own_error(err)
        self._send(event)

    def fail(self, err: Exception) -> None:
        self._send(err)

    def _send(self, event: Event) -> None:
        try:
            self._listener(event)
        except Exception as err:  # its event loop has gone: nobody is waiting
            logger.debug("nobody takes the events of a request any more: %s", err)
            self.cancelled = True
