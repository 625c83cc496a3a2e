"""From labelled answers to the numbers of a report.

Every row is counted: answers without a verdict or without a confidence have their own figures,
and rows that calibration was fitted or certified on are left out, because a score looks better on
the rows that made it. Draws nothing.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.report import _curves, _rows
from bitcal_integrations.report._slices import breakdowns
from bitcal_integrations.report._stops import stops
from bitcal_integrations.report.evaluation import (
    BASE,
    CALIBRATED,
    RAW,
    Counts,
    Estimate,
    Evaluation,
    Promise,
    Scores,
    Tally,
)
from bitcal_integrations.types import Labelled

MADE_ON = ("fit", "certify")  # parts whose rows made the numbers that a report judges
LABELS = "labels"
FEW_GROUPS = 10  # a bootstrap over fewer groups says nothing about the next group


def prepare_evaluation(
    rows: Iterable[Labelled],
    certificates: Iterable[Any] = (),
    profile: Mapping[str, Any] | None = None,
    title: str = "",
    seed: int = 0,
) -> Evaluation:
    """The numbers of a report on these answers.

    `certificates` are Certificates or their dicts, with "task" or "weights" added where one is
    for these rows only; `profile` is a summary of any plain values, of which `label_source` is
    understood. `seed` fixes the bootstrap.
    """
    given = [_checked(row) for row in rows]
    kept = [row for row in given if row.part not in MADE_ON]
    promised = [_as_dict(c) for c in certificates]
    summary = dict(profile or {})
    scored = _rows.scored(kept)
    bins = min(15, max(1, scored.n // 10))
    return Evaluation(
        title=title or "Evaluation",
        claim=_claim([summary, *promised]),
        counts=_counts(given, kept, scored.n),
        accuracy=_accuracy(kept, seed),
        scores=_all_scores(scored, bins, seed),
        bins=bins,
        change=_difference(scored, scored.raw, seed),
        gain=_difference(scored, scored.base, seed),
        width=_width(kept),
        views=_curves.views(kept, scored, bins),
        promises=tuple(_promise(c, scored, _claim([c])) for c in promised),
        breakdowns=breakdowns(kept, seed),
        wrong=_rows.most_confident_wrong(kept),
        finishes=_tallies(kept, lambda row: row.finish),
        reasons=_tallies([row for row in kept if not _rows.known(row)], _reason),
        shifted=sum(_rows.known(r) and r.confidence.reason.startswith("shifted") for r in kept),
        seed=seed,
        profile=_rows.facts(summary),
        stops=stops(kept),
    )


def _checked(row: Any) -> Labelled:
    if not isinstance(row, Labelled):
        raise BadRequest(f"a report is made of Labelled rows, not of {row!r:.100}")
    return row


def _as_dict(certificate: Any) -> dict[str, Any]:
    if isinstance(certificate, Mapping):
        return dict(certificate)
    if hasattr(certificate, "to_dict"):
        return dict(certificate.to_dict())
    raise BadRequest(f"a certificate is a Certificate or its dict, not {certificate!r:.100}")


def _claim(sources: Sequence[Mapping[str, Any]]) -> str:
    """One teacher among the sources is enough: what agrees is never shown as right."""
    for source in sources:
        label_source = str(source.get("label_source") or LABELS)
        if label_source != LABELS:
            kind, _, name = label_source.partition(": ")
            return f"agrees with {name or f'the {kind}'}"
    return "is right"


def _counts(given: Sequence[Labelled], kept: Sequence[Labelled], scored: int) -> Counts:
    verdicts = Counter(row.correct for row in kept)
    return Counts(
        rows=len(kept),
        left_out=dict(sorted(Counter(r.part for r in given if r.part in MADE_ON).items())),
        judged=verdicts[True] + verdicts[False],
        unjudged=verdicts[None],
        right=verdicts[True],
        wrong=verdicts[False],
        unknown=sum(not _rows.known(row) for row in kept),
        scored=scored,
        groups=len({_rows.group_of(row) for row in kept}),
    )


def _accuracy(kept: Sequence[Labelled], seed: int) -> Estimate:
    judged = [row for row in kept if row.correct is not None]
    if not judged:
        return Estimate()
    y = np.array([row.correct for row in judged], dtype=float)
    groups = np.array([_rows.group_of(row) for row in judged])
    n, share = len(set(groups)), float(y.mean())
    if n == y.size or share in (0, 1):  # independent rows, or rows that all agree
        return Estimate(share, *metrics.wilson(n * share, n))
    return _estimate(lambda p, _: float(p.mean()), y, y, groups, seed)


def _estimate(
    metric: metrics.Metric, p: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int
) -> Estimate:
    value = _rows.number(metric(p, y))
    if value is None or len(set(groups)) < FEW_GROUPS:
        return Estimate(value)
    draws = min(500, max(200, 1_000_000 // p.size))
    low, high = metrics.bootstrap(metric, p, y, groups, draws=draws, seed=seed)
    if not high - low > 1e-12:  # no resample moves it, so that resampling cannot bound it
        return Estimate(value)
    return Estimate(value, low, high)


def _all_scores(scored: _rows.Scored, bins: int, seed: int) -> tuple[Scores, ...]:
    columns = ((BASE, scored.base), (RAW, scored.raw), (CALIBRATED, scored.value))
    return tuple(_scores(name, p, scored, bins, seed) for name, p in columns)


def _scores(name: str, p: np.ndarray | None, scored: _rows.Scored, bins: int, seed: int) -> Scores:
    if p is None or not scored.n:
        none = Estimate()
        return Scores(name, 0, none, none, none, None, None, none, none)

    def of(metric: metrics.Metric) -> Estimate:
        return _estimate(metric, p, scored.y, scored.groups, seed)

    floor, floor_p95 = metrics.ece_floor(p, bins=bins, seed=seed)
    return Scores(
        name=name,
        n=scored.n,
        brier=of(metrics.brier),
        nll=of(metrics.nll),
        ece=of(lambda a, b: metrics.ece(a, b, bins)),
        ece_floor=floor,
        ece_floor_p95=floor_p95,
        auroc=of(metrics.auroc) if 0 < scored.y.sum() < scored.n else Estimate(),
        aurc=of(metrics.aurc),
    )


def _difference(scored: _rows.Scored, other: np.ndarray | None, seed: int) -> Estimate:
    """Brier score of the calibrated minus that of `other`, with the interval of the pairs."""
    if scored.value is None or other is None or not scored.n:
        return Estimate()
    change = (scored.value - scored.y) ** 2 - (other - scored.y) ** 2
    # The bootstrap takes probabilities: -1..1 is laid on 0..1 and back.
    return _estimate(
        lambda p, _: 2 * float(p.mean()) - 1, (change + 1) / 2, scored.y, scored.groups, seed
    )


def _width(kept: Sequence[Labelled]) -> float | None:
    found = [
        c.high - c.low
        for c in (row.confidence for row in kept)
        if c.value is not None and c.low is not None and c.high is not None
    ]
    return math.fsum(found) / len(found) if found else None


def _promise(certificate: Mapping[str, Any], scored: _rows.Scored, claim: str) -> Promise:
    task, weights = certificate.get("task"), certificate.get("weights")
    risk = str(certificate.get("risk") or "selective")
    about = (certificate, claim, risk, task, weights)
    inside = scored.where(task, weights)
    n, threshold = int(inside.sum()), certificate.get("threshold")
    if threshold is None or scored.value is None or not n:
        return Promise(*about, n, 0, None, Estimate())
    accepted = inside & (scored.value >= float(threshold))
    count = int(accepted.sum())
    wrong = count - float(scored.y[accepted].sum())
    among = {"selective": count, "joint": n}.get(risk, 0)
    error = Estimate(wrong / among, *metrics.wilson(wrong, among)) if among else Estimate()
    return Promise(*about, n, count, count / n, error)


def _tallies(rows: Sequence[Labelled], name: Callable[[Labelled], str]) -> tuple[Tally, ...]:
    """One tally per name, the most frequent first."""
    found: dict[str, list[Labelled]] = defaultdict(list)
    for row in rows:
        found[name(row)].append(row)
    tallies = []
    for key in sorted(found, key=lambda key: (-len(found[key]), key)):
        verdicts = Counter(row.correct for row in found[key])
        unknown = sum(not _rows.known(row) for row in found[key])
        tallies.append(
            Tally(key, len(found[key]), verdicts[True], verdicts[False], verdicts[None], unknown)
        )
    return tuple(tallies)


def _reason(row: Labelled) -> str:
    return row.confidence.reason.strip() or "no reason given"
