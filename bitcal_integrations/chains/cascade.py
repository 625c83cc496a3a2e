"""The course of one question through a primary and its fallbacks, as bookkeeping alone.

It says whom to ask next, judges what came, and in the end which answer to give. It asks nobody
itself, so sync, async and streaming callers drive it alike; it knows no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from bitcal_integrations.chains.records import EMPTY, judged, known
from bitcal_integrations.decide import Policy, as_policy
from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError
from bitcal_integrations.types import Action, Decision, Record

ON_EXHAUSTED = ("best", "last", "raise", "review", "abstain")
# What on_exhausted makes of an answer that was not accepted; everything else abstains.
_FINAL: dict[str, Action] = {
    "best": "escalate",
    "last": "escalate",
    "raise": "raise",
    "review": "review",
}
CUT = ("length", "error", "loop", "hopeless")  # how a generation ends that holds no whole answer
ABSTENTION = "I am not certain enough to answer."


@dataclass(frozen=True)
class Attempt:
    """One of the runnables that was asked: its record with the decision, or its error.

    `record` beside an `error` is what a LowConfidenceError carried.
    """

    name: str
    record: Record | None = None
    decision: Decision | None = None
    error: Exception | None = None

    @property
    def answered(self) -> bool:
        return self.record is not None and self.error is None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; `model` is the model's own name where the record knows it."""
        record = self.record
        return {
            "name": self.name,
            "model": (record.model if record else "") or self.name,
            "confidence": known(record) if record else None,
            "calibrated": record.confidence.calibrated if record else False,
            "decision": self.decision.to_dict() if self.decision else None,
            "finish": record.generation.finish if record else "error",
            "tokens": record.generation.n_tokens if record else 0,
            "error": f"{type(self.error).__name__}: {self.error}" if self.error else None,
        }


@dataclass(frozen=True)
class Outcome:
    """What to do in the end.

    action accept: give the answer of attempt `index`. escalate: give it too, though it was not
    accepted and there is nobody left to ask. review: ask a person about it. abstain: give `text`.
    """

    index: int | None
    action: Action
    text: str | None
    reason: str


class Cascade:
    """Follows one question: ask runnable `next`, tell what came by `judge` or `failed`, repeat
    until `next` is None, then read `outcome()`.

    Every answer is judged by the policy, the last one's too. Once nobody is left, `on_exhausted`
    decides: "best" gives the best answer (see `best`), "last" the last one that came, "raise"
    a LowConfidenceError with the best, "review" asks a person about the best, "abstain" gives a
    fixed sentence; any text with white space in it is given as that sentence. Errors of the kinds
    in `handle` pass on to the next runnable, others are raised. Where a framework has exceptions
    that steer it, its adapter must let them pass before it comes to `failed`.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> small, big = ToyModel({"?": ("4", 0.4)}), ToyModel({"?": ("5", 0.9)})
    >>> course = Cascade(as_policy(0.7), ["small", "big"])
    >>> while (at := course.next) is not None:
    ...     course.judge((small, big)[at].ask("?"))
    Decision(action='escalate', reason='0.40 < 0.70')
    Decision(action='accept', reason='0.90 >= 0.70')
    >>> course.outcome()
    Outcome(index=1, action='accept', text=None, reason='0.90 >= 0.70')
    """

    def __init__(
        self,
        policy: Policy,
        names: Sequence[str],
        on_exhausted: str = "best",
        handle: Sequence[type[Exception]] = (EngineError, LowConfidenceError),
    ) -> None:
        self.policy = as_policy(policy)
        self.names = _names(names)
        self.on_exhausted = check_on_exhausted(on_exhausted)
        self.handle = check_handle(handle)
        self.attempts: list[Attempt] = []
        self._settled: Outcome | None = None

    @property
    def next(self) -> int | None:
        """Which of the runnables to ask now; None when nobody is to be asked any more."""
        at = len(self.attempts)
        return at if self._settled is None and at < len(self.names) else None

    def judge(self, record: Record) -> Decision:
        """Take the answer of `next`; its record is kept with the decision in it."""
        name = self.names[self._asked()]
        record = judged(self.policy, record)
        decision = cast("Decision", record.decision)
        if decision.action == "accept" and _is_blank(record):
            decision = Decision("escalate", "there is no answer in it")
            record = replace(record, decision=decision)
        self.attempts.append(Attempt(name, record, decision))
        index = len(self.attempts) - 1
        if decision.action == "abstain":
            self._settled = Outcome(None, "abstain", self._abstention(), decision.reason)
        elif decision.action != "escalate":
            self._settled = Outcome(index, decision.action, None, decision.reason)
        return decision

    def failed(self, error: BaseException) -> None:
        """`next` failed with this: keep it and go on, or raise it where it is not to be handled."""
        name = self.names[self._asked()]
        if not isinstance(error, Exception):
            raise error
        record = error.record if isinstance(error, LowConfidenceError) else None
        self.attempts.append(Attempt(name, record, error=error))
        if not isinstance(error, self.handle):
            raise error

    def outcome(self) -> Outcome:
        """What to do in the end.

        Raises LowConfidenceError where the policy or `on_exhausted` says so, with the best record
        in it, and the first error where every runnable failed (unless it is to abstain and one of
        them withheld an answer of low confidence).
        """
        if self.next is not None:
            raise BadRequest(f"there is no outcome yet: {self.names[self.next]!r} is still to ask")
        settled = self._settled or self._exhausted()
        if settled.action == "raise":
            attempt = self.attempts[cast("int", settled.index)]
            errors = [a.error for a in self.attempts if a.error]
            raise LowConfidenceError(
                f"the answer of {attempt.name!r} is not accepted: {settled.reason}", attempt.record
            ) from (errors[0] if errors else None)
        return settled

    def provenance(self) -> dict[str, Any]:
        """Who was asked and whose answer it is, as plain JSON."""
        settled = self._settled
        if settled is None and self.next is None and self._answered():
            settled = self._exhausted()
        given = settled is not None and settled.action in ("accept", "escalate", "review")
        return {
            "attempts": [attempt.to_dict() for attempt in self.attempts],
            "chosen": settled.index if settled and given else None,
            "escalations": max(0, len(self.attempts) - 1),
        }

    # ---- nobody left to ask ----------------------------------------------------------------------

    def _exhausted(self) -> Outcome:
        action = _FINAL.get(self.on_exhausted, "abstain")
        answered = self._answered()
        if not answered:
            return self._all_failed(action)
        index = answered[-1] if self.on_exhausted == "last" else best(self.attempts)
        decision = self.attempts[index].decision
        reason = f"{decision.reason if decision else ''}; nobody is left to ask"
        if action == "abstain":
            return Outcome(None, action, self._abstention(), reason)
        return Outcome(index, action, None, reason)

    def _all_failed(self, action: Action) -> Outcome:
        """An answer that was withheld for low confidence can be abstained from; a failure not."""
        errors = [a.error for a in self.attempts if a.error]
        low = [error for error in errors if isinstance(error, LowConfidenceError)]
        if low and action == "abstain":
            return Outcome(None, action, self._abstention(), low[0].message)
        raise errors[0]

    def _answered(self) -> list[int]:
        return [i for i, attempt in enumerate(self.attempts) if attempt.answered]

    def _abstention(self) -> str:
        return ABSTENTION if self.on_exhausted in ON_EXHAUSTED else self.on_exhausted

    def _asked(self) -> int:
        if self.next is None:
            raise BadRequest("the cascade is settled: there is nobody whose answer is awaited")
        return self.next


