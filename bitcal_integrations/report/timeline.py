"""Records over time as one HTML file: no script, no request; readable on a phone, in the dark.

Everything that came from a model or a user is escaped. Computes nothing but where to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bitcal_integrations.report import _markup as m
from bitcal_integrations.report import timeline_text as text
from bitcal_integrations.report.charts import figure
from bitcal_integrations.report.svg import Frame, nice_ticks
from bitcal_integrations.report.svg import percent as short
from bitcal_integrations.report.words import count, fixed, percent

if TYPE_CHECKING:
    from bitcal_integrations.monitor.timeline import Period, Timeline

TICKS = 4  # labels of the time axis


def draw_timeline_html(timeline: Timeline) -> str:
    """The whole page."""
    t = timeline
    sections = [_drift(t), _headline(t), _over_time(t), _wrong(t), _unknown(t), _claims(t)]
    return m.document(t.title, text.overview(t), sections, FOOTER)


FOOTER = (
    "Made by bitcal_integrations. Times are UTC. Intervals in brackets are 95%; labels are weighed "
    "by the chance that an answer was chosen to be labelled."
)


def _drift(t: Timeline) -> str:
    said = "".join(
        f'<div class="promise">{"".join(map(m.paragraph, text.drift(report)))}</div>'
        for report in t.drift
    )
    return m.section("Does the profile still hold?", said, m.paragraph(text.drift_note(t), "note"))


def _headline(t: Timeline) -> str:
    total = t.total
    shown: list[tuple[str, m.Cell]] = [
        ("answers", count(total.answers)),
        ("right, by labels",
         (percent(total.accuracy.value if total.accuracy else None), text.within(total.accuracy))),
        ("mean confidence", percent(total.confidence)),
        ("Brier score, by labels", (fixed(t.brier.value if t.brier else None),
                                    text.within(t.brier, share=False))),
        ("escalated", percent(total.escalated)),
        ("stopped early", percent(total.stopped)),
        ("latency", (text.duration(total.seconds_p50), f"95%: {text.duration(total.seconds_p95)}")),
    ]  # fmt: skip
    charts = f'<div class="charts">{_reliability(t)}{_accuracy(t)}</div>' if t.periods else ""
    return m.section(
        "Does the confidence come true?", m.tiles(shown), m.bullets(text.findings(t), "claims"),
        charts,
    )  # fmt: skip


def _reliability(t: Timeline) -> str:
    if not t.bins:
        return ""
    frame = Frame("confidence", "share right")
    most = max(b.labels for b in t.bins)
    body = frame.line([(0, 0), (1, 1)], "guide")
    for b in t.bins:
        a = b.accuracy
        tip = f"{count(b.labels, 'label')}: said {fixed(b.confidence)}, right {percent(a.value)}"
        body += frame.whisker(b.confidence, a.low, a.high, "calibrated")
        size = 2 + 3 * (b.labels / most) ** 0.5
        body += frame.dot(b.confidence, a.value, "calibrated", size, tip)
    says = f"Share right against confidence, {count(len(t.bins), 'bin')} of labelled answers"
    key = [("dot", "calibrated", "labelled answers, 95% interval"),
           ("line", "guide", "perfect calibration")]  # fmt: skip
    head, rows = text.bins(t)
    return figure("Reliability", frame.svg(body, says), key, m.table(head, rows, says))


def _frame(t: Timeline, title: str, top: float, say: Callable[[float], str]) -> Frame:
    """A frame whose x is the number of the period, from half before the first on."""
    n = len(t.periods)
    step = max(1, -(-n // TICKS))
    ticks = nice_ticks(top)
    return Frame(
        f"{text.period_name(t)} (UTC)", title, x=(-0.5, n - 0.5), y=(0, ticks[-1]),
        x_ticks=range(0, n, step), y_ticks=ticks, y_text=say,
        x_text=lambda x: text.when(t.periods[round(x)].start, t.seconds)[5:],
    )  # fmt: skip


def _points(t: Timeline, value: Callable[[Period], float | None]) -> list[tuple[float, float]]:
    found = [(float(i), value(p)) for i, p in enumerate(t.periods)]
    return [(x, y) for x, y in found if y is not None]


def _line(frame: Frame, t: Timeline, value: Callable[[Period], float | None], kind: str) -> str:
    """A line with dots, so that a single period is seen as well."""
    points = _points(t, value)
    dots = "".join(frame.dot(x, y, kind, 2) for x, y in points) if kind != "guide" else ""
    return frame.line(points, kind) + dots


def _accuracy(t: Timeline) -> str:
    frame = _frame(t, "share", 1.0, short)
    body = _line(frame, t, lambda p: p.confidence, "calibrated")
    for i, p in enumerate(t.periods):
        if p.accuracy is not None:
            tip = f"{count(p.labels, 'label')}: right {percent(p.accuracy.value)}"
            body += frame.whisker(i, p.accuracy.low, p.accuracy.high, "raw")
            body += frame.dot(i, p.accuracy.value, "raw", 3.5, tip)
    says = "Mean confidence of all answers, and the share right by labels, over time"
    key = [("line", "calibrated", "mean confidence of all answers"),
           ("dot", "raw", "share right by labels, 95% interval")]  # fmt: skip
    return _figure(t, "Confidence and labels", frame, body, says, key)


def _figure(
    t: Timeline,
    caption: str,
    frame: Frame,
    body: str,
    says: str,
    key: Sequence[tuple[str, str, str]],
) -> str:
    """A figure whose numbers are the table of periods, which stands on the page once."""
    note = m.paragraph(f"They stand under “All numbers by {text.period_name(t)}”.", "note")
    return figure(caption, frame.svg(body, says), key, note)


def _over_time(t: Timeline) -> str:
    if not t.periods:
        return ""
    name, (head, rows) = text.period_name(t), text.periods(t)
    return m.section(
        "What was answered, handed on and spent?",
        f'<div class="charts">{_answers(t)}{_shares(t)}{_tokens(t)}{_latency(t)}</div>',
        m.paragraph(text.saved(t)),
        m.folded(f"All numbers by {name}", m.table(head, rows, f"Numbers by {name}", stack=True)),
    )


def _answers(t: Timeline) -> str:
    frame = _frame(t, "answers", max(p.answers for p in t.periods), lambda v: count(round(v)))
    body = "".join(
        frame.bar(i - 0.4, i + 0.4, 0, p.answers, "calibrated", count(p.answers, "answer"))
        for i, p in enumerate(t.periods)
    )
    key = [("box", "calibrated", f"answers per {text.period_name(t)}")]
    return _figure(t, "Answers", frame, body, "How many answers there were over time", key)


def _shares(t: Timeline) -> str:
    kinds = (
        ("escalated", "raw", lambda p: p.escalated),
        ("stopped early", "calibrated", lambda p: p.stopped),
        ("confidence unknown", "guide", lambda p: p.unknown),
    )
    there = [(name, kind, value) for name, kind, value in kinds if _points(t, value)]
    top = max((y for *_, value in there for _, y in _points(t, value)), default=1.0)
    frame = _frame(t, "share of answers", top or 0.1, short)
    body = "".join(_line(frame, t, value, kind) for _, kind, value in there)
    key = [("line", kind, name) for name, kind, _ in there]
    says = "Shares of answers that were escalated, stopped early or without a confidence"
    return _figure(t, "Handed on, stopped, unknown", frame, body, says, key)


def _tokens(t: Timeline) -> str:
    tops = [(p.tokens or 0) + (p.probe_tokens or 0) for p in t.periods]
    frame = _frame(t, "tokens per answer", max(tops), lambda v: count(round(v)))
    body = ""
    for i, (p, top) in enumerate(zip(t.periods, tops, strict=True)):
        tokens = p.tokens or 0
        body += frame.bar(i - 0.4, i + 0.4, 0, tokens, "calibrated", f"{tokens:.0f} written")
        if top > tokens:
            body += frame.bar(i - 0.4, i + 0.4, tokens, top, "raw", f"{top - tokens:.0f} beside")
    key = [("box", "calibrated", "written"), ("box", "raw", "spent beside the text")]
    return _figure(t, "Tokens", frame, body, "Tokens per answer over time", key)


def _latency(t: Timeline) -> str:
    top = max((p.seconds_p95 or 0 for p in t.periods), default=0.0)
    if not top:
        return ""
    frame = _frame(t, "seconds", top, lambda v: f"{v:.3g}")
    body = _line(frame, t, lambda p: p.seconds_p50, "calibrated")
    body += _line(frame, t, lambda p: p.seconds_p95, "raw")
    key = [("line", "calibrated", "half of the answers"), ("line", "raw", "95% of the answers")]
    return _figure(t, "Latency", frame, body, "Seconds until the answer over time", key)


def _wrong(t: Timeline) -> str:
    title = "The most confident wrong answers"
    if not t.wrong:
        return m.section(title, m.paragraph("No answer with a confidence was labelled wrong."))
    items = "".join(f"<li>{m.facts([(k, v) for k, v in text.wrong(w)])}</li>" for w in t.wrong)
    return m.section(title, f'<ol class="answers">{items}</ol>')


def _unknown(t: Timeline) -> str:
    if not t.reasons:
        return ""
    head, rows = text.reasons(t)
    return m.section("What is not known?", m.table(head, rows, "Why a confidence is unknown"))


def _claims(t: Timeline) -> str:
    return m.section(
        "What is claimed, and what is not",
        "<h3>Claimed</h3>",
        m.bullets(
            ["The share right is that of all answers, as far as the labels of chosen answers are "
             "right; its interval knows that they were chosen unevenly.",
             text.drift_claim(t)],
            "claims",
        ),
        "<h3>Not claimed</h3>",
        m.bullets(
            ["That a task in the state ok has not changed: small changes, and those that neither "
             "scores nor labels show, go unseen.",
             "Anything about answers of a period, a task or a bin with few labels beyond its "
             "interval."],
            "claims",
        ),
    )  # fmt: skip
