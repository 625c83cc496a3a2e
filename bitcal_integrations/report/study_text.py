"""A study of weight types as sentences, tables and CSV, for the console and the HTML page alike.

Knows how numbers read. Computes nothing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from bitcal_integrations.paired import KEYS, Difference
from bitcal_integrations.report.words import UNKNOWN, count, fixed, percent

if TYPE_CHECKING:
    from bitcal_integrations.studied import Result, Score, Study

WIDTH = 100  # columns of the printed tables, at most
NAME = 16  # of these for names, before a table is parted
MIB = 2**20
METRICS = (
    "brier", "brier_low", "brier_high", "base_brier", "nll", "ece", "ece_floor", "ece_floor_p95",
    "mce", "auroc", "aurc", "prr", "ubce", "ubce_correct", "ubce_incorrect",
)  # fmt: skip
TITLES = {
    "accuracy": "right, points", "brier_raw": "Brier raw", "brier_calibrated": "Brier calibrated",
    "nll_raw": "NLL raw", "nll_calibrated": "NLL calibrated", "auroc_raw": "AUROC raw",
    "auroc_calibrated": "AUROC calibrated",
}  # fmt: skip
SHOWN = ("accuracy", "brier_raw", "brier_calibrated", "auroc_raw", "auroc_calibrated")
LOWER_IS_BETTER = ("brier", "nll")


def measured(s: Study) -> list[Result]:
    """The variants that have numbers."""
    return [r for r in s.results if not r.error]


def compared(s: Study) -> list[Result]:
    """Those that were compared with the reference."""
    return [r for r in measured(s) if r.differences]


def overview(s: Study) -> str:
    return (
        f"{count(len(s.results), 'variant')}, {count(s.questions, 'question')}: {count(s.fit)} to "
        f"fit each calibrator, {count(s.measured)} in {count(s.groups, 'group')} to measure."
    )


def findings(s: Study) -> list[str]:
    """One sentence for each variant: what is clearly another, and what is not."""
    return [_finding(r, s.reference) for r in compared(s)]


def _finding(r: Result, reference: str) -> str:
    clear = [_said(key, r.differences[key]) for key in SHOWN if r.differences[key].clear]
    if not any(r.differences[key].low is not None for key in SHOWN):
        return f"{r.name}: nothing can be told apart from {reference}."
    if not clear:
        return f"{r.name}: no clear difference to {reference}."
    return f"{r.name} against {reference}: {'; '.join(clear)}."


def _said(key: str, d: Difference) -> str:
    worse = (d.value or 0) > 0 if key.startswith(LOWER_IS_BETTER) else (d.value or 0) < 0
    name, unit = ("share right", " points") if key == "accuracy" else (TITLES[key], "")
    return f"{name} {'worse' if worse else 'better'}, {difference(key, d)}{unit}"


def difference(key: str, d: Difference | None) -> str:
    """A difference with its interval; accuracy in points.

    >>> difference("brier_raw", Difference(0.0712, 0.065, 0.0771))
    '+0.0712 [+0.0650, +0.0771]'
    """
    if d is None or d.value is None:
        return UNKNOWN
    value, low, high = (_signed(key, v) for v in (d.value, d.low, d.high))
    return value if d.low is None else f"{value} [{low}, {high}]"


def _signed(key: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    text = fixed(100 * value, 1) if key == "accuracy" else fixed(value, 4)
    return text if text.startswith("−") or not float(text) else f"+{text}"


def spread(key: str, d: Difference | None) -> str:
    """A difference with the longer half of its interval, for narrow columns.

    >>> spread("accuracy", Difference(-0.011, -0.02, 0.0))
    '−1.1 ±1.1'
    """
    if d is None or d.value is None or d.low is None or d.high is None:
        return difference(key, d)
    half = max(d.high - d.value, d.value - d.low)
    return f"{_signed(key, d.value)} ±{_signed(key, half).lstrip('+')}"


def lines(s: Study, width: int = WIDTH) -> list[str]:
    """The tables for a console of this width; one that is wider stands there in parts."""
    head = ("variant", "MiB  ", "tokens/s", "right %", "Brier", "calibr.", "ECE (floor)", "calibr.",
            "AUROC", "calibr.")  # fmt: skip
    out = _parted([head, *(_line(r) for r in s.results)], (3, 2, 2, 2), width)
    if compared(s):
        titles = [TITLES[key].replace("calibrated", "cal.") for key in SHOWN]
        rows = [(r.name, *(spread(key, r.differences[key]) for key in SHOWN))
                for r in compared(s)]  # fmt: skip
        out += ["", *_parted([(f"minus {s.reference}", *titles), *rows], (1, 2, 2), width)]
    return out


def legend(s: Study) -> str:
    return (
        "calibr.: after calibration on other questions. ECE floor: what a perfectly calibrated "
        "score shows on as many answers. *: no other variant has both fewer bytes and a lower "
        f"calibrated Brier score. tokens/s: {SPEED} ± is the longer half of a 95% interval over "
        "groups, of both variants on the same questions."
    )


SPEED = "measured in this run, on this machine, a few prompts at once."


def _line(r: Result) -> tuple[str, ...]:
    if r.error:
        return (r.name, "not measured")
    raw, cal = numbers_of(r.raw), numbers_of(r.calibrated)
    return (
        r.name, mib(r.bytes) + (" *" if r.front else "  "), speed(r),
        percent(r.accuracy).removesuffix("%"),
        fixed(raw.get("brier"), 4), fixed(cal.get("brier"), 4), _ece(raw), _ece(cal),
        fixed(raw.get("auroc")), fixed(cal.get("auroc")),
    )  # fmt: skip


def numbers_of(score: Score | None) -> dict[str, Any]:
    return dict(score.numbers) if score else {}


def mib(n: int | None) -> str:
    """
    >>> mib(3 * 2**20), mib(None)
    ('3.0', '–')
    """
    return UNKNOWN if n is None else f"{n / MIB:,.1f}"


def speed(r: Result) -> str:
    return UNKNOWN if r.speed is None else f"{r.speed:,.0f}" if r.speed >= 10 else f"{r.speed:.1f}"


def _ece(numbers: dict[str, Any]) -> str:
    found = fixed(numbers.get("ece"))
    return f"{found} ({fixed(numbers['ece_floor']).lstrip('0')})" if numbers else found


def _parted(rows: Sequence[Sequence[str]], parts: Sequence[int], width: int) -> list[str]:
    """One table, or several that keep parts whole; a row of two cells has a note for numbers."""
    whole = [row for row in rows if len(row) == len(rows[0])]
    wide = [1 + max(len(row[i]) for row in whole) for i in range(len(rows[0]))]
    blocks: list[list[int]] = [[]]
    for start, end in pairwise(accumulate(parts, initial=1)):
        if blocks[-1] and NAME + sum(wide[i] for i in [*blocks[-1], *range(start, end)]) > width:
            blocks.append([])
        blocks[-1] += range(start, end)
    tables = [
        [[row[0], *(row[i] for i in block)] if len(row) == len(rows[0]) else row for row in rows]
        for block in blocks
    ]
    return [line for table in tables for line in ("", *_aligned(table, width))][1:]


def _aligned(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Columns as wide as they must be: the first to the left, cut if need be, the others right."""
    whole = [row for row in rows if len(row) == len(rows[0])]
    wide = [max(len(row[i]) for row in whole) for i in range(len(rows[0]))]
    rest = sum(wide[1:]) + len(wide) - 1
    wide[0] = max(4, min(max(len(row[0]) for row in rows), width - rest))
    gap = " " * (2 if wide[0] + rest + len(wide) - 1 <= width else 1)
    return [gap.join(_padded(row, wide)).rstrip() for row in rows]


