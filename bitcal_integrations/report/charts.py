"""The charts of a report: figures of prepared numbers, each with its key and a table of them.

Computes nothing but where to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bitcal_integrations.report import _markup as m
from bitcal_integrations.report.evaluation import CALIBRATED, RAW, Evaluation, Promise, ScoreView
from bitcal_integrations.report.svg import Frame, nice_ticks
from bitcal_integrations.report.words import Wording, count, fixed, level, percent, wording

CLASSES = {RAW: "raw", CALIBRATED: "calibrated"}
TABLE_ROWS = 11
SAMPLES = {
    "line": '<polyline class="{0}" points="0,6 26,6"/>',
    "dot": '<circle class="{0}" cx="13" cy="6" r="4"/>',
    "box": '<rect class="{0}" x="7" y="0" width="12" height="12"/>',
    "diamond": '<path class="{0}" d="M13 0L19 6L13 12L7 6Z"/>',
}


def figure(caption: str, drawing: str, key: Sequence[tuple[str, str, str]], numbers: str) -> str:
    """A drawing with its caption, the key (shape, class, text) and its numbers, folded away."""
    entries = "".join(
        f'<li><svg viewBox="0 0 26 12" aria-hidden="true">{SAMPLES[shape].format(kind)}</svg>'
        f"{escape(text)}</li>"
        for shape, kind, text in key
    )
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}"
        f'<ul class="key">{entries}</ul>{m.folded("The numbers of this chart", numbers)}</figure>'
    )


def reliability(e: Evaluation) -> str:
    return "".join(_reliability(view, wording(e.claim)) for view in e.views)


def _reliability(view: ScoreView, words: Wording) -> str:
    kind = CLASSES[view.name]
    frame = Frame("confidence", f"share {words.right}")
    most = max(b.n for b in view.bins)
    body = frame.line([(0, 0), (1, 1)], "guide")
    for b in view.bins:
        tip = (
            f"{count(b.n, 'answer')}: confidence {fixed(b.confidence)}, {words.right} "
            f"{percent(b.accuracy)} [{percent(b.accuracy_low)}, {percent(b.accuracy_high)}]"
        )
        body += frame.whisker(b.confidence, b.accuracy_low, b.accuracy_high, kind)
        body += frame.dot(b.confidence, b.accuracy, kind, 2 + 3 * (b.n / most) ** 0.5, tip)
    name = view.name.capitalize()
    fewest = min(b.n for b in view.bins)
    each = count(most, "answer") if fewest == most else f"{count(fewest)} to {count(most)} answers"
    says = f"{name}: share {words.right} against confidence, {count(len(view.bins), 'bin')}"
    key = [
        ("dot", kind, f"{count(len(view.bins), 'bin')} of {each}, 95% Wilson interval"),
        ("line", "guide", "perfect calibration"),
    ]
    return figure(name, frame.svg(body, says), key, _bin_table(view, words, says))


def _bin_table(view: ScoreView, words: Wording, says: str) -> str:
    rows = [
        (f"{fixed(b.low)} to {fixed(b.high)}", count(b.n), fixed(b.confidence),
         percent(b.accuracy), f"{percent(b.accuracy_low)} to {percent(b.accuracy_high)}")
        for b in view.bins
    ]  # fmt: skip
    return m.table(
        ("confidence", "answers", "mean", f"share {words.right}", "95% interval"), rows, says
    )


def histograms(e: Evaluation) -> str:
    return "".join(_histogram(view, wording(e.claim)) for view in e.views)


def _histogram(view: ScoreView, words: Wording) -> str:
    """Right answers upwards and wrong ones downwards, so that colour is not needed."""
    up = nice_ticks(max(b.right for b in view.histogram), 3)
    down = nice_ticks(max(b.wrong for b in view.histogram), 3)
    step = max(up[1], down[1])
    above, below = (max(1, round(-(-side[-1] // step))) for side in (up, down))
    ticks = [i * step for i in range(-below, above + 1)]
    frame = Frame(
        "confidence", "answers", y=(ticks[0], ticks[-1]), y_ticks=ticks,
        y_text=lambda v: count(round(abs(v))), height=240,
    )  # fmt: skip
    body = ""
    for b in view.histogram:
        where = f"{fixed(b.low, 2)} to {fixed(b.high, 2)}"
        if b.right:
            tip = f"{where}: {count(b.right)} {words.right}"
            body += frame.bar(b.low, b.high, 0, b.right, "good", tip)
        if b.wrong:
            tip = f"{where}: {count(b.wrong)} {words.wrong}"
            body += frame.bar(b.low, b.high, -b.wrong, 0, "bad", tip)
    body += frame.level(0, "zero")
    name = view.name.capitalize()
    says = f"{name}: how many {words.right} and {words.wrong} answers have each confidence"
    rows = [
        (f"{fixed(b.low, 2)} to {fixed(b.high, 2)}", count(b.right), count(b.wrong))
        for b in view.histogram
    ]
    numbers = m.table(("confidence", words.right, words.wrong), rows, says)
    key = [
        ("box", "good", f"{words.right} (upwards)"),
        ("box", "bad", f"{words.wrong} (downwards)"),
    ]
    return figure(name, frame.svg(body, says), key, numbers)


def risk_coverage(e: Evaluation) -> str:
    """The share wrong among the accepted, with the certified points on the rows shown."""
    words = wording(e.claim)
    marked = [p for p in e.promises if _on_curve(p)]
    # The first few answers make a noisy tip, which must not set the scale.
    heights = [y for view in e.views for _, x, y in view.risk.points if x >= 0.05]
    heights += [v for p in marked for v in (p.certificate["max_error"], p.error.high) if v]
    ticks = nice_ticks(max(heights, default=1.0))
    frame = Frame(
        "share accepted", f"share {words.wrong} of these", y=(0, ticks[-1]), y_ticks=ticks
    )
    body = "".join(
        frame.steps([(x, y) for _, x, y in v.risk.points], CLASSES[v.name]) for v in e.views
    )
    body += "".join(_mark(frame, p, words) for p in marked)
    says = f"Share {words.wrong} among accepted answers against the share accepted"
    key = [("line", CLASSES[v.name], v.name) for v in e.views]
    if marked:
        key += [("diamond", "mark", "certified threshold, with the 95% interval of these rows"),
                ("line", "limit", "the error rate promised")]  # fmt: skip
    numbers = _curve_table(e, "risk", ("share accepted", f"share {words.wrong}"), says)
    return figure("Risk and coverage", frame.svg(body, says), key, numbers)


def _on_curve(p: Promise) -> bool:
    """The curve is the selective risk of all scored rows: other promises are no point of it."""
    same = p.risk == "selective" and p.task is None and p.weights is None
    return same and p.error.value is not None and p.certificate.get("max_error") is not None


def _mark(frame: Frame, p: Promise, words: Wording) -> str:
    x, y, target = p.share or 0.0, p.error.value or 0.0, float(p.certificate["max_error"])
    body = frame.level(target, "limit")
    body += frame.label(frame.x[1], target, f"at most {level(target)}", "end", -13)
    if p.error.low is not None and p.error.high is not None:
        body += frame.whisker(x, p.error.low, p.error.high, "mark")
    tip = (
        f"certified for {level(target)}: accepts {percent(x)} of these rows, {percent(y)} of them "
        f"{words.wrong}"
    )
    return body + frame.diamond(x, y, "mark", tip)


def deferral(e: Evaluation) -> str:
    """What is gained by sending the least confident answers on."""
    words = wording(e.claim)
    lowest = min([y for v in e.views for _, x, y in v.deferral.points if x <= 0.95] or [0.0])
    ticks = _up_to_one(min(lowest, e.accuracy.value or 0.0))
    frame = Frame(
        "share sent on", f"{words.accuracy} of what is kept", y=(ticks[0], 1), y_ticks=ticks
    )
    body = frame.level(e.accuracy.value, "guide") if e.accuracy.value is not None else ""
    body += "".join(
        frame.steps([(x, y) for _, x, y in reversed(v.deferral.points)], CLASSES[v.name])
        for v in e.views
    )
    says = f"{words.accuracy.capitalize()} of the answers kept against the share sent on"
    key = [("line", CLASSES[v.name], v.name) for v in e.views]
    key.append(("line", "guide", "nothing sent on, or sent on at random"))
    numbers = _curve_table(e, "deferral", ("share sent on", f"{words.accuracy} kept"), says)
    return figure("Deferral", frame.svg(body, says), key, numbers)


def _up_to_one(lowest: float) -> list[float]:
    """Round numbers from at most `lowest` up to 1.

    >>> [round(t, 2) for t in _up_to_one(0.72)]
    [0.7, 0.8, 0.9, 1.0]
    """
    for parts in (50, 20, 10, 5):  # of 1: steps of .02, .05, .1, .2
        first = min(int(lowest * parts), parts - 1)
        if parts - first <= 5:
            break
    return [i / parts for i in range(first, parts + 1)]


def _curve_table(e: Evaluation, which: str, head: tuple[str, str], says: str) -> str:
    rows = []
    for view in e.views:
        points = getattr(view, which).points
        step = max(1, (len(points) - 1) // (TABLE_ROWS - 1))
        chosen = list(points[::step])
        if chosen[-1] != points[-1]:
            chosen.append(points[-1])
        rows += [(view.name, fixed(t), percent(x), percent(y)) for t, x, y in chosen]
    return m.table(("score", "threshold", *head), rows, says)
