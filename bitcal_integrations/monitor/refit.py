"""A profile's calibrator from the labels that a store holds, if that is an improvement.

The new one is taken only where its Brier score on labels that it was not fitted on is clearly
lower than the old one's on the same labels. What the old profile promised is void then:
certificates and early stops must be certified again. The old profile stays as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcal_integrations.calibrators import adapt, fit_calibrator
from bitcal_integrations.calibrators._shift import Reference
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import group_numbers
from bitcal_integrations.monitor._held_out import (
    Compared,
    Fit,
    Predict,
    compare,
    crossed,
    summary_of,
)
from bitcal_integrations.monitor._numbers import STOPPED
from bitcal_integrations.monitor._sampling import weighted_mean
from bitcal_integrations.monitor._void import nothing_promised
from bitcal_integrations.monitor.drift import same_task
from bitcal_integrations.monitor.labels import representative
from bitcal_integrations.profile import Profile, TaskProfile
from bitcal_integrations.seen import marks_of, with_labels
from bitcal_integrations.types import Record

if TYPE_CHECKING:
    from bitcal_integrations.monitor.history import HistoryModel
    from bitcal_integrations.monitor.store import Store, StoredRecord

FEWEST = 20  # questions with a label
ADAPT = "adapt"
MOST_TRAFFIC = 20_000  # answers that the new reference scores are taken from, the last ones

__all__ = ["Refit", "refit_profile"]


@dataclass(frozen=True)
class Labelled:
    """The labelled answers of one task of a profile.

    `chance` is how probable it was that each was chosen to be labelled, 1 where all were.
    `traffic` holds the features of the last answers, labelled or not; `left_out` counts labels
    that were not used, by reason.
    """

    x: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    chance: np.ndarray
    traffic: np.ndarray
    records: tuple[Record, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Refit:
    """A new profile or history model, or neither where that is not clearly better than the old.

    `old` and `new` are Brier scores on the same `n` labels of `questions` questions, `change` is
    new minus old with its 95% interval `low` to `high`. `reason` says why it was taken or refused.
    """

    profile: Profile | None
    method: str
    old: float
    new: float
    change: float
    low: float
    high: float
    n: int
    questions: int
    reason: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    history: HistoryModel | None = None


def refit_profile(
    store: Store,
    profile: Profile,
    task: str = "default",
    *,
    method: str = "auto",
    since: float | None = None,
    until: float | None = None,
    all_labels: bool = False,
) -> Refit:
    """Fit a task's calibrator anew on the labels in a store.

    `method` is a calibrator, "adapt" for an offset on the old one, which a few labels are enough
    for, or "auto": the better of the offset and a calibrator of the labels' own. Labels that users
    gave of their own accord are left out unless `all_labels`, and answers that the profile's probe
    was fitted on always. Calibrators take no weights: where answers were chosen by their confidence
    alone, those of one confidence are right as often as all others of it, so that the fit needs
    none; the comparison is weighed. Prompts of a store without texts cannot be marked as used, so
    keep what is certified on apart yourself.
    """
    rows = labelled_rows(store, profile, task, since, until, all_labels)
    one = profile.task(task)
    tried = _candidates(one, rows, method)
    p_old = one.calibrator(rows.x)
    found = {
        name: compare(p_old, crossed(fit, rows.groups), rows.y, rows.chance, rows.groups)
        for name, fit in tried.items()
    }
    best = min(found, key=lambda name: found[name].new)
    result = found[best]
    new = None
    if result.better:
        new = _renewed(profile, task, _fitted(one, rows, best), rows, result)
    return as_refit(result, best, rows.groups, rows.left_out, profile=new)


def as_refit(
    found: Compared, method: str, groups: np.ndarray, left_out: Mapping[str, int], **new: Any
) -> Refit:
    """What came of a comparison, as its user sees it."""
    change = found.change
    return Refit(
        new.get("profile"), method, found.old, found.new, change.value, change.low, change.high,
        len(groups), len(set(groups)), _verdict(found, method), left_out, new.get("history"),
    )  # fmt: skip


def _verdict(found: Compared, name: str) -> str:
    """Why a refit is taken or refused, with the numbers."""
    change = found.change
    numbers = (
        f"the Brier score on held-out labels goes from {found.old:.4f} to {found.new:.4f}, "
        f"a change of {change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
    )
    return f"{name}: {numbers}" + ("" if found.better else ": no clear improvement")


def labelled_rows(
    store: Store,
    profile: Profile,
    task: str,
    since: float | None = None,
    until: float | None = None,
    all_labels: bool = False,
) -> Labelled:
    """The answers of a task with their labels; an error where there are too few."""
    one, lost = profile.task(task), Counter[str]()
    taken: list[tuple[StoredRecord, np.ndarray]] = []
    traffic: list[np.ndarray] = []
    for row in store.records(profile=profile.fingerprint, since=since, until=until):
        if not same_task(profile, task, row.task):
            continue
        x = one.schema.vector(row.record.confidence.signals)
        whole = bool(np.isfinite(x).all())
        if whole and row.finish not in STOPPED:
            traffic.append(x)
            del traffic[:-MOST_TRAFFIC]
        why = unusable(row, whole, one, all_labels)
        if why is None:
            taken.append((row, x))
        elif why:
            lost[why] += 1
    groups = check_enough([row for row, _ in taken], lost)
    return Labelled(
        x=np.array([x for _, x in taken]),
        y=np.array([verdict(row) for row, _ in taken]),
        groups=groups,
        chance=np.array([chance(row) for row, _ in taken]),
        traffic=np.array(traffic),
        records=tuple(row.record for row, _ in taken),
        left_out=dict(lost),
    )


def check_enough(rows: Sequence[StoredRecord], lost: Mapping[str, int]) -> np.ndarray:
    """The group of each labelled answer: its question. An error where these are too few."""
    named = [row.prompt_hash for row in rows]
    if len(set(named)) < FEWEST:
        left = "".join(f"; {n} {why}" for why, n in lost.items())
        raise CalibrationError(
            f"{len(rows)} labels of {len(set(named))} questions can be used, and {FEWEST} "
            f"questions are needed{left}",
            "Choose answers with pick_labels and say what is right with feedback.",
        )
    return group_numbers(named, len(named))


def verdict(row: StoredRecord) -> float:
    """1 right, 0 wrong: what is more likely, where judges differ."""
    return float((row.correct or 0) > 0.5)


def chance(row: StoredRecord) -> float:
    """How probable it was that the answer was chosen to be labelled; 1 where all were."""
    return row.pick.probability if row.pick else 1.0


def unusable(
    row: StoredRecord, whole: bool, one: TaskProfile | None, all_labels: bool
) -> str | None:
    """Why a label cannot be used; None where it can, empty where there is none.

    `one` is the task of the profile that the answer has its confidence from.
    """
    if row.correct is None:
        return ""
    if row.finish in STOPPED:
        return "of answers that ended early"
    if not whole:
        return "of answers without all features"
    if row.correct == 0.5:
        return "that say neither right nor wrong"
    if one is not None and one.told(row.record.request.prompt):
        return "of answers that the profile's probe was fitted on"
    if not all_labels and not representative(row):
        return "given by users of their own accord"
    return None


def _candidates(one: TaskProfile, rows: Labelled, method: str) -> dict[str, Fit]:
    names = [method]
    if method == "auto":
        names = ["auto", ADAPT] if one.label_source == "labels" else ["auto"]
    elif method == ADAPT and one.label_source != "labels":
        raise CalibrationError(
            f"a confidence of this profile means that an answer {one.claim}: labels of right "
            "answers cannot be mixed with that",
            "Use another method, which fits on these labels alone.",
        )

    def fit_as(name: str) -> Fit:
        def fit(kept: np.ndarray) -> Predict:
            cal = _fit(one, rows, name, kept)
            return lambda which: cal(rows.x[which])

        return fit

    return {name: fit_as(name) for name in names}


def _fit(one: TaskProfile, rows: Labelled, name: str, kept: np.ndarray) -> Any:
    x, y, groups = rows.x[kept], rows.y[kept], rows.groups[kept]
    if name == ADAPT:
        return adapt(one.calibrator, x, y, groups=groups)
    if y.min() == y.max():  # a fold in which all are right has nothing to tell apart
        name = "constant"
    return fit_calibrator(x, y, one.schema.names, name, groups=groups)


def _fitted(one: TaskProfile, rows: Labelled, name: str) -> Any:
    """On all labels; its reference scores are those of all answers, not of the chosen ones."""
    cal = _fit(one, rows, name, np.arange(len(rows.y)))
    if cal.transferred:
        return cal
    return replace(cal, reference=Reference.of(cal.columns.scaled(rows.traffic)))


def _renewed(
    profile: Profile, task: str, calibrator: Any, rows: Labelled, found: Compared
) -> Profile:
    """The profile with another calibrator, and without what was promised of the old one."""
    name, one = profile.name_of(task), profile.task(task)
    n = len(rows.y)
    base = np.full(n, weighted_mean(rows.y, rows.chance).value)
    raw = np.array([r.confidence.raw for r in rows.records], dtype=float)
    scores = {"base": base, "raw": raw, "calibrated": found.p_new}
    known = np.isfinite(raw)
    new = replace(
        one,
        calibrator=calibrator,
        label_source="labels",
        counts={**dict.fromkeys(one.counts, 0), "fit": n, "certify": 0, "report": 0, "examples": n,
                "unanswered": 0, "unjudged": 0},
        scores={
            kind: summary_of(p[known], rows.y[known], rows.chance[known], rows.groups[known])
            for kind, p in scores.items()
        },
        flips={"threshold": 0.5, "n": 0, "changed": 0, "batch": 1},
        transferred_from=one.transferred_from if calibrator.transferred else None,
        seen=_seen(one, rows),
        **nothing_promised(one),
    )  # fmt: skip
    return replace(profile, tasks={**profile.tasks, name: new})


def _seen(one: TaskProfile, rows: Labelled) -> dict[str, str]:
    """The prompts that a report must leave out: those of the old fit and these."""
    mine = marks_of([r.request.prompt for r in rows.records])
    return with_labels(one.seen, mine, probe=one.schema.probe is not None)