def _padded(row: Sequence[str], wide: Sequence[int]) -> list[str]:
    name = row[0] if len(row[0]) <= wide[0] else f"{row[0][: wide[0] - 1]}…"
    cells = [c.rjust(w) for c, w in zip(row[1:], wide[1:], strict=False)]
    return [name.ljust(wide[0]), *cells]


def as_csv(s: Study) -> str:
    """Every number of every variant, unrounded; an empty cell where there is none."""
    file = io.StringIO()
    rows = [_row(s, r) for r in s.results]
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _row(s: Study, r: Result) -> dict[str, Any]:
    own = ("name", "error", "accuracy", "unknown", "failed", "fit", "bytes", "speed", "loading",
           "entropy", "calibrator", "front")  # fmt: skip
    row = {key: getattr(r, key) for key in own}
    row |= {"measured": s.measured, "groups": s.groups, "seed": s.seed, "against": s.reference}
    for kind, score in (("raw", r.raw), ("calibrated", r.calibrated)):
        row |= {f"{key}_{kind}": numbers_of(score).get(key) for key in ("n", *METRICS)}
    for key in KEYS:
        d = r.differences.get(key, Difference(None))
        values = {"": d.value, "_low": d.low, "_high": d.high}
        row |= {f"difference_{key}{end}": value for end, value in values.items()}
    return row