def best(attempts: Sequence[Attempt]) -> int:
    """Which answer to give when none was accepted.

    The latest one of unknown confidence: a hosted model that shows no probabilities is asked
    because it is trusted more, and the others were measured to be too uncertain. Without one, the
    most certain; of equals the earlier, since another fallback should not change an answer for
    nothing. Last comes what holds no answer (empty, cut, nothing for the parser).
    """
    answered = [(_rank(a, i), i) for i, a in enumerate(attempts) if a.answered]
    return max(answered)[1]


def _rank(attempt: Attempt, index: int) -> tuple[int, float, int]:
    assert attempt.record is not None
    value = known(attempt.record)
    if value is not None:
        return 1, value, -index
    return (2 if _is_answer(attempt.record) else 0), 0.0, index


def _is_answer(record: Record) -> bool:
    """Whether it holds a whole answer: words to the end, or calls of tools."""
    if _calls(record):
        return True
    ended = record.generation.finish not in CUT
    return ended and not record.confidence.reason.startswith("no_answer")


def _calls(record: Record) -> bool:
    """Whether it is the record of a step that calls tools, which a framework's adapter tells."""
    return bool(getattr(record, "calls", ()))


def _is_blank(record: Record) -> bool:
    """Whether it is known to hold nothing, which no policy for the unknown can accept."""
    if record.text.strip() or _calls(record) or known(record) is not None:
        return False
    return record.generation.finish in CUT or record.confidence.reason == EMPTY


def check_on_exhausted(value: Any) -> str:
    """Refuse what says neither what to do nor what to answer."""
    if isinstance(value, str) and (value in ON_EXHAUSTED or _is_text(value)):
        return value
    raise BadRequest(
        f"on_exhausted={value!r:.80} is not allowed: it is one of {', '.join(ON_EXHAUSTED)}, "
        "or a text with white space in it, which is given instead of an answer"
    )


def _is_text(value: str) -> bool:
    """A misspelt word must not become an answer, so a text has white space in it."""
    return bool(value.strip()) and any(map(str.isspace, value))


def check_handle(kinds: Any) -> tuple[type[Exception], ...]:
    """The kinds of errors as a tuple; an exit or an interrupt is nobody's to handle."""
    found = tuple(kinds) if isinstance(kinds, (list, tuple)) else (kinds,)
    for kind in found:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise BadRequest(f"handle has {kind!r:.80}: it holds classes of Exception")
    return found


def _names(names: Any) -> tuple[str, ...]:
    found = () if isinstance(names, str) else tuple(names)
    if not found or not all(isinstance(name, str) for name in found):
        raise BadRequest(f"names={names!r:.80} must be a name for each that can be asked")
    return found
