"""A study of weight types as one HTML file: no script, no request; readable on a phone.

Everything that came from a model or a user is escaped. Computes nothing but where to draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from bitcal_integrations.paired import FEW
from bitcal_integrations.report import _markup as m
from bitcal_integrations.report import _study_limits as limits
from bitcal_integrations.report import _study_tables as tables
from bitcal_integrations.report import study_text as text
from bitcal_integrations.report.charts import figure
from bitcal_integrations.report.svg import Frame, nice_ticks
from bitcal_integrations.report.svg import percent as short
from bitcal_integrations.report.words import count, fixed, percent

if TYPE_CHECKING:
    from bitcal_integrations.paired import Difference
    from bitcal_integrations.studied import Result, Study


def draw_study_html(study: Study) -> str:
    """The whole page."""
    s = study
    title = f"{s.title}: weight types compared"
    sections = [_headline(s), _pareto(s), _reliability(s), _differences(s), _more(s), _claims(s)]
    return m.document(title, text.overview(s), sections, f"{FOOTER} Seed {s.seed}.")


FOOTER = (
    "Made by bitcal_integrations. Intervals are 95%: a bootstrap over groups of questions, and "
    "Wilson for the shares in the reliability pictures."
)


def _headline(s: Study) -> str:
    head, rows = tables.scores(s)
    return m.section(
        "What does each weight type cost, and what does it give?",
        m.bullets([*text.findings(s), *limits.warnings(s)], "claims"),
        m.table(head, rows, "Cost and scores of every variant", stack=True),
        m.paragraph(_page_note(s), "note"),
    )


def _pareto(s: Study) -> str:
    """Bytes against Brier score and against the share right."""
    points = [(i, r) for i, r in enumerate(s.results, 1) if r.bytes is not None and r.raw]
    if not points:
        return ""
    names = ", ".join(tables.numbered(s)[r.name] for _, r in points)
    drawn = _size_and_brier(s, points) + _size_and_right(s, points)
    return m.section(
        "What is the best for its size?",
        m.paragraph(f"The numbers are those of the table: {names}.", "note"),
        f'<div class="charts">{drawn}</div>',
    )


Points: TypeAlias = "Sequence[tuple[int, Result]]"


def _size_and_brier(s: Study, points: Points) -> str:
    heights = [_brier(r, kind) for _, r in points for kind in ("raw", "calibrated")]
    frame = _sizes(points, "Brier score", nice_ticks(max(filter(None, heights), default=1)))
    front = sorted((_mib(r), _brier(r, "calibrated") or 0) for _, r in points if r.front)
    body = frame.steps([*front, (frame.x[1], front[-1][1])], "guide") if front else ""
    for i, r in points:
        for kind in ("raw", "calibrated"):
            number = i if kind == "calibrated" or r.calibrated is None else None
            body += _point(frame, r, _brier(r, kind), kind, number)
    says = "Brier score of every variant against the size of its weights"
    key = [("dot", "raw", "raw score"), ("dot", "calibrated", "calibrated"),
           ("line", "guide", "the front: the lowest calibrated for that size")]  # fmt: skip
    rows = [
        (tables.numbered(s)[r.name], text.mib(r.bytes), fixed(_brier(r, "raw"), 4),
         fixed(_brier(r, "calibrated"), 4)) for _, r in points
    ]  # fmt: skip
    numbers = m.table(("variant", "MiB", "Brier raw", "Brier calibrated"), rows, says)
    return figure("Size and Brier score", frame.svg(body, says), key, numbers)


def _size_and_right(s: Study, points: Points) -> str:
    frame = _sizes(points, "share right", (0.0, 0.25, 0.5, 0.75, 1.0))
    body = "".join(_point(frame, r, r.accuracy, "calibrated", i) for i, r in points)
    says = "Share right of every variant against the size of its weights"
    rows = [(tables.numbered(s)[r.name], text.mib(r.bytes), percent(r.accuracy)) for _, r in points]
    numbers = m.table(("variant", "MiB", "right"), rows, says)
    key = [("dot", "calibrated", "share right")]
    return figure("Size and share right", frame.svg(body, says), key, numbers)


def _mib(r: Result) -> float:
    return (r.bytes or 0) / text.MIB


def _sizes(points: Points, title: str, up: Sequence[float]) -> Frame:
    across = nice_ticks(max(_mib(r) for _, r in points))
    return Frame(
        "MiB of weights", title, x=(0, across[-1]), y=(0, up[-1]), x_ticks=across, y_ticks=up,
        x_text=lambda v: f"{v:g}", height=320,
        y_text=short if title == "share right" else lambda v: f"{v:g}",
    )  # fmt: skip


def _brier(r: Result, kind: str) -> float | None:
    score = r.raw if kind == "raw" else r.calibrated
    return score.numbers["brier"] if score else None


def _point(frame: Frame, r: Result, y: float | None, kind: str, number: int | None) -> str:
    """A dot, and its number to the left or right: variants of one size stand above each other."""
    if y is None:
        return ""
    size, side = _mib(r), -1 if number and number % 2 == 0 else 1
    dot = frame.dot(size, y, kind, 4, f"{r.name}, {size:.1f} MiB: {fixed(y, 4)}")
    if number is None:
        return dot
    beside = size + side * (frame.x[1] - frame.x[0]) / 50
    return dot + frame.label(beside, y, str(number), "end" if side < 0 else "start", -4)


def _reliability(s: Study) -> str:
    drawn = "".join(_curve(tables.numbered(s)[r.name], r) for r in text.measured(s) if r.raw)
    if not drawn:
        return ""
    return m.section(
        "Does the confidence come true?",
        m.paragraph("Where a dot lies on the dotted line, the share right is what the confidence "
                    "says.", "note"),
        f'<div class="charts">{drawn}</div>',
    )  # fmt: skip


def _curve(name: str, r: Result) -> str:
    frame = Frame("confidence", "share right")
    body, rows = frame.line([(0, 0), (1, 1)], "guide"), []
    for kind, score in (("raw", r.raw), ("calibrated", r.calibrated)):
        for b in score.bins if score else ():
            tip = f"{kind}, {count(int(b.n), 'answer')}: said {fixed(b.confidence)}, right "
            tip += percent(b.accuracy)
            body += frame.whisker(b.confidence, b.accuracy_low, b.accuracy_high, kind)
            body += frame.dot(b.confidence, b.accuracy, kind, 3, tip)
            within = f"{percent(b.accuracy_low)} to {percent(b.accuracy_high)}"
            rows.append((kind, count(int(b.n)), fixed(b.confidence), percent(b.accuracy), within))
    says = f"{name}: share right against confidence, before and after calibration"
    key = [("dot", "raw", "raw score"), ("dot", "calibrated", "calibrated"),
           ("line", "guide", "perfect calibration")]  # fmt: skip
    head = ("score", "answers", "mean", "share right", "95% interval")
    return figure(name, frame.svg(body, says), key, m.table(head, rows, says))


def _differences(s: Study) -> str:
    rows = text.compared(s)
    if not rows:
        return ""
    drawn = "".join(_forest(s, key) for key in text.SHOWN)
    head, cells = tables.differences(s)
    names = ", ".join(tables.numbered(s)[r.name] for r in rows)
    return m.section(
        f"How far is each from {s.reference}?",
        m.paragraph(f"Each variant minus {s.reference}, on the questions that both answered, with "
                    "its 95% interval. Below 0 is better for the Brier score, above 0 for the "
                    f"share right and AUROC. By number: {names}.", "note"),
        f'<div class="charts">{drawn}</div>',
        m.table(head, cells, f"Differences to {s.reference}", stack=True),
    )  # fmt: skip


def _forest(s: Study, key: str) -> str:
    """A dot and a whisker for each variant that has this difference."""
    numbers = {r.name: i for i, r in enumerate(s.results, 1)}
    found = [(numbers[r.name], r, r.differences[key]) for r in text.compared(s)]
    found = [(i, r, d) for i, r, d in found if d.value is not None]
    if not found:
        return ""
    most = max(abs(v) for _, _, d in found for v in (d.value, d.low, d.high) if v is not None)
    side = nice_ticks(most, 3)
    ticks = [-v for v in reversed(side[1:])] + list(side)
    frame = Frame(
        "variant", "difference", x=(0.5, len(s.results) + 0.5), y=(ticks[0], ticks[-1]),
        x_ticks=[i for i, *_ in found], y_ticks=ticks, x_text=lambda v: f"{v:g}", height=240,
        y_text=lambda v: f"{100 * v if key == 'accuracy' else v:g}".replace("-", "−"),
    )  # fmt: skip
    body = frame.level(0, "zero")
    for i, r, d in found:
        body += _whisker(frame, i, d)
        tip = f"{r.name}: {text.difference(key, d)}"
        body += frame.dot(i, d.value or 0, "calibrated", 4, tip)
    says = f"{text.TITLES[key]}: each variant minus {s.reference}"
    rows = [(tables.numbered(s)[r.name], text.difference(key, d)) for _, r, d in found]
    shown = [("dot", "calibrated", f"minus {s.reference}, 95% interval")]
    title = "Share right, in points" if key == "accuracy" else text.TITLES[key]
    table = m.table(("variant", "difference"), rows, says)
    return figure(title, frame.svg(body, says), shown, table)


def _whisker(frame: Frame, x: float, d: Difference) -> str:
    if d.low is None or d.high is None:
        return ""
    return frame.whisker(x, d.low, d.high, "calibrated")


def _more(s: Study) -> str:
    metrics, runs = tables.more(s), tables.runs(s)
    return m.section(
        "All other numbers",
        m.table(*metrics, "NLL, MCE, UBCE with its halves, AURC", stack=True),
        m.table(*runs, "Entropy, unknown, calibrator, seconds of loading", stack=True),
        m.paragraph(_more_note(), "note"),
    )


def _claims(s: Study) -> str:
    return m.section(
        "What is claimed, and what is not",
        "<h3>Claimed</h3>", m.bullets(_claimed(s), "claims"),
        "<h3>Not claimed</h3>", m.bullets(_refused(s), "claims"),
    )  # fmt: skip


def _page_note(s: Study) -> str:
    return (
        "Lower is better for the Brier score and ECE, higher for AUROC. The ECE floor is what a "
        "perfectly calibrated score shows on as many answers. On the front: no other variant has "
        f"both fewer bytes and a lower calibrated Brier score. Speed: {text.SPEED} The reference "
        f"is “{s.reference}”."
    )


def _more_note() -> str:
    return (
        "UBCE, the mean distance of the score from right or wrong, with its two halves: doubt in "
        "right answers and trust in wrong ones. It is no proper score: pushing every confidence "
        "to 0 or 1 lowers it. MCE is the largest gap of 15 bins, and large by chance where these "
        "hold few answers. Entropy is in nats a token, over the answer. Unknown: questions without "
        "an answer, or without a score; they count in the share right and nowhere else."
    )


def _claimed(s: Study) -> list[str]:
    found = ["Every number is of questions that no calibrator saw: whole groups are in one part."]
    if s.groups >= FEW:
        often = "about 1 of 20" if s.groups >= limits.SMALL else "about 1 of 10"
        found.append(
            f"A difference whose interval leaves out 0 would be seen in {often} studies of this "
            f"kind if the variant and {s.reference} were alike; with many variants and metrics, "
            "some stand out by chance, and calibrated scores more often where few questions fitted "
            "their calibrators."
        )
    return found


def _refused(s: Study) -> list[str]:
    several = (
        "That ECE above its floor is more than chance: some groups hold several questions, and the "
        "floor and the intervals in the reliability pictures take every answer for independent."
    )
    return [
        *([several] if s.measured > s.groups else []),
        "Anything about other questions, another prompt, or other decoding than was measured.",
        "That the front would be the same on other questions: it knows no intervals.",
        "That a higher AUROC tells right from wrong better within one kind of question: over "
        "several kinds it also counts how well the kinds are told apart, and can fall when a "
        "variant gets better at a hard one.",
        "That the speed holds on another machine, in another dtype, or with longer lists.",
    ]
