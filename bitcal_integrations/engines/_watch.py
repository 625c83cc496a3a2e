"""An engine that watches the samples of one vote on their way through another engine.

It cancels those that are no longer needed, and those whose tokens become too unlikely; these end as
"hopeless". Cancelled samples still report their tokens. It knows tokens, no answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bitcal_integrations.decide.sampling import GROUP
from bitcal_integrations.engines._ticket import Engine, Event, Listener, Outcome, Ticket
from bitcal_integrations.types import Request, Step


class Watch:
    """Passes requests on; `watched` are the samples, `weak` is below what mean they are given up.

    Whatever else is asked on the way (further samples for a confidence) passes untouched.
    """

    def __init__(self) -> None:
        self.watched: Sequence[Request] = ()
        self.weak: float | None = None
        self._tickets: list[Ticket] = []
        self._over = False

    def over(self, engine: Engine) -> Watch:
        """Watch what is asked of this engine."""
        self._engine = engine
        return self

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> Ticket:
        if not any(request is sample for sample in self.watched):
            return self._engine.submit(request, listener, steps)
        sample = _Sample(listener, self.weak, steps)
        ticket = self._engine.submit(request, sample.hear, steps or self.weak is not None)
        sample.has(ticket)
        self._tickets.append(ticket)
        if self._over:
            ticket.cancel()
        return ticket

    def cancel(self) -> None:
        """End every sample that is under way."""
        self._over = True
        for ticket in self._tickets:
            ticket.cancel()

    def close(self) -> None:
        self._engine.close()

    def report(self) -> dict[str, Any]:
        return self._engine.report()


class _Sample:
    """One sample's listener, called from the engine's thread."""

    def __init__(self, listener: Listener, weak: float | None, steps: bool) -> None:
        self._listener, self._weak, self._steps = listener, weak, steps
        self._last: deque[float] = deque(maxlen=GROUP)
        self._killed = False
        self._ticket: Ticket | None = None

    def has(self, ticket: Ticket) -> None:
        """An engine may answer before it has given the ticket."""
        self._ticket = ticket
        if self._killed:
            ticket.cancel()

    def hear(self, event: Event) -> None:
        if isinstance(event, Step):
            self._look(event)
            if self._steps:
                self._listener(event)
            return
        if self._killed and isinstance(event, Outcome):
            given_up = replace(event.generation, finish="hopeless", answer=None)
            event = replace(event, generation=given_up)
        self._listener(event)

    def _look(self, step: Step) -> None:
        self._last.append(step.logprob)
        if self._weak is None or self._killed or len(self._last) < GROUP:
            return
        if sum(self._last) / GROUP < self._weak:
            self._killed = True
            if self._ticket is not None:
                self._ticket.cancel()
