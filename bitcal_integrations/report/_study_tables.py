"""The tables of a study's page, as texts: (head, rows). Computes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bitcal_integrations.report.study_text import (
    SHOWN,
    TITLES,
    compared,
    difference,
    measured,
    mib,
    numbers_of,
    speed,
)
from bitcal_integrations.report.tables import Cell, Table
from bitcal_integrations.report.words import UNKNOWN, count, fixed, percent

if TYPE_CHECKING:
    from bitcal_integrations.paired import Difference
    from bitcal_integrations.studied import Study


def numbered(s: Study) -> dict[str, str]:
    """Each name behind its number, by which drawings call it."""
    return {r.name: f"{i}. {r.name}" for i, r in enumerate(s.results, 1)}


def scores(s: Study) -> Table:
    """What a reader wants first, of every variant."""
    head = ("variant", "size", "right", "Brier", "Brier calibrated", "front", "ECE",
            "ECE calibrated", "AUROC", "AUROC calibrated")  # fmt: skip
    names = numbered(s)
    rows: list[Sequence[Cell]] = []
    for r in measured(s):
        raw, cal = numbers_of(r.raw), numbers_of(r.calibrated)
        size = UNKNOWN if r.bytes is None else f"{mib(r.bytes)} MiB"
        rows.append((
            names[r.name], (size, "" if r.speed is None else f"{speed(r)} tokens/s"),
            percent(r.accuracy), _brier(raw), _brier(cal), "yes" if r.front else UNKNOWN,
            _floored(raw), _floored(cal), fixed(raw.get("auroc")), fixed(cal.get("auroc")),
        ))  # fmt: skip
    return head, rows


def _brier(numbers: dict[str, Any]) -> Cell:
    value = fixed(numbers.get("brier"), 4)
    if numbers.get("brier_low") is None:
        return value
    return value, f"[{fixed(numbers['brier_low'])}, {fixed(numbers['brier_high'])}]"


def _floored(numbers: dict[str, Any]) -> Cell:
    if not numbers:
        return UNKNOWN
    return fixed(numbers["ece"]), f"floor {fixed(numbers['ece_floor'])}"


def more(s: Study) -> Table:
    """The other metrics, before and after calibration."""
    head = ("variant", "NLL", "MCE", "UBCE", "of right answers", "of wrong answers", "AURC")
    keys = ("nll", "mce", "ubce", "ubce_correct", "ubce_incorrect", "aurc")
    rows: list[Sequence[Cell]] = [
        (f"{numbered(s)[r.name]}, {kind}", *(fixed(score.numbers[key]) for key in keys))
        for r in measured(s)
        for kind, score in (("raw", r.raw), ("calibrated", r.calibrated))
        if score
    ]
    return head, rows


def runs(s: Study) -> Table:
    """How each variant answered and was calibrated."""
    head = ("variant", "entropy", "unknown", "calibrator", "fitted on", "loading")
    rows: list[Sequence[Cell]] = [
        (
            numbered(s)[r.name], fixed(r.entropy), count(r.unknown), r.calibrator.partition(":")[0],
            count(r.fit), UNKNOWN if r.loading is None else f"{r.loading:.1f} s",
        )
        for r in measured(s)
    ]  # fmt: skip
    return head, rows


def differences(s: Study) -> Table:
    head = ("variant", *(TITLES[key] for key in SHOWN))
    rows: list[Sequence[Cell]] = [
        (numbered(s)[r.name], *(_pair(key, r.differences[key]) for key in SHOWN))
        for r in compared(s)
    ]
    return head, rows


def _pair(key: str, d: Difference) -> Cell:
    value, _, interval = difference(key, d).partition(" ")
    return value, interval
