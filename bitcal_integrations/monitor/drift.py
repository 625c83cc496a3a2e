"""Does a profile still hold for what a model is asked now? Scores and labels against it.

`DriftMonitor` reads answers one by one and says ok, watch or expired, with the reasons in words.
While the profile holds, the state leaves "ok" with a chance of at most `alpha`, however long one
watches and however often one looks. It holds while scores come from where the measured ones came
from, up to a slack of 2 points of share, and answers are right as often as their confidence says,
up to half the width of its interval and 2 points. That speaks of questions that come one by one: a
burst of copies of one question is itself unlike what was measured. Nothing here knows how records
are kept, nor turns anything off: see guard.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor._evidence import (
    LABEL_SLACK,
    LARGE,
    SCORE_SLACK,
    SMALL,
    LabelTest,
    ScoreTest,
)
from bitcal_integrations.monitor._numbers import STOPPED, Limits, Numbers, seen_of
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Record

State: TypeAlias = Literal["ok", "watch", "expired"]
STATES: tuple[State, ...] = ("ok", "watch", "expired")
SHARES = 5  # of alpha: the reference, and two games each of scores and of labels

__all__ = ["DriftMonitor", "DriftReport", "Limits", "State"]


def same_task(profile: Profile, mine: str, theirs: str) -> bool:
    """Whether two names mean one task of a profile; a name that it does not know means none."""
    known = theirs in profile.tasks or theirs == "default"
    return known and profile.name_of(theirs) == profile.name_of(mine)


@dataclass(frozen=True)
class DriftReport:
    """Where one task of a profile stands.

    "watch": the scores, or how often the answers are right, are sure to have moved, or a limit is
    crossed. "expired": they moved so far that the confidence should not be used. `answers` and
    `labels` were compared with the profile; `evidence` maps each test to the most that was found
    against the profile, of `needed`; `numbers` are of the last answers. `since` counts the answers
    seen when the state was entered, and `reasons` say what they showed then.
    """

    state: State
    reasons: tuple[str, ...]
    task: str
    profile: str
    answers: int
    labels: int
    evidence: dict[str, float]
    needed: float
    alpha: float
    since: int
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "reasons": list(self.reasons), "numbers": dict(self.numbers)}

    def __str__(self) -> str:
        return f"{self.state}: {'; '.join(self.reasons) or 'nothing speaks against the profile'}"


class DriftMonitor:
    """Compares answers, and labels of some of them, with one task of a profile.

    The state only gets worse: after a repair, begin anew. `policy` decides where a record holds no
    decision of its own, and `limits` are told about in the state "watch"; neither is part of the
    promise that `alpha` makes. Safe to use from many threads.
    """

    def __init__(
        self,
        profile: Profile,
        task: str = "default",
        *,
        alpha: float = 0.05,
        limits: Limits | None = None,
        policy: Any = None,
    ) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, float) or not 0 < alpha < 1:
            raise BadRequest(f"alpha={alpha!r} is not allowed: it is a chance between 0 and 1")
        self.profile, self.task = profile, profile.name_of(task)
        self._one = profile.task(task)
        self.alpha, self.needed = alpha, SHARES / alpha
        self._scores = ScoreTest(self._one.calibrator, alpha / SHARES)
        self._labels = LabelTest(self._one.calibrator)
        self._numbers = Numbers(limits or Limits())
        self._policy = None if policy is None else as_policy(policy)
        self._seen, self._level, self._since = 0, 0, 0
        self._why: tuple[str, ...] = ()
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        return STATES[self._level]

    def see(self, record: Record) -> bool:
        """One answer; whether the state got worse. Another task's or another model's is ignored."""
        if not self._mine(record):
            return False
        row = self._row(record)
        with self._lock:
            self._seen += 1
            self._numbers.see(seen_of(record, self._action(record)))
            if row is not None:
                self._scores.see(row)
            return self._moved_on()

    def label(self, record: Record, correct: bool | float) -> bool:
        """Whether an answer was right (a share where judges differ); whether the state got worse.

        Give every answer once. Answers should be chosen for labelling by their confidence or at
        random: what users report by themselves is mostly wrong, and says little about the rest.
        """
        y = float(correct)
        if not 0 <= y <= 1:
            raise BadRequest(
                f"correct={correct!r} is not allowed: True, False or a share in [0, 1]"
            )
        row = self._row(record) if self._mine(record) else None
        if row is None:
            return False
        with self._lock:
            self._labels.see(row, y)
            return self._moved_on()

    def see_all(self, records: Iterable[Record]) -> DriftReport:
        """Many answers, in the order in which they were given."""
        for record in records:
            self.see(record)
        return self.report()

    def report(self) -> DriftReport:
        with self._lock:
            tests = {"scores": self._scores.bets, "labels": self._labels.bets}
            return DriftReport(
                state=self.state,
                reasons=self._why,
                task=self.task,
                profile=self.profile.fingerprint,
                answers=self._scores.bets.n,
                labels=self._labels.bets.n,
                evidence={
                    name + far: float(bets.most[game])
                    for name, bets in tests.items()
                    for game, far in ((SMALL, ""), (LARGE, "_far"))
                },
                needed=self.needed,
                alpha=self.alpha,
                since=self._since,
                numbers=self._numbers.to_dict(),
            )

    def _mine(self, record: Record) -> bool:
        confidence, task = record.confidence, record.request.task
        # What has no answer carries no profile; what was cancelled says nothing about the model.
        empty = confidence.profile is None and confidence.reason.startswith("no_answer")
        ours = confidence.profile == self.profile.fingerprint or (
            empty and record.generation.finish != "cancelled"
        )
        return ours and same_task(self.profile, self.task, task)

    def _row(self, record: Record) -> np.ndarray | None:
        """The features of an answer; None where one is missing, or where there is no answer.

        One that ended early has its confidence from its stop, and scores unlike whole answers'.
        """
        row = self._one.schema.vector(record.confidence.signals)
        whole = record.generation.finish not in STOPPED
        answered = whole and not record.confidence.reason.startswith("no_answer")
        return row if answered and np.isfinite(row).all() else None

    def _action(self, record: Record) -> str | None:
        if record.decision is None and self._policy is None:
            return None
        return (record.decision or self._policy.decide(record)).action  # type: ignore[union-attr]

    def _moved_on(self) -> bool:
        found = [self._scores.bets.most >= self.needed, self._labels.bets.most >= self.needed]
        watch = any(f[SMALL] for f in found) or bool(self._numbers.crossed(self.needed))
        level = 2 if any(f[LARGE] for f in found) else int(watch)
        worse = level > self._level
        if worse:
            self._level, self._since, self._why = level, self._seen, tuple(self._reasons())
        return worse

    def _reasons(self) -> list[str]:
        said = []
        for test, what, slack in (
            (self._scores, "the scores are unlike those measured", SCORE_SLACK),
            (self._labels, "the confidence does not come true", LABEL_SLACK),
        ):
            sure = test.bets.most >= self.needed
            if sure[SMALL] or sure[LARGE]:
                far = "far " if sure[LARGE] else ""
                beyond = slack[LARGE if sure[LARGE] else SMALL]
                said.append(f"{far}{what}, by more than {beyond:.0%}: {test.moved()[1]}")
        return said + self._numbers.crossed(self.needed)
