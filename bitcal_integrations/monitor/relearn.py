"""A history correctness model from the labels of a store, if it is an improvement.

All tasks, and all profiles whose answers the store holds, are learned from together. It is taken
only where its Brier score on labels that it was not fitted on is clearly lower than that of the
confidence as it was said. Knows stores and history models; changes no profile.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bitcal_integrations.errors import ProfileError
from bitcal_integrations.monitor._held_out import Predict, compare, crossed
from bitcal_integrations.monitor.history import HistoryModel, Told, fit_history, told_of
from bitcal_integrations.monitor.refit import (
    Refit,
    as_refit,
    chance,
    check_enough,
    unusable,
    verdict,
)
from bitcal_integrations.profile import Profile, TaskProfile

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import Store, StoredRecord

__all__ = ["refit_history"]


def refit_history(
    store: Store,
    profile: Profile,
    *,
    method: str = "logistic",
    since: float | None = None,
    until: float | None = None,
    all_labels: bool = False,
) -> Refit:
    """Learn from all labels in a store what is right of the answers of a profile's model.

    Answers of other profiles in the store, such as other weights of the model, are learned from as
    well. `method` is a calibrator that reads all columns. Texts are read where the store keeps
    them. Labels that users gave of their own accord are left out unless `all_labels`.
    """
    told, rows, lost = _labelled(store, profile, since, until, all_labels)
    groups = check_enough(rows, lost)
    y = np.array([verdict(row) for row in rows])
    signals = _common(told, profile)

    def fitted(kept: np.ndarray) -> HistoryModel:
        some = [told[i] for i in kept]
        return fit_history(some, y[kept], groups[kept], signals=signals, text=store.text,
                           method=method)  # fmt: skip

    def fit(kept: np.ndarray) -> Predict:
        learned = fitted(kept)
        return lambda which: _or_old(learned, [told[i] for i in which])

    old = np.array([t.confidence for t in told])
    chances = np.array([chance(row) for row in rows])
    found = compare(old, crossed(fit, groups), y, chances, groups)
    learned = fitted(np.arange(len(y))) if found.better else None
    return as_refit(found, f"history, {method}", groups, lost, history=learned)


def _labelled(
    store: Store, profile: Profile, since: float | None, until: float | None, all_labels: bool
) -> tuple[list[Told], list[StoredRecord], Counter[str]]:
    """What is known of the labelled answers that have a confidence."""
    told, rows, lost = [], [], Counter[str]()
    for row in store.records(since=since, until=until, labelled=True):
        one, here = _told(row, profile)
        why = unusable(row, not math.isnan(here.confidence), one, all_labels)
        if why is None:
            told.append(here)
            rows.append(row)
        elif why:
            lost[why] += 1
    return told, rows, lost


def _told(row: StoredRecord, profile: Profile) -> tuple[TaskProfile | None, Told]:
    """The task of the profile, if the answer is of one, and what is known of the answer.

    With the confidence that the profile says, even where a history model said another one.
    """
    record = row.record
    name = _name_of(row, profile)
    here = told_of(record.request, record.text, record.confidence, name or row.task)
    if name is None:
        return None, here
    one = profile.task(name)
    p = float(one.calibrator(one.schema.vector(here.signals)[None])[0])
    return one, replace(here, confidence=p)


def _name_of(row: StoredRecord, profile: Profile) -> str | None:
    try:
        return profile.name_of(row.task) if row.profile == profile.fingerprint else None
    except ProfileError:
        return None


def _common(told: list[Told], profile: Profile) -> tuple[str, ...]:
    """The features of the profile's tasks that every labelled answer has."""
    names = {name: None for one in profile.tasks.values() for name in one.schema.names}
    return tuple(n for n in names if all(math.isfinite(t.signals.get(n, math.nan)) for t in told))


def _or_old(model: HistoryModel, told: list[Told]) -> np.ndarray:
    """P(right) of each; the old confidence where a fold has not heard of its profile or task."""
    p, old = model(told), np.array([t.confidence for t in told])
    return np.where(np.isnan(p), old, p)
