"""What a store says over time: answers, confidence and labels, drift, hand-overs, cost.

One pass over the store, which may be larger than memory: hours are counted, labelled answers are
kept as numbers. Labels are weighed by how probable it was that the answer was chosen; those that
users gave of their own accord are shown among the wrong answers and nowhere else. Draws nothing.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcal_integrations.monitor._hours import Hour, merged, period_length, saving_of
from bitcal_integrations.monitor._sampling import Estimated, weighted_mean
from bitcal_integrations.monitor.drift import DriftMonitor, DriftReport, Limits, same_task
from bitcal_integrations.monitor.labels import representative
from bitcal_integrations.profile import Profile

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import Store, StoredRecord

WORST, MOST_BINS, LABELS_PER_BIN, REASONS = 10, 10, 20, 8

__all__ = ["Bin", "Period", "Timeline", "WrongAnswer", "prepare_timeline"]


@dataclass(frozen=True)
class Period:
    """What was answered from `start` on, in seconds since 1970; shares are None of nothing.

    `confidence` is the mean of those that are known. `accuracy` is what the labels say of all
    answers of the period, `said` the mean confidence of the same labelled ones, weighed alike.
    """

    start: float
    answers: int
    confidence: float | None
    unknown: float | None
    escalated: float | None
    stopped: float | None
    tokens: float | None
    probe_tokens: float | None
    seconds_p50: float | None
    seconds_p95: float | None
    labels: int
    accuracy: Estimated | None
    said: float | None


@dataclass(frozen=True)
class Bin:
    """Labelled answers of nearby confidence, and the share right of all answers like them."""

    low: float
    high: float
    labels: int
    confidence: float
    accuracy: Estimated


@dataclass(frozen=True)
class WrongAnswer:
    """One of the wrong answers with the highest confidence; texts are None where none is kept."""

    id: str
    at: float
    task: str
    confidence: float
    source: str
    prompt: str | None
    answer: str | None
    gold: str | None


@dataclass(frozen=True)
class Timeline:
    """All numbers of a report over time.

    `seconds` is the length of a period and `total` the whole as one. `brier` and `gap` (confidence
    minus accuracy) are over the labelled answers that have a confidence. `saved` tokens are
    expected by the promises of the early stops in force for `promised` answers; None without any.
    `unchosen` labels are left out of all estimates, `open` choices have no label that
    counts yet.
    """

    title: str
    store: str
    seconds: float
    periods: tuple[Period, ...]
    total: Period
    bins: tuple[Bin, ...]
    brier: Estimated | None
    gap: Estimated | None
    drift: tuple[DriftReport, ...]
    wrong: tuple[WrongAnswer, ...]
    reasons: tuple[tuple[str, int], ...]
    models: tuple[tuple[str, int], ...]
    tasks: tuple[tuple[str, int], ...]
    saved: float | None
    promised: int
    unchosen: int
    open: int


@dataclass
class _Seen:
    """What one pass has gathered so far; labels are (hour, confidence or NaN, right, chance)."""

    hours: dict[int, Hour] = field(default_factory=dict)
    labels: list[tuple[int, float, float, float]] = field(default_factory=list)
    worst: list[tuple[float, int, WrongAnswer]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    saved: float = 0.0
    promised: int = 0
    unchosen: int = 0
    open: int = 0


def prepare_timeline(
    store: Store,
    profile: Profile | None = None,
    task: str | None = None,
    *,
    since: float | None = None,
    until: float | None = None,
    title: str = "",
    alpha: float = 0.05,
    limits: Limits | None = None,
) -> Timeline:
    """The numbers of a report over time; drift is told of the tasks of `profile`.

    `since` and `until` are seconds since 1970, `alpha` and `limits` those of DriftMonitor.
    """
    monitors = _monitors(profile, task, alpha, limits)
    seen = _Seen()
    for row in store.records(since=since, until=until):
        if not _of_task(row, profile, task):
            continue
        _count(seen, row, store.text)
        for monitor in monitors:
            monitor.see(row.record)
            if row.correct is not None and representative(row):
                monitor.label(row.record, row.correct)
    return _timeline(seen, store, title, [monitor.report() for monitor in monitors])


def _monitors(
    profile: Profile | None, task: str | None, alpha: float, limits: Limits | None
) -> list[DriftMonitor]:
    if profile is None:
        return []
    names = list(profile.tasks) if task is None else [profile.name_of(task)]
    return [DriftMonitor(profile, name, alpha=alpha, limits=limits) for name in names]


def _of_task(row: StoredRecord, profile: Profile | None, task: str | None) -> bool:
    if task is None or row.task == task:
        return True
    return profile is not None and same_task(profile, task, row.task)


def _count(seen: _Seen, row: StoredRecord, text: bool) -> None:
    hour = int(row.at // 3600)
    seen.hours.setdefault(hour, Hour()).add(row)
    seen.models[row.model] += 1
    seen.tasks[row.task] += 1
    if row.confidence is None:
        seen.reasons[row.record.confidence.reason.partition(":")[0] or "no reason given"] += 1
    saving = saving_of(row.record)
    if saving is not None:
        seen.promised += 1
        seen.saved += row.n_tokens * saving / (1 - saving)
    if row.correct is None:
        seen.open += row.pick is not None
        return
    if representative(row):
        chance = row.pick.probability if row.pick else 1.0
        p = math.nan if row.confidence is None else row.confidence
        seen.labels.append((hour, p, row.correct, chance))
    elif row.pick:
        seen.open += 1  # what a user said before it was chosen does not count
    else:
        seen.unchosen += 1
    if row.correct < 0.5 and row.confidence is not None:
        item = (row.confidence, -row.seq, _wrong(row, row.confidence, text))
        (heapq.heappush if len(seen.worst) < WORST else heapq.heappushpop)(seen.worst, item)


def _wrong(row: StoredRecord, confidence: float, text: bool) -> WrongAnswer:
    assert row.label is not None
    record = row.record
    prompt = record.request.prompt
    if not isinstance(prompt, str):
        prompt = "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    answer = record.generation.answer
    gold = row.label.gold
    return WrongAnswer(
        row.id, row.at, row.task, confidence, row.label.source,
        prompt if text else None,
        (answer.text if answer else record.text) if text else None,
        str(gold) if text and gold is not None else None,
    )  # fmt: skip


def _timeline(seen: _Seen, store: Store, title: str, drift: Sequence[DriftReport]) -> Timeline:
    length = period_length(seen.hours)
    labels = np.array(seen.labels, dtype=float).reshape(-1, 4)
    periods = [
        _period(
            start * 3600.0, hour, labels[(labels[:, 0] >= start) & (labels[:, 0] < start + length)]
        )
        for start, hour in merged(seen.hours, length)
    ]
    first = min(seen.hours, default=0) * 3600.0
    _, p, y, chance = labels[~np.isnan(labels[:, 1])].T
    return Timeline(
        title=title or "Records over time",
        store=store.url,
        seconds=length * 3600.0,
        periods=tuple(periods),
        total=_period(first, Hour.sum(seen.hours.values()), labels),
        bins=tuple(_bins(p, y, chance)),
        brier=weighted_mean((p - y) ** 2, chance) if p.size else None,
        gap=weighted_mean(p - y, chance) if p.size else None,
        drift=tuple(drift),
        wrong=tuple(wrong for _, _, wrong in sorted(seen.worst, key=lambda w: (-w[0], -w[1]))),
        reasons=tuple(seen.reasons.most_common(REASONS)),
        models=tuple(seen.models.most_common()),
        tasks=tuple(seen.tasks.most_common()),
        saved=seen.saved if seen.promised else None,
        promised=seen.promised,
        unchosen=seen.unchosen,
        open=seen.open,
    )


def _period(start: float, hour: Hour, labels: Any) -> Period:
    known = labels[~np.isnan(labels[:, 1])]
    return Period(
        start=start,
        labels=len(labels),
        accuracy=weighted_mean(labels[:, 2], labels[:, 3], share=True) if len(labels) else None,
        said=weighted_mean(known[:, 1], known[:, 3]).value if len(known) else None,
        **hour.numbers(),
    )


def _bins(p: np.ndarray, y: np.ndarray, chance: np.ndarray) -> Iterable[Bin]:
    """Bins of as many labels each as ties allow, from low to high."""
    if not p.size:
        return
    bins = min(MOST_BINS, max(1, p.size // LABELS_PER_BIN))
    where = (np.searchsorted(np.sort(p), p, side="left") * bins) // p.size
    for b in np.unique(where):
        inside = where == b
        mine = p[inside]
        yield Bin(
            float(mine.min()), float(mine.max()), int(mine.size),
            weighted_mean(mine, chance[inside]).value,
            weighted_mean(y[inside], chance[inside], share=True),
        )  # fmt: skip
