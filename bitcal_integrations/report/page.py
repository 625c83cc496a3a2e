"""A report as one HTML file: no script and no request; readable on a phone and in the dark.

Everything that came from a model or a user is escaped. Computes nothing.
"""

from __future__ import annotations

from html import escape

from bitcal_integrations.report import _markup as m
from bitcal_integrations.report import charts, tables
from bitcal_integrations.report.evaluation import CALIBRATED, RAW, Estimate, Evaluation, WrongAnswer
from bitcal_integrations.report.words import (
    claims,
    count,
    findings,
    fixed,
    interval,
    overview,
    percent,
    promise,
    saving,
    wording,
)


def draw_html(evaluation: Evaluation) -> str:
    """The whole page."""
    e = evaluation
    sections = [
        _headline(e),
        _charts(e),
        _stops(e),
        _breakdowns(e),
        _wrong(e),
        _unknown(e),
        _claims(e),
        _profile(e),
    ]
    return m.document(e.title, overview(e), sections, _footer(e))


def _footer(e: Evaluation) -> str:
    return (
        "Made by bitcal_integrations. Intervals in brackets are 95%: bootstrap over groups "
        f"(seed {e.seed}), Wilson for shares."
    )


def _headline(e: Evaluation) -> str:
    words = wording(e.claim)
    scores = {s.name: s for s in e.scores}
    calibrated, raw = scores[CALIBRATED], scores[RAW]
    shown: list[tuple[str, m.Cell]] = [
        ("judged answers", count(e.counts.judged)),
        (words.accuracy, (percent(e.accuracy.value), interval(e.accuracy, share=True))),
        ("Brier score", _from_to(raw.brier, calibrated.brier)),
        ("ECE", _from_to(raw.ece, calibrated.ece)),
        ("AUROC", _from_to(raw.auroc, calibrated.auroc)),
    ]
    if e.width is not None:
        shown.append(("mean width of the stated intervals", fixed(e.width)))
    head, rows = tables.scores(e)
    return m.section(
        "How good is the confidence?",
        m.tiles(shown),
        m.bullets(findings(e), "claims"),
        m.table(head, rows, "Scores of the base rate, the raw score and the calibrated confidence",
                stack=True),
        m.paragraph(tables.scores_note(e), "note"),
    )  # fmt: skip


def _from_to(raw: Estimate, calibrated: Estimate) -> m.Cell:
    """The calibrated number, and beneath it what the raw score has."""
    if calibrated.value is None:
        return fixed(raw.value), "raw score" if raw.value is not None else ""
    return fixed(calibrated.value), f"raw score: {fixed(raw.value)}"


def _charts(e: Evaluation) -> str:
    promises = "".join(
        f'<div class="promise">{"".join(map(m.paragraph, promise(p)))}</div>' for p in e.promises
    )
    certified = m.section("What is promised", promises) if promises else ""
    if not e.views:
        return certified
    words = wording(e.claim)
    return "".join([
        m.section(
            "Does the confidence come true?",
            m.paragraph(f"Where a dot lies on the dotted line, the share {words.right} is what the "
                        "confidence says.", "note"),
            f'<div class="charts">{charts.reliability(e)}</div>',
        ),
        m.section(
            f"Does it tell {words.right} from {words.wrong}?",
            f'<div class="charts">{charts.histograms(e)}</div>',
        ),
        certified,
        m.section(
            "What is gained by accepting less?",
            f'<div class="charts">{charts.risk_coverage(e)}{charts.deferral(e)}</div>',
            m.paragraph("Risk and coverage are over the scored answers. Deferral is over all "
                        "judged answers: one without a known confidence is always sent on.",
                        "note"),
        ),
    ])  # fmt: skip


def _stops(e: Evaluation) -> str:
    if e.stops is None:
        return ""
    head, rows = tables.stops(e.stops, e)
    return m.section(
        "What was saved by ending early?",
        "".join(map(m.paragraph, saving(e.stops))),
        m.table(head, rows, "How the answers ended that could end early", stack=True),
    )


def _breakdowns(e: Evaluation) -> str:
    parts = []
    for breakdown in e.breakdowns:
        head, rows = tables.slices(breakdown, e)
        parts.append(f"<h3>By {escape(breakdown.by)}</h3>")
        parts.append(m.table(head, rows, f"Scores by {breakdown.by}", stack=True))
    if not parts:
        return ""
    return m.section("Where does it hold?", *parts, m.paragraph(tables.slices_note(), "note"))


def _wrong(e: Evaluation) -> str:
    words = wording(e.claim)
    title = f"The most confident {words.wrong} answers"
    if not e.wrong:
        return m.section(title, m.paragraph(f"There is no {words.wrong} answer with a score."))
    items = "".join(f"<li>{_wrong_answer(w)}</li>" for w in e.wrong)
    return m.section(title, f'<ol class="answers">{items}</ol>')


def _wrong_answer(w: WrongAnswer) -> str:
    return m.facts([(name, text) for name, text in tables.wrong_answer(w)])


def _unknown(e: Evaluation) -> str:
    head, rows = tables.finishes(e)
    parts = ["<h3>How the answers ended</h3>", m.table(head, rows, "Finish reasons", stack=True)]
    parts.append("<h3>Unknown confidence</h3>")
    if e.reasons:
        head, rows = tables.reasons(e)
        parts.append(m.table(head, rows, "Why a confidence is unknown", stack=True))
    else:
        parts.append(m.paragraph("Every answer has a confidence."))
    if e.shifted:
        parts.append(m.paragraph(tables.shifted(e)))
    return m.section("What is not known?", *parts) if e.finishes else ""


def _claims(e: Evaluation) -> str:
    claimed, refused = claims(e)
    return m.section(
        "What is claimed, and what is not",
        "<h3>Claimed</h3>", m.bullets(claimed, "claims"),
        "<h3>Not claimed</h3>", m.bullets(refused, "claims"),
    )  # fmt: skip


def _profile(e: Evaluation) -> str:
    if not e.profile:
        return ""
    return m.section("The profile", m.facts(list(e.profile.items())))
