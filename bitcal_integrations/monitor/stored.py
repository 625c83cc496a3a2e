"""Drift of a profile over the answers and labels that a store holds.

Reads a store from its oldest record on and lets a DriftMonitor see all of it: the same tests that
watch a model while it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitcal_integrations.monitor.drift import DriftMonitor, DriftReport, Limits
from bitcal_integrations.monitor.labels import representative
from bitcal_integrations.profile import Profile

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import Store

__all__ = ["drift_of"]


def drift_of(
    store: Store,
    profile: Profile,
    task: str = "default",
    *,
    since: float | None = None,
    until: float | None = None,
    alpha: float = 0.05,
    limits: Limits | None = None,
    policy: Any = None,
) -> DriftReport:
    """Where a task of a profile stands, by what was answered and labelled from `since` on.

    `since` and `until` are seconds since 1970. Labels that users gave of their own accord are left
    out, unless the answer was chosen to be labelled: they are mostly about wrong answers.
    """
    monitor = DriftMonitor(profile, task, alpha=alpha, limits=limits, policy=policy)
    for row in store.records(since=since, until=until):
        monitor.see(row.record)
        if row.correct is not None and representative(row):
            monitor.label(row.record, row.correct)
    return monitor.report()
