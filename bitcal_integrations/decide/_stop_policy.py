"""StopPolicy: a certificate for chains as the policy that ends them.

Its rule is shown the chain's steps so far as checkpoints, made by the code that made those of the
logged chains. It knows records, no framework.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitcal_integrations.decide._stop_certificate import StopCertificate
from bitcal_integrations.decide.logged import steps_of
from bitcal_integrations.decide.policy import Below, Unknown, check_actions, shift_of, unpacked
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Decision

if TYPE_CHECKING:
    from bitcal_integrations.types import Record

VERSION = 1
OUTSIDE = "the certificate does not cover it"


@dataclass(frozen=True)
class StopPolicy:
    """Accept where the certificate's rule settles the chain at its latest step.

    `decide` sees one record and takes it for a chain's only step; whoever has all steps calls
    `decide_chain`. A chain that the rule gives up, or goes on with, gets the action `below`.
    """

    certificate: StopCertificate
    on_unknown: Unknown = "escalate"
    below: Below = "escalate"

    def __post_init__(self) -> None:
        check_actions(self.on_unknown, self.below)
        if self.certificate.unit != "chain":
            raise BadRequest(
                f"a certificate for {self.certificate.unit}s is no policy for answers or chains: "
                "give it as early_stop= of a model, or certify runs of LoggedRun.of_chain"
            )

    def decide(self, record: Record) -> Decision:
        return self.decide_chain([record])

    def decide_chain(self, records: Sequence[Record]) -> Decision:
        """What to do after the latest of a chain's steps, and why."""
        plan, latest = self.certificate.plan, records[-1]
        if plan is None:
            return Decision(self.below, f"no certified early stop: {self.certificate.reason}")
        verdict = plan.verdict(steps_of(records))
        if verdict == "settled" and (shift := shift_of(latest)):
            return Decision(self.on_unknown, f"{plan.settled}, but {shift}; {OUTSIDE}")
        if verdict == "settled":
            return Decision("accept", f"settled: {plan.settled}")
        if latest.confidence.value is None or math.isnan(latest.confidence.value):
            why = latest.confidence.reason or "no confidence"
            return Decision(self.on_unknown, f"unknown: {why}")
        if verdict == "hopeless":
            return Decision(self.below, f"hopeless: {plan.hopeless}")
        return Decision(self.below, f"not settled: {plan.settled or 'no rule'}")

    def gives_up(self, records: Sequence[Record]) -> bool:
        """Whether the chain should be given up after its latest step."""
        plan = self.certificate.plan
        if plan is None or shift_of(records[-1]):
            return False
        return plan.verdict(steps_of(records)) == "hopeless"

    def to_dict(self) -> dict[str, Any]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        certificate = self.certificate.to_dict()
        return {"version": VERSION, "kind": "stop", **fields, "certificate": certificate}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StopPolicy:
        values = unpacked(data, "stop", VERSION)
        return cls(**{**values, "certificate": StopCertificate.from_dict(values["certificate"])})
