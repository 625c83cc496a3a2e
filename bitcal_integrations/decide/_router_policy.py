"""RouterPolicy: escalate where the predicted gain reaches a threshold.

It reads the features from a record's signals by name. What the numbers in it mean was measured
in route.py; it knows no labels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from bitcal_integrations.decide._check import as_numbers
from bitcal_integrations.decide._gain import GainModel
from bitcal_integrations.decide.policy import (
    UNCOVERED,
    Unknown,
    apart,
    check_actions,
    shift_of,
    unpacked,
)
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Decision

if TYPE_CHECKING:
    from bitcal_integrations.types import Record

Array: TypeAlias = np.ndarray
ALWAYS = -1.0  # no gain is lower
VERSION = 1


@dataclass(frozen=True)
class RegretCertificate:
    """P(accuracy lost against the big model <= max_regret) >= 1 - delta, from n held-out rows."""

    max_regret: float
    delta: float
    n: int

    @property
    def promise(self) -> str:
        """What is promised, in one sentence.

        >>> RegretCertificate(0.02, 0.1, 900).promise
        'with probability 90% or more, at most 2 points of accuracy are lost to the big model'
        """
        sure, points = 100 * (1 - self.delta), 100 * self.max_regret
        return (
            f"with probability {sure:.4g}% or more, at most {points:.4g} points of accuracy "
            "are lost to the big model"
        )


@dataclass(frozen=True)
class RouterPolicy:
    """Escalate iff the gain is at least `threshold`; None never does, -1 always.

    `escalation` (a share), `accuracy` and `cost` per query are what was estimated at fit.
    """

    names: tuple[str, ...]
    model: GainModel
    threshold: float | None
    why: str
    escalation: float
    accuracy: float
    cost: float
    small_accuracy: float
    big_accuracy: float
    certificate: RegretCertificate | None = None
    on_unknown: Unknown = "escalate"

    def __post_init__(self) -> None:
        check_actions(self.on_unknown, "escalate")

    @property
    def kind(self) -> Literal["never", "always", "some"]:
        """Whether it escalates nothing, everything, or what has enough gain."""
        if self.threshold is None:
            return "never"
        return "always" if self.threshold <= ALWAYS else "some"

    def escalate(self, x: Any) -> Array:
        """(n,) booleans for a table of features; a row with a missing one follows `on_unknown`."""
        x = as_numbers("features", x)
        if x.ndim != 2 or x.shape[1] != len(self.names):
            raise BadRequest(
                f"features of the shape {x.shape} are not allowed: it must be "
                f"(rows, {len(self.names)}) for {', '.join(self.names)}"
            )
        gains = self.model(x)
        least = math.inf if self.threshold is None else self.threshold
        return np.where(np.isnan(gains), self.on_unknown != "accept", gains >= least)

    def decide(self, record: Record) -> Decision:
        """By the signals of the record; an answer of unknown confidence follows `on_unknown`.

        With a certificate so does one whose scores have shifted, for it does not speak of these.
        """
        unknown = self._unknown(record)
        if unknown:
            return Decision(self.on_unknown, f"unknown: {unknown}")
        if self.certificate is not None and (shift := shift_of(record)):
            return Decision(self.on_unknown, f"{shift}; {UNCOVERED}")
        if self.threshold is None or self.kind == "always":
            action: Literal["accept", "escalate"]
            action = "escalate" if self.kind == "always" else "accept"
            return Decision(action, f"{self.kind} escalated: {self.why}")
        signals = record.confidence.signals
        row = np.array([[float(signals[name]) for name in self.names]])
        gain = float(self.model(row)[0])
        left, right = apart(gain, self.threshold)
        if gain >= self.threshold:
            return Decision("escalate", f"predicted gain {left} >= {right}")
        return Decision("accept", f"predicted gain {left} < {right}")

    def _unknown(self, record: Record) -> str:
        confidence = record.confidence
        if confidence.value is None or math.isnan(confidence.value):
            return confidence.reason or "no confidence"
        found = {name: confidence.signals.get(name) for name in self.names}
        missing = [k for k, v in found.items() if v is None or not math.isfinite(v)]
        return f"no signal {missing[0]!r}" if missing else ""

    def to_dict(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        return {"version": VERSION, "kind": "router", **plain, "names": list(self.names)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RouterPolicy:
        values = unpacked(data, "router", VERSION)
        certificate = values["certificate"]
        return cls(
            **{
                **values,
                "names": tuple(values["names"]),
                "model": GainModel.from_dict(values["model"]),
                "certificate": RegretCertificate(**certificate) if certificate else None,
            }
        )
