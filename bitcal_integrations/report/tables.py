"""The tables of a report as texts, for HTML and Markdown alike: (head, rows) and their notes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from bitcal_integrations.report.evaluation import (
    Breakdown,
    Estimate,
    Evaluation,
    Slice,
    Stops,
    WrongAnswer,
)
from bitcal_integrations.report.words import count, fixed, interval, percent, wording

Cell: TypeAlias = "str | tuple[str, str]"
Table: TypeAlias = "tuple[Sequence[str], list[Sequence[Cell]]]"


def scores(e: Evaluation) -> Table:
    """Base rate, raw score and calibrated, each metric with its interval."""
    head = ("score", "answers", "Brier", "NLL", "ECE", "ECE floor", "AUROC", "AURC")
    rows: list[Sequence[Cell]] = [
        (
            s.name, count(s.n), _cell(s.brier, 4), _cell(s.nll), _cell(s.ece),
            (fixed(s.ece_floor), _p95(s.ece_floor_p95)),
            _cell(s.auroc), _cell(s.aurc),
        )
        for s in e.scores
    ]  # fmt: skip
    return head, rows


def _p95(value: float | None) -> str:
    return "" if value is None else f"(95%: {fixed(value)})"


def _cell(estimate: Estimate, digits: int = 3) -> Cell:
    return fixed(estimate.value, digits), interval(estimate, digits)


def scores_note(e: Evaluation) -> str:
    words = wording(e.claim)
    return (
        f"Over the {count(e.counts.scored)} judged answers that have every score. The base rate "
        f"says the share {words.right} of these very answers for each of them. Lower is better, "
        "except for AUROC. The ECE floor is what a perfectly calibrated score shows on as many "
        "answers; an interval of ECE leans upwards, because resampling adds noise to it."
    )


def slices(breakdown: Breakdown, e: Evaluation) -> Table:
    head = (
        breakdown.by, "answers", "judged", "unknown", wording(e.claim).accuracy, "confidence",
        "Brier raw", "Brier", "ECE (floor)", "AUROC",
    )  # fmt: skip
    return head, [_slice(s) for s in breakdown.slices]


def _slice(s: Slice) -> Sequence[Cell]:
    floor = f"({fixed(s.ece_floor)})" if s.ece_floor is not None else ""
    true = f"(true: {percent(s.came_true)})" if s.came_true is not None else ""
    return (
        s.label, count(s.rows), count(s.judged), count(s.unknown),
        (percent(s.accuracy.value), interval(s.accuracy, share=True)),
        (percent(s.confidence), true),
        fixed(s.brier_raw), fixed(s.brier), (fixed(s.ece), floor),
        fixed(s.auroc),
    )  # fmt: skip


def slices_note() -> str:
    return (
        "Confidence is the mean over the answers that have one, and beneath it the share for which "
        "it came true: the two should be near each other. In a small row ECE is mostly its floor."
    )


def wrong_answer(w: WrongAnswer) -> list[tuple[str, str]]:
    """Name and text of what is shown of one wrong answer."""
    where = ", ".join(part for part in (w.id, w.task, w.weights) if part)
    return [
        ("confidence", f"{fixed(w.confidence)} (raw score {fixed(w.raw)})"),
        ("prompt", w.prompt),
        ("answer", w.answer),
        ("gold", w.gold),
        ("row", where),
    ]


def finishes(e: Evaluation) -> Table:
    words = wording(e.claim)
    head = ("finish", "answers", words.right, words.wrong, "unjudged", "unknown confidence")
    rows: list[Sequence[Cell]] = [
        (t.name, *map(count, (t.rows, t.right, t.wrong, t.unjudged, t.unknown))) for t in e.finishes
    ]
    return head, rows


def reasons(e: Evaluation) -> Table:
    words = wording(e.claim)
    head = ("why the confidence is unknown", "answers", words.right, words.wrong, "unjudged")
    rows: list[Sequence[Cell]] = [
        (t.name, *map(count, (t.rows, t.right, t.wrong, t.unjudged))) for t in e.reasons
    ]
    return head, rows


def stops(s: Stops, e: Evaluation) -> Table:
    words = wording(e.claim)
    head = ("ended", "answers", words.right, words.wrong, "unjudged", "mean tokens")
    rows: list[Sequence[Cell]] = [
        (p.name, *map(count, (p.rows, p.right, p.wrong, p.unjudged)), fixed(p.tokens, 1))
        for p in s.ended
    ]
    return head, rows


def shifted(e: Evaluation) -> str:
    return (
        f"{count(e.shifted, 'answer')} had scores unlike the calibration set: the confidence of "
        "these stands, but no bound is claimed for it."
    )
