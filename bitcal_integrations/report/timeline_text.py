"""Records over time as sentences and tables, for the HTML page and for Markdown alike.

Knows how numbers read; times are told in UTC. Computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from bitcal_integrations.report import markdown as md
from bitcal_integrations.report._rows import ANSWER_LENGTH, PROMPT_LENGTH, shorten
from bitcal_integrations.report.tables import Cell, Table
from bitcal_integrations.report.words import UNKNOWN, count, fixed, level, percent

if TYPE_CHECKING:
    from bitcal_integrations.monitor._sampling import Estimated
    from bitcal_integrations.monitor.drift import DriftReport
    from bitcal_integrations.monitor.timeline import Period, Timeline, WrongAnswer

HOUR, DAY = 3600.0, 86400.0
PERIODS = {1: "hour", 6: "6 hours", 24: "day", 168: "week", 672: "4 weeks"}


def when(at: float, seconds: float = HOUR) -> str:
    """
    >>> when(0.0), when(0.0, DAY)
    ('1970-01-01 00:00', '1970-01-01')
    """
    moment = datetime.fromtimestamp(at, timezone.utc)
    return moment.strftime("%Y-%m-%d" if seconds >= DAY else "%Y-%m-%d %H:%M")


def period_name(t: Timeline) -> str:
    return PERIODS.get(round(t.seconds / HOUR), f"{t.seconds / HOUR:g} hours")


def within(estimate: Estimated | None, share: bool = True) -> str:
    """'[low, high]', or nothing where nothing is known."""
    if estimate is None:
        return ""
    say = percent if share else fixed
    return f"[{say(estimate.low)}, {say(estimate.high)}]"


def duration(seconds: float | None) -> str:
    """
    >>> duration(0.0123), duration(2.345), duration(None)
    ('12 ms', '2.3 s', '–')
    """
    if seconds is None:
        return UNKNOWN
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def overview(t: Timeline) -> str:
    if not t.periods:
        return f"There are no answers in {t.store}."
    last = t.periods[-1].start + t.seconds
    models = ", ".join(name for name, _ in t.models[:5])
    return (
        f"{count(t.total.answers, 'answer')} of {models} between {when(t.total.start)} and "
        f"{when(last)} UTC, by {period_name(t)}; {count(t.total.labels, 'label')} to estimate by."
    )


def findings(t: Timeline) -> list[str]:
    """What the labels say, and what they do not."""
    said = []
    if t.total.accuracy is None:
        said.append("No answer was chosen and labelled: how often answers are right is unknown.")
    else:
        said.append(f"About {percent(t.total.accuracy.value)} {within(t.total.accuracy)} of all "
                    f"answers are right, by {count(t.total.labels, 'label')}.")  # fmt: skip
    if t.gap is not None:
        side = "above" if t.gap.value > 0 else "below"
        clear = "" if t.gap.low > 0 or t.gap.high < 0 else ", which chance may explain"
        points = f"{100 * abs(t.gap.value):.1f} points"
        said.append(f"The confidence lies {points} {side} that on the answers that have "
                    f"one{clear}.")  # fmt: skip
    if t.unchosen:
        said.append(
            f"Left out: {count(t.unchosen, 'label')} that users gave of their own accord. They are "
            "mostly about wrong answers, and say little about the others."
        )
    if t.open:
        said.append(f"{count(t.open, 'answer')} chosen to be labelled, and not labelled yet.")
    return said


def drift(report: DriftReport) -> list[str]:
    """The state of a task and what it rests on."""
    if not report.answers and not report.labels:
        return [f"Task {report.task}: no answer that could be compared with the profile."]
    seen = f"{count(report.answers, 'answer')} and {count(report.labels, 'label')} compared"
    first = f"Task {report.task}: {report.state}. {seen}."
    why = [f"{reason[0].upper()}{reason[1:]}." for reason in report.reasons]
    since = [f"First seen after {count(report.since, 'answer')}."] if why else []
    most = max(report.evidence["scores"], report.evidence["labels"])
    evidence = f"Evidence against the profile: {most:.3g}, where {report.needed:.3g} is an alarm."
    return [first, *why, *since, evidence]


def drift_note(t: Timeline) -> str:
    if not t.drift:
        return "No profile was given to compare with: name one with --profile."
    return (
        "Watch: sure to have moved, little, or a limit is crossed. Expired: moved so far that the "
        "confidence should not be used."
    )


def drift_claim(t: Timeline) -> str:
    if not t.drift:
        return "Nothing about drift: no profile was compared with."
    return (
        f"While the profile of a task holds, the chance that it ever leaves ok is at most "
        f"{level(t.drift[0].alpha)}, however often one looks."
    )


def saved(t: Timeline) -> str:
    """What early stops spare; expected, because nobody knows how long the rest would have been."""
    if t.saved is None:
        return "No early stop with a promise was in force."
    spent = t.total.answers * (t.total.tokens or 0)
    return (
        f"About {count(round(t.saved))} tokens saved by early stops, by what their certificates "
        f"expect for {count(t.promised, 'answer')}; {count(round(spent))} tokens were written."
    )


def periods(t: Timeline) -> Table:
    head = (period_name(t), "answers", "confidence", "labels", "right, by labels", "unknown",
            "escalated", "stopped early", "tokens", "latency")  # fmt: skip
    return head, [_period(p, t.seconds) for p in t.periods]


def _period(p: Period, seconds: float) -> tuple[str | tuple[str, str], ...]:
    beside = f"+ {p.probe_tokens:.0f} beside" if p.probe_tokens else ""
    slow = f"95%: {duration(p.seconds_p95)}" if p.seconds_p95 is not None else ""
    return (
        when(p.start, seconds), count(p.answers), percent(p.confidence), count(p.labels),
        (percent(p.accuracy.value if p.accuracy else None), within(p.accuracy)),
        percent(p.unknown), percent(p.escalated), percent(p.stopped),
        (fixed(p.tokens, 0), beside), (duration(p.seconds_p50), slow),
    )  # fmt: skip


def bins(t: Timeline) -> Table:
    head = ("confidence", "labels", "mean", "share right", "95% interval")
    rows: list[Sequence[Cell]] = [
        (f"{fixed(b.low)} to {fixed(b.high)}", count(b.labels), fixed(b.confidence),
         percent(b.accuracy.value), within(b.accuracy))
        for b in t.bins
    ]  # fmt: skip
    return head, rows


def reasons(t: Timeline) -> Table:
    rows: list[Sequence[Cell]] = [(reason, count(n)) for reason, n in t.reasons]
    return ("why the confidence is unknown", "answers"), rows


def wrong(w: WrongAnswer) -> list[tuple[str, str]]:
    """Name and text of what is shown of one wrong answer."""
    shown = [("confidence", f"{fixed(w.confidence)}, labelled wrong by {w.source}")]
    if w.prompt is None:
        shown.append(("text", "not kept in this store"))
    else:
        shown += [("prompt", shorten(w.prompt, PROMPT_LENGTH))]
        shown += [("answer", shorten(w.answer or "", ANSWER_LENGTH))]
    if w.gold is not None:
        shown.append(("gold", shorten(w.gold, ANSWER_LENGTH)))
    return [*shown, ("record", f"{w.id}, {w.task}, {when(w.at)}")]


def draw_timeline_markdown(timeline: Timeline) -> str:
    """The whole text."""
    t = timeline
    parts = [f"# {md.plain(t.title)}", md.plain(overview(t))]
    parts += ["## Does the profile still hold?"]
    parts += [md._bullets([" ".join(drift(r)) for r in t.drift])] if t.drift else []
    parts += [md.plain(drift_note(t)), "## Does the confidence come true?"]
    parts += [md._bullets(findings(t))]
    parts += [md._table(*bins(t))] if t.bins else []
    parts += [f"## By {period_name(t)}", md._table(*periods(t))] if t.periods else []
    parts += [md.plain(saved(t))]
    parts += ["## What is not known?", md._table(*reasons(t))] if t.reasons else []
    return "\n\n".join([*parts, *_wrong(t.wrong)]) + "\n"


def _wrong(found: Sequence[WrongAnswer]) -> list[str]:
    items = []
    for number, w in enumerate(found, 1):
        shown = wrong(w)
        lines = [f"{number}. {md.plain(': '.join(shown[0]))}"]
        items.append("\n".join(lines + [f"    - {md.plain(': '.join(p))}" for p in shown[1:]]))
    return ["## The most confident wrong answers", "\n".join(items)] if items else []
