"""One input's way through a router: whom to ask with which config, and what is given in the end.

Drives a Cascade with LangChain's outputs. It calls no runnable: the router does, in each of its
six ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig

from bitcal_integrations.chains.cascade import Cascade, Outcome, check_handle, check_on_exhausted
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.decide import Policy
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._collect import Collector
from bitcal_integrations.langchain._review import ask_person, need_langgraph
from bitcal_integrations.langchain.confidence import text_of
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Decision, Record

EVENT = "bitcal.route"


@dataclass(frozen=True)
class Plan:
    """What a router was told, checked: the same for every input."""

    runnables: tuple[Runnable[Any, Any], ...]
    names: tuple[str, ...]
    policy: Policy
    on_exhausted: str
    on_unknown: Any
    handle: tuple[type[Exception], ...]
    profile: Callable[[int], Profile | None]
    task: str
    aggregate: str


def plan_of(
    runnables: Sequence[Runnable[Any, Any]], *, policy: Policy, names: Sequence[str] | None,
    on_exhausted: str, on_unknown: Any, handle: Any, scored_by: Mapping[Any, Any], task: str,
    aggregate: str,
) -> Plan:  # fmt: skip
    """A Plan, or the error that says what in it cannot be."""
    if names is not None and (isinstance(names, str) or len(names) != len(runnables)):
        raise BadRequest(f"names={names!r:.80}: it must be {len(runnables)} names, one for each")
    called = _run.distinct([_run.name_of(r) for r in runnables] if names is None else names)
    if "review" in (check_on_exhausted(on_exhausted), getattr(policy, "below", "")):
        need_langgraph()
    Trail(aggregate)  # refuses what is not allowed
    return Plan(
        tuple(runnables), called, policy, on_exhausted, on_unknown, check_handle(handle),
        _run.checked_profiles(scored_by, called), task, aggregate,
    )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What the router gives: the output, its chunks for a stream, and the event about it."""

    output: Any
    chunks: Sequence[Any]
    event: Mapping[str, Any]


@dataclass
class _Came:
    """What came of one attempt; `chunks` only where it was streamed."""

    output: Any = None
    chunks: Sequence[Any] = field(default_factory=tuple)


class Course:
    """One input's way: `branch`, then `take` or `failed`, until `next` is None; then `given`."""

    def __init__(self, plan: Plan, config: RunnableConfig) -> None:
        self.plan, self.config = plan, config
        policy = _run.policy_for(config, plan.policy, plan.on_unknown)
        self.cascade = Cascade(policy, plan.names, plan.on_exhausted, plan.handle)
        self._came: list[_Came] = []
        self._heard: Collector | None = None

    @property
    def next(self) -> int | None:
        return self.cascade.next

    def branch(self) -> tuple[Runnable[Any, Any], RunnableConfig]:
        """The runnable to ask now, and the config to ask it with."""
        index = len(self.cascade.attempts)
        config, self._heard = _run.listening(
            self.config, f"bitcal:attempt:{index + 1}", profile=self.plan.profile(index),
            task=self.plan.task, live=self.live,
        )  # fmt: skip
        return self.plan.runnables[index], config

    @property
    def live(self) -> bool:
        """Whether what is asked now will be given whatever it says, so that it may be streamed."""
        policy, last = self.cascade.policy, self.next == len(self.plan.runnables) - 1
        known = getattr(policy, "on_unknown", None) in ("escalate", "accept")
        below = getattr(policy, "below", "escalate") == "escalate"
        return last and known and below and self.plan.on_exhausted == "last"

    def take(self, output: Any, chunks: Sequence[Any] = ()) -> None:
        """The runnable has answered."""
        assert self._heard is not None
        index = len(self._came)
        record = _run.record_from(
            output, self._heard, profile=self.plan.profile(index), task=self.plan.task,
            aggregate=self.plan.aggregate,
        )  # fmt: skip
        self._came.append(_Came(output, chunks))
        self.cascade.judge(record)

    def failed(self, error: Exception, chunks: Sequence[Any] = ()) -> None:
        """The runnable has raised: an early answer is an answer, a control exception passes.

        `chunks` are those of a live stream, of which some have been shown.
        """
        if _run.is_control(error):
            raise error
        if isinstance(error, EarlyAnswer) and error.record is not None:
            like = [_run.output_type(self.plan.runnables[len(self._came)])]
            output = _run.worded(error.record.text, error.record, {}, like)
            self._came.append(_Came(output, chunks))
            self.cascade.judge(error.record)
        else:
            self._came.append(_Came())
            self.cascade.failed(error)

    def given(self) -> Given:
        """The answer with its provenance. It may raise, and pause the graph for a person."""
        outcome = self.cascade.outcome()
        if outcome.action == "review":
            return self._reviewed(outcome)
        if outcome.index is None:
            record = unknown_record(outcome.text or "", reason=outcome.reason)
            return self._worded(record, Decision("abstain", outcome.reason))
        return self._chosen(outcome.index)

    def _chosen(self, index: int, decision: Decision | None = None) -> Given:
        came, attempt = self._came[index], self.cascade.attempts[index]
        record, decided = attempt.record, decision or attempt.decision
        assert record is not None
        assert decided is not None
        extra = {"decision": decided.to_dict(), "route": self.cascade.provenance()}
        if self.plan.aggregate != "last":  # the confidence that was judged, not the last model's
            extra = {**record.bitcal(), **extra}
        output = _run.with_bitcal(came.output, record, extra)
        chunks = _run.chunks_with_bitcal(came.chunks, record, extra) if came.chunks else [output]
        return Given(output, chunks, self._event(record, text_of(came.output), extra))

    def _worded(self, record: Record, decision: Decision) -> Given:
        extra = {"decision": decision.to_dict(), "route": self.cascade.provenance()}
        like = [came.output for came in self._came]
        output = _run.worded(record.text, record, extra, like)
        chunk = output
        if isinstance(output, AIMessage):
            metadata = output.response_metadata
            chunk = AIMessageChunk(content=record.text, response_metadata=metadata)
        return Given(output, [chunk], self._event(record, record.text, extra))

    def _reviewed(self, outcome: Outcome) -> Given:
        index, route = outcome.index or 0, self.cascade.provenance()
        record = self.cascade.attempts[index].record
        assert record is not None
        review = ask_person(
            {
                "answer": text_of(self._came[index].output),
                "confidence": record.confidence.value,
                "reason": outcome.reason,
                "attempts": route["attempts"],
            }
        )
        if review.action == "accept":
            return self._chosen(index, Decision("accept", "accepted by a person"))
        if review.action == "reject" and not review.text:
            raise LowConfidenceError("a person has rejected the answer", record)
        edited = unknown_record(review.text, reason="written by a person")
        return self._worded(edited, Decision("accept", "written by a person"))

    def _event(self, record: Record, text: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        bitcal = {**record.bitcal(), "decision": extra["decision"]}
        return {**extra["route"], "text": text, "model": record.model, "bitcal": bitcal}
