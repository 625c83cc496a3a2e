"""One measured ratio as a row, and the rows as a Markdown table. Measures nothing."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

_HOLDS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Row:
    """One ratio of a benchmark: `ratios` holds every pair in the order it was measured.

    `setting` says what is divided by what; `target` is "<= 1.05" or the like, None where the figure
    only informs.
    """

    benchmark: str
    setting: str
    ratios: tuple[float, ...]
    target: str | None = None

    @property
    def ratio(self) -> float:
        """The median of all pairs."""
        return median(self.ratios)

    @property
    def low(self) -> float:
        return min(self.ratios)

    @property
    def high(self) -> float:
        return max(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without a target.

        >>> Row("tap", "time", (1.0, 1.04, 1.2), "<= 1.05").met
        True
        """
        if self.target is None:
            return None
        sign, limit = self.target.split()
        return bool(_HOLDS[sign](self.ratio, float(limit)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with what is derived."""
        derived = {name: getattr(self, name) for name in ("ratio", "low", "high", "met")}
        return {**dataclasses.asdict(self), "ratios": list(self.ratios), **derived}


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Pair by pair.

    >>> ratios([3.0, 4.0], [1.0, 2.0])
    (3.0, 2.0)
    """
    return tuple(a / b for a, b in zip(above, below, strict=True))


HEAD = ("benchmark", "setting", "ratio (median)", "spread (min to max)", "pairs", "target", "met")


def table(rows: Sequence[Row]) -> str:
    """A line that names the machine, then one line per row, as Markdown."""
    from bitcal_integrations.bench._machine import machine

    lines = [f"Measured on {machine()}.", "", _line(HEAD), _line(["---"] * len(HEAD))]
    for row in rows:
        spread = f"{_number(row.low)} to {_number(row.high)}"
        target, met = row.target or "none", {True: "yes", False: "no", None: ""}[row.met]
        cells = (row.benchmark, row.setting, _number(row.ratio), spread, str(len(row.ratios)))
        lines.append(_line((*cells, target, met)))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: float) -> str:
    """Enough digits on both sides of 1.

    >>> _number(1.0483), _number(0.00213), _number(12.34)
    ('1.05', '0.0021', '12.3')
    """
    if abs(value) < 0.1:
        return f"{value:.4f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
