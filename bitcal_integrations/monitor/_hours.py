"""Hours of answers as counts, which add up to days and weeks without going back to the answers.

Latencies are counted in bins a twentieth of a power of ten wide, so that their quantiles are known
to about 12%. Knows stored rows; no labels and no profile.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bitcal_integrations.monitor._numbers import STOPPED
from bitcal_integrations.types import Record

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import StoredRecord

LENGTHS = (1, 6, 24, 24 * 7, 24 * 28)  # hours of a period
MOST_PERIODS = 32
PER_DECADE = 20


@dataclass
class Hour:
    """Counts and sums over answers."""

    answers: int = 0
    known: int = 0
    confidence: float = 0.0
    decided: int = 0
    escalated: int = 0
    stopped: int = 0
    tokens: int = 0
    probes: int = 0
    seconds: Counter[int] = field(default_factory=Counter)

    def add(self, row: StoredRecord) -> None:
        self.answers += 1
        if row.confidence is not None:
            self.known += 1
            self.confidence += row.confidence
        self.decided += row.action is not None
        self.escalated += row.action not in (None, "accept")
        self.stopped += row.finish in STOPPED
        self.tokens += row.n_tokens
        self.probes += row.probe_tokens
        if row.seconds > 0:
            self.seconds[math.floor(PER_DECADE * math.log10(row.seconds))] += 1

    @classmethod
    def sum(cls, hours: Iterable[Hour]) -> Hour:
        total = cls()
        for hour in hours:
            for name, value in vars(hour).items():
                setattr(total, name, getattr(total, name) + value)
        return total

    def numbers(self) -> dict[str, Any]:
        """Counts, and shares and means where there is something to divide by."""
        return {
            "answers": self.answers,
            "confidence": _over(self.confidence, self.known),
            "unknown": _over(self.answers - self.known, self.answers),
            "escalated": _over(self.escalated, self.decided),
            "stopped": _over(self.stopped, self.answers),
            "tokens": _over(self.tokens, self.answers),
            "probe_tokens": _over(self.probes, self.answers),
            "seconds_p50": self._quantile(0.5),
            "seconds_p95": self._quantile(0.95),
        }

    def _quantile(self, level: float) -> float | None:
        """The middle of the bin in which the level lies."""
        wanted, below = level * self.seconds.total(), 0
        for at in sorted(self.seconds):
            below += self.seconds[at]
            if below >= wanted:
                return float(10 ** ((at + 0.5) / PER_DECADE))
        return None


def _over(value: float, n: int) -> float | None:
    return value / n if n else None


def period_length(hours: Collection[int]) -> int:
    """The shortest period, in hours, of which not too many are needed."""
    span = max(hours, default=0) - min(hours, default=0) + 1
    return next((n for n in LENGTHS if span <= n * MOST_PERIODS), LENGTHS[-1])


def merged(hours: Mapping[int, Hour], length: int) -> Iterator[tuple[int, Hour]]:
    """Periods with answers in their order, each with the hour it begins with."""
    found: dict[int, list[Hour]] = {}
    for at in sorted(hours):
        found.setdefault(at - at % length, []).append(hours[at])
    for start, some in found.items():
        yield start, Hour.sum(some)


def saving_of(record: Record) -> float | None:
    """The share of the full length that the early stop in force promised to spare; None without."""
    asked = record.request.early_stop
    for name in ("plan", "promise"):
        inner = asked.get(name) if isinstance(asked, Mapping) else getattr(asked, name, None)
        if name == "promise" or inner is not None:
            asked = inner
    saved = asked.get("saved") if isinstance(asked, Mapping) else None
    return float(saved) if isinstance(saved, (int, float)) and 0 <= saved < 1 else None
