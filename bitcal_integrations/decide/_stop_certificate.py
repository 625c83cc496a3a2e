"""StopCertificate: a plan for early exits with its promise, or no plan and what one would need.

It holds the numbers and puts them into words; how they are found is in stop.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bitcal_integrations.calibrators import Calibrator
from bitcal_integrations.calibrators._check import refuse_part
from bitcal_integrations.decide._stop_plan import StopPlan
from bitcal_integrations.decide.logged import Checkpoint
from bitcal_integrations.errors import CalibrationError

VERSION = 1


@dataclass(frozen=True)
class StopCertificate:
    """Ending runs by `plan` loses what the full run had in at most `max_loss` of the runs.

    That holds with probability 1 - delta over the draw of the runs, for each of `levels`: for
    "settled" the loss is a run that ended with another answer than its full length would have
    given (`kind` "wrong": a wrong one instead of a right one; "changed": a different one), for
    "hopeless" a run given up that would have come right (or, "changed", to an answer). It speaks
    of the full run, not of the truth. `plan` None: nothing is promised, and `reason` says why.

    `n` independent runs were tested, of which `losses` lost (by level, as if it were the only one;
    under the last rule that passed, or the one that failed where none did), and `ended` is the
    share that ended early (by level); `fitted` other runs chose the rules. `saved` is the share of
    the full runs' tokens that the plan spares, trial answers paid, with its 95% interval
    `saved_low` to `saved_high`. `calibrator` gives P(right) of an answer from the score that
    settled it. `simultaneous` certificates hold together at `delta`. `runs_needed` is about how
    many runs would do, with a chance of 80%, where there is no plan; None where no number would.
    """

    plan: StopPlan | None
    max_loss: float
    delta: float
    n: int
    losses: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["wrong", "changed"] = "wrong"
    unit: Literal["generation", "chain"] = "generation"
    levels: tuple[str, ...] = ("settled",)
    ended: Mapping[str, float] = field(default_factory=dict)
    saved: float = 0.0
    saved_low: float = 0.0
    saved_high: float = 0.0
    calibrator: Calibrator | None = None
    label_source: str = "labels"
    fitted: int = 0
    simultaneous: int = 1
    reason: str = ""
    runs_needed: int | None = None

    @property
    def level(self) -> str:
        """What it promises for, "settled", "hopeless" or both joined by "+"; "" for nothing."""
        return "+".join(rule.level for rule in self.plan.rules) if self.plan else ""

    @property
    def promise(self) -> str:
        """What is promised, in one sentence."""
        if self.plan is None:
            return f"no early stop is promised: {self.reason}"
        claims = " and ".join(self._claim(rule.level) for rule in self.plan.rules)
        return f"with probability {_percent(1 - self.delta)} or more, {claims}"

    def _claim(self, level: str) -> str:
        most, unit = _percent(self.max_loss), f"{self.unit}s"
        teacher = self.label_source.replace(": ", " ", 1)
        right = "right" if self.label_source == "labels" else f"in agreement with the {teacher}"
        if level == "hopeless":
            had = f"come out {right}" if self.kind == "wrong" else "had an answer"
            return f"at most {most} of the {unit} are given up that would have {had}"
        if self.kind == "changed":
            return f"ending early changes the answer of at most {most} of the {unit}"
        return f"ending early spoils an answer that was {right} in at most {most} of the {unit}"

    def __str__(self) -> str:
        if self.plan is None:
            more = f"; about {self.runs_needed:,} runs could promise it" if self.runs_needed else ""
            return f"{self.promise}{more}"
        rules = " or ".join(map(str, self.plan.rules))
        low, high = _percent(self.saved_low), _percent(self.saved_high)
        return (
            f"end where {rules}: {self.promise} "
            f"({_percent(self.saved)} of tokens saved, {low} to {high}; n={self.n})"
        )

    def probability(self, seen: Sequence[Checkpoint]) -> float | None:
        """P(right) of the answer that settles a run at the last of `seen`; None where unknown."""
        rule = self.plan.settled if self.plan else None
        value = rule.value(seen) if rule else None
        if value is None or self.calibrator is None:
            return None
        return float(self.calibrator([[value]])[0])

    def to_dict(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            "version": VERSION, **fields, "plan": self.plan.to_dict() if self.plan else None,
            "losses": dict(self.losses), "ended": dict(self.ended), "levels": list(self.levels),
            "calibrator": self.calibrator.to_dict() if self.calibrator else None,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StopCertificate:
        values = dict(data)
        if (version := values.pop("version", None)) != VERSION:
            raise CalibrationError(f"version {version!r} of a stop certificate; known is {VERSION}")
        refuse_part(values, ("plan", "max_loss", "delta", "n"), "stop certificate")
        plan, calibrator = values["plan"], values.get("calibrator")
        values["plan"] = StopPlan.from_dict(plan) if plan else None
        values["calibrator"] = Calibrator.from_dict(calibrator) if calibrator else None
        return cls(**{**values, "levels": tuple(values.get("levels", ("settled",)))})


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
