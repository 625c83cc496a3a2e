"""A gate between the steps of a workflow, and the event that tells the stream about it.

Steps branch by the type of event they return, so the gate gives one of two events and the graph
stays what the annotations say. It knows answers and policies; what a step asks is its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llama_index.core.workflow import Context, Event, StopEvent

from bitcal_integrations.chains.records import judged, unknown_record
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.decide._stop_policy import StopPolicy
from bitcal_integrations.decide.policy import Policy
from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index._course import policy_of
from bitcal_integrations.llama_index._records import record_of
from bitcal_integrations.types import Confidence, Decision, Record

Chosen = type[Event] | Event


class ConfidenceEvent(Event):
    """On the stream of a workflow: how sure an answer was, and what was decided."""

    confidence: float | None
    action: str
    reason: str
    text: str = ""
    bitcal: dict[str, Any]


class ConfidenceGate:
    """Gives the `accept` event where `policy` accepts an answer, else the `reject` event.

    Make one for the steps of a workflow and call it in them; `gate` is the same for one call.
    """

    def __init__(
        self,
        policy: Any = None,
        *,
        min_confidence: float | None = None,
        on_unknown: str | None = None,
    ) -> None:
        self.policy: Policy = policy_of(policy, min_confidence, on_unknown)

    def decide(self, answer: Any) -> Decision:
        """What the policy says to an answer, a Confidence, or a number (None is unknown).

        A list is a chain's steps so far, of which the last is decided about; a StopCertificate
        looks at all of them.
        """
        decision = self._judge(answer).decision
        assert decision is not None
        return decision

    def _judge(self, answer: Any) -> Record:
        steps = answer if isinstance(answer, list) else [answer]
        if not steps:
            raise BadRequest("the list of steps is empty: there is nothing to decide about")
        trail = Trail("last", policy=self.policy)
        for step in steps:
            bare = step is None or isinstance(step, (int, float, Confidence))
            if bare and isinstance(self.policy, StopPolicy):
                raise BadRequest(
                    f"{step!r:.80} has no answer, and a StopCertificate is about answers"
                )
            trail.add(_judged(step))
        return trail.records[-1]

    def __call__(
        self,
        answer: Any,
        *,
        accept: Chosen,
        reject: Chosen,
        ctx: Context | None = None,
    ) -> Any:
        """One of the two events; with `ctx` a ConfidenceEvent goes on the stream as well.

        `answer` may be a list, a chain's answers so far: the last one is decided about.

        An event class is made with `answer`, `confidence` and `bitcal`, a StopEvent with the
        answer as its `result`; an event is returned as it is. Where the policy says raise,
        LowConfidenceError is raised, which `@catch_error` can catch.
        """
        for name, event in (("accept", accept), ("reject", reject)):
            if not (isinstance(event, Event) or _is_event(event)):
                raise BadRequest(f"{name}={event!r:.80} is no event and no class of events")
        record = self._judge(answer)
        _tell(ctx, record)
        decision, value = record.decision, record.confidence.value
        assert decision is not None
        if decision.action == "raise":
            raise LowConfidenceError(f"the answer is not accepted: {decision.reason}", record)
        chosen = accept if decision.action == "accept" else reject
        if isinstance(chosen, Event):
            return chosen
        answer = answer[-1] if isinstance(answer, list) else answer
        if issubclass(chosen, StopEvent):
            return chosen(result=answer, confidence=value, bitcal=record.bitcal())
        return chosen(answer=answer, confidence=value, bitcal=record.bitcal())

    def tell(self, ctx: Context | None, record: Record) -> Record:
        """Judge a record, and put a ConfidenceEvent about it on the stream of `ctx`."""
        record = judged(self.policy, record)
        _tell(ctx, record)
        return record


def _tell(ctx: Context | None, record: Record) -> None:
    decision = record.decision
    if ctx is not None and decision is not None:
        told = ConfidenceEvent(
            confidence=record.confidence.value, action=decision.action, reason=decision.reason,
            text=record.text, bitcal=record.bitcal(),
        )  # fmt: skip
        ctx.write_event_to_stream(told)


def gate(
    answer: Any,
    policy: Any = None,
    *,
    accept: Chosen,
    reject: Chosen,
    ctx: Context | None = None,
) -> Any:
    """`ConfidenceGate(policy)(answer, ...)`: which event a step returns.

    >>> from llama_index.core.workflow import Event, StopEvent
    >>> class AskAgain(Event): ...
    >>> type(gate(0.9, 0.7, accept=StopEvent, reject=AskAgain)).__name__
    'StopEvent'
    >>> type(gate(0.4, 0.7, accept=StopEvent, reject=AskAgain)).__name__
    'AskAgain'
    """
    return ConfidenceGate(policy)(answer, accept=accept, reject=reject, ctx=ctx)


def _is_event(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Event)


def _judged(answer: Any) -> Record:
    if answer is None or (isinstance(answer, (int, float)) and not isinstance(answer, bool)):
        if answer is not None and not 0 <= answer <= 1:
            raise BadRequest(f"the confidence {answer!r} is not a number from 0 to 1")
        answer = Confidence(answer, reason="" if answer is not None else "no confidence")
    if isinstance(answer, Confidence):
        return replace(unknown_record(""), confidence=answer)
    return record_of(answer)
