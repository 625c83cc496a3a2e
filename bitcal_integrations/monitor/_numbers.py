"""The plain numbers of what a model answered lately, and limits that a user sets for them.

Escalated, unknown, stopped early, slow: each is a share of answers. A limit is crossed when the
answers speak against "the share keeps to it" as clearly as a drift test asks, however often one
looks. Knows Records; no profile.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor._bets import Bets, stakes
from bitcal_integrations.types import Record

LATELY = 1000
STOPPED = ("settled", "hopeless")


@dataclass(frozen=True)
class Limits:
    """Bounds to be told about; None is no bound.

    At most `escalated` and `unknown` of the answers, at most 1 in 20 that take longer than
    `seconds`, and at least `stopped` that early stopping ended.
    """

    escalated: float | None = None
    unknown: float | None = None
    seconds: float | None = None
    stopped: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = math.inf if name == "seconds" else 1
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < most):
                allowed = (
                    "a number of seconds above 0" if name == "seconds" else "a share in (0, 1)"
                )
                raise BadRequest(f"{name}={value!r} is not allowed as a limit: it is {allowed}")


class Seen(NamedTuple):
    """What is kept of one answer; None where it was not decided on."""

    escalated: bool | None
    unknown: bool
    seconds: float
    stopped: bool
    tokens: int
    probes: int


def seen_of(record: Record, action: str | None) -> Seen:
    generation = record.generation
    return Seen(
        None if action is None else action != "accept",
        record.confidence.value is None,
        record.timing.total,
        generation.finish in STOPPED,
        generation.n_tokens,
        generation.probe_tokens,
    )


class Numbers:
    """The last answers' shares and latencies, with the evidence against the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lately: deque[Seen] = deque(maxlen=LATELY)
        given = {name: bound for name, bound in asdict(limits).items() if bound is not None}
        self.bets = {name: Bets(np.ones(1)) for name in given}
        self._pay = {name: stakes(*_rates(name, bound)) for name, bound in given.items()}

    def see(self, seen: Seen) -> None:
        self._lately.append(seen)
        for name, bets in self.bets.items():
            value = getattr(seen, name)
            if name == "seconds":
                value = value > (self._limits.seconds or math.inf)
            if value is not None:
                bets.see(np.array([float(value)]), self._pay[name])

    def crossed(self, needed: float) -> list[str]:
        """The limits that the answers clearly do not keep to, in words."""
        names = [name for name, bets in self.bets.items() if float(bets.most) >= needed]
        now = self.to_dict() if names else {}
        return [_words(name, getattr(self._limits, name), now) for name in names]

    def to_dict(self) -> dict[str, Any]:
        """Shares, means and latencies of the last answers; None where nothing is known."""
        rows = list(self._lately)
        decided = [r.escalated for r in rows if r.escalated is not None]
        times = [r.seconds for r in rows if r.seconds > 0]
        return {
            "answers": len(rows),
            "escalated": _mean(decided),
            "unknown": _mean([r.unknown for r in rows]),
            "stopped": _mean([r.stopped for r in rows]),
            "tokens": _mean([r.tokens for r in rows]),
            "probe_tokens": _mean([r.probes for r in rows]),
            "seconds_p50": float(np.quantile(times, 0.5)) if times else None,
            "seconds_p95": float(np.quantile(times, 0.95)) if times else None,
        }


def _rates(name: str, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest rate that keeps to a limit."""
    if name == "stopped":
        return np.array([bound]), np.array([1.0])
    return np.array([0.0]), np.array([0.05 if name == "seconds" else bound])


def _words(name: str, bound: float, now: dict[str, Any]) -> str:
    if name == "seconds":
        return (
            f"more than 1 answer in 20 takes longer than {bound:g} s: lately 95% took at most "
            f"{now['seconds_p95']:.3g} s"
        )
    side = "less" if name == "stopped" else "more"
    return f"{side} than {bound:.0%} of the answers are {name}: lately {now[name]:.0%}"


def _mean(values: list[Any]) -> float | None:
    return float(np.mean(values)) if values else None
