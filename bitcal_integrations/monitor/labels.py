"""Which answers of a store to label next, and what the labels say of all its answers.

`pick_labels` chooses evenly over the range of confidence, with more of the most confident answers,
where a mistake costs most, and audits a share of everything; the probability of every choice is
kept in the store. `estimate` weighs labels by it, so that an uneven choice misleads nobody. What
users report by themselves counts only where the answer had been chosen. Fits nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitcal_integrations.monitor._rows import Pick, StoredRecord
from bitcal_integrations.monitor._sampling import AUDIT, Estimated, choose, weighted_mean

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import Store

USER = "user"  # the source of labels that are given by whoever likes to

__all__ = ["LabelEstimate", "estimate", "open_picks", "pick_labels", "representative"]


def pick_labels(
    store: Store,
    n: int,
    *,
    task: str | None = None,
    profile: str | None = None,
    since: float | None = None,
    until: float | None = None,
    audit: float = AUDIT,
    seed: int = 0,
) -> list[Pick]:
    """Choose about `n` answers that were not chosen before, and keep the choice in the store.

    Look at them with `store.get(pick.record_id)`, and say what is right with `feedback`, best with
    a `source` other than "user": users report what is wrong, and what they said of an answer before
    it was chosen counts for nothing, so that those answers are among the choices too. `audit` is
    the share of all answers that is chosen whatever their confidence; keep it and `seed` as they
    are, so that later choices add to earlier ones. Times are seconds since 1970.
    """
    ids, confidence, picked, judged = [], [], dict[str, Pick](), set()
    for row in store.records(task=task, profile=profile, since=since, until=until):
        ids.append(row.id)
        confidence.append(math.nan if row.confidence is None else row.confidence)
        if row.pick is not None:
            picked[row.id] = row.pick
        if row.label is not None and row.label.source != USER:
            judged.add(row.id)
    now, chances = time.time(), {i: pick.probability for i, pick in picked.items()}
    picks = [
        Pick(c.id, c.probability, c.why, picked[c.id].at if c.id in picked else now)
        for c in choose(ids, confidence, n, picked=chances, audit=audit, seed=seed)
    ]
    store.add_picks(picks)
    return [p for p in picks if p.record_id not in picked and p.record_id not in judged]


def open_picks(store: Store, task: str | None = None) -> list[StoredRecord]:
    """Answers that were chosen and have no label that counts yet."""
    return [row for row in store.records(task=task) if row.pick and not representative(row)]


def representative(row: StoredRecord) -> bool:
    """Whether a row's label came about without regard to its being right.

    Users report what is wrong; their labels count where the answer had been chosen by then.
    """
    if row.label is None or row.label.source != USER:
        return row.label is not None
    return row.pick is not None and row.label.at >= row.pick.at


@dataclass(frozen=True)
class LabelEstimate:
    """What the labels of chosen answers say of all answers.

    `accuracy` is the share right; `gap` is how far the confidence lies above (+) or below (-) it on
    the answers that have one, `brier` its Brier score; None without such labels. `open` choices
    have no label that counts yet: while they are other than the rest, nothing is sure.
    `as_they_came` is the plain share right among all labels, `unchosen` of which were not chosen
    and are left out else.
    """

    accuracy: Estimated | None
    gap: Estimated | None
    brier: Estimated | None
    answers: int
    open: int
    unchosen: int
    as_they_came: float | None


def estimate(
    store: Store,
    *,
    task: str | None = None,
    profile: str | None = None,
    since: float | None = None,
    until: float | None = None,
) -> LabelEstimate:
    """The accuracy of all answers, and how far their confidence is from it."""
    answers = open_ = unchosen = 0
    plain: list[float] = []
    rows: list[tuple[float, float, float]] = []
    for row in store.records(task=task, profile=profile, since=since, until=until):
        answers += 1
        counts = row.pick is not None and representative(row)
        open_ += row.pick is not None and not counts
        if row.correct is None:
            continue
        plain.append(row.correct)
        unchosen += row.pick is None
        if row.pick is not None and counts:
            p = math.nan if row.confidence is None else row.confidence
            rows.append((row.correct, p, row.pick.probability))
    y, p, chance = np.array(rows, dtype=float).reshape(-1, 3).T
    known = ~np.isnan(p)
    return LabelEstimate(
        accuracy=weighted_mean(y, chance, share=True) if y.size else None,
        gap=weighted_mean((p - y)[known], chance[known]) if known.any() else None,
        brier=weighted_mean(((p - y) ** 2)[known], chance[known]) if known.any() else None,
        answers=answers,
        open=open_,
        unchosen=unchosen,
        as_they_came=float(np.mean(plain)) if plain else None,
    )
