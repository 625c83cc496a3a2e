"""Watch a model's profile while it answers, and turn it off where it has expired.

`watch_drift(model)` adds a sink that compares every answer with the profile. A state that gets
worse is told through logging and to `tell`; with on_drift="unknown" the confidence of an expired
task is None from then on, with the reason, and its certified early stops are not in force, while
answers, parsers and signals stay as they are.
Knows models and drift; labels come from whoever has them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from bitcal_integrations.assess import Assessor
from bitcal_integrations.decide import StopCertificate
from bitcal_integrations.errors import BadRequest, ProfileError
from bitcal_integrations.monitor.drift import DriftMonitor, DriftReport, Limits, same_task
from bitcal_integrations.monitor.labels import representative
from bitcal_integrations.monitor.watch import HANDLES
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Confidence, Generation, Observation, Record, Request

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import Store

logger = logging.getLogger(__name__)
ON_DRIFT = ("tell", "unknown")

__all__ = ["DriftWatch", "watch_drift"]


def watch_drift(
    model: Any,
    *,
    on_drift: Literal["tell", "unknown"] = "tell",
    alpha: float = 0.05,
    limits: Limits | None = None,
    policy: Any = None,
    tell: Callable[[DriftReport], None] | None = None,
) -> DriftWatch:
    """Compare the answers of a model with its profile from here on, every task by itself.

    `model` is a loaded model with its profile, or a chat model or llm of our adapters. `alpha` is
    the chance of a false alarm per task, however long it is watched. Use it in a `with` block, or
    close it; closing turns nothing on again, `model.use_profile` does.
    """
    if on_drift not in ON_DRIFT:
        raise BadRequest(f"on_drift={on_drift!r} is not allowed: use {' or '.join(ON_DRIFT)}")
    options = {"alpha": alpha, "limits": limits, "policy": policy}
    return DriftWatch(_with_profile(model), on_drift, options, tell)


def _with_profile(model: Any) -> Any:
    """The model itself, or the one that an adapter's object holds, if it has a profile."""
    for found in (model, *(getattr(model, name, None) for name in HANDLES)):
        if isinstance(getattr(found, "profile", None), Profile):
            return found
    raise ProfileError(
        f"{model!r:.100} has no profile that could drift",
        "Load it with its profile, or measure one with fit_profile.",
    )


class DriftWatch:
    """What has been seen of a model's tasks; made by `watch_drift`."""

    def __init__(
        self,
        model: Any,
        on_drift: str,
        options: Mapping[str, Any],
        tell: Callable[[DriftReport], None] | None,
    ) -> None:
        self._model, self._on_drift, self._options, self._tell = model, on_drift, options, tell
        self._begun, self._labelled = time.time(), set[str]()
        self._lock = threading.Lock()
        self._profile: Profile = model.profile
        self._monitors = self._begin()
        self._remove: Callable[[], None] = model.add_sink(self.see)

    def _begin(self) -> dict[str, DriftMonitor]:
        return {n: DriftMonitor(self._profile, n, **self._options) for n in self._profile.tasks}

    def see(self, record: Record) -> None:
        """One answer; the model calls this."""
        for monitor in self._now().values():
            if monitor.see(record):
                self._act(monitor)

    def label(self, record: Record, correct: bool | float) -> None:
        """Whether an answer was right; give every answer once."""
        for monitor in self._now().values():
            if monitor.label(record, correct):
                self._act(monitor)

    def pull(self, store: Store) -> int:
        """Take from a store the labels that it holds of answers since this watch began.

        Those that users gave of their own accord count only where the answer was chosen to be
        labelled. Says how many were new.
        """
        new = 0
        for row in store.records(since=self._begun, labelled=True):
            if row.correct is not None and representative(row) and self._first(row.id):
                self.label(row.record, row.correct)
                new += 1
        return new

    def _first(self, record_id: str) -> bool:
        """Whether a label of this answer is taken for the first time; others may pull as well."""
        with self._lock:
            first = record_id not in self._labelled
            self._labelled.add(record_id)
            return first

    def report(self) -> dict[str, DriftReport]:
        """Where each task stands."""
        return {name: monitor.report() for name, monitor in self._now().items()}

    def _now(self) -> dict[str, DriftMonitor]:
        """The monitors of the model's profile; another profile begins anew."""
        with self._lock:
            profile = self._model.profile
            if profile is not None and profile is not self._profile:
                self._profile = profile
                self._monitors = self._begin()
            return self._monitors

    def _act(self, monitor: DriftMonitor) -> None:
        report = monitor.report()
        logger.warning("task %r: %s", monitor.task, report)
        if report.state == "expired" and self._on_drift == "unknown":
            turn_off(self._model, monitor.profile, monitor.task, "; ".join(report.reasons))
        if self._tell is not None:
            self._tell(report)

    def close(self) -> None:
        """Watch no longer."""
        self._remove()

    def __enter__(self) -> DriftWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def turn_off(model: Any, profile: Profile, task: str, reason: str) -> bool:
    """From now on a task of the model's profile gives no confidence; whether it did until now.

    Requests under way are judged when they end, so that theirs is unknown as well. A model that
    has taken another profile meanwhile is left alone.
    """
    while (assessor := model._assessor).profile is profile:
        below, off = assessor, {}
        if isinstance(assessor, _PartlyOff):
            below, off = assessor.below, assessor.off
        if model.swap_assessor(assessor, _PartlyOff(below, {**off, task: reason})):
            return task not in off
    return False


class _PartlyOff(Assessor):
    """An assessor as it was, but for tasks that have expired; it measures those as before."""

    def __init__(self, assessor: Assessor, off: Mapping[str, str]) -> None:
        self.__dict__.update(assessor.__dict__)  # the same windows and lock: requests go on in them
        self.below, self.off = assessor, dict(off)
        self._strict = False  # an early stop that is not in force is told, not refused

    def _certified(self, name: str, request: Request) -> tuple[StopCertificate | None, str]:
        reason = self._reason(request.task)
        return (None, reason) if reason else self.below._certified(name, request)

    def confidence(
        self, request: Request, generation: Generation, observation: Observation | None = None
    ) -> Confidence:
        return self._unless_off(self.below.confidence(request, generation, observation))

    def of_signals(self, request: Request, bare: Confidence) -> Confidence:
        return self._unless_off(self.below.of_signals(request, bare))

    def _unless_off(self, found: Confidence) -> Confidence:
        reason = self._reason(found.task)
        if found.value is None or not reason:
            return found
        return replace(
            found, value=None, calibrated=False, low=None, high=None, interval=None, reason=reason
        )

    def _reason(self, task: str) -> str:
        assert self.profile is not None
        why = next((w for name, w in self.off.items() if same_task(self.profile, name, task)), "")
        return why and f"expired: {why}"
