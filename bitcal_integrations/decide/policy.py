"""as_policy: a number, a certificate or a policy -> one object that decides about a Record.

A policy says what to do and why; it does it not. It knows the confidence in the record and
nothing about models, chains or labels. Accept iff confidence >= threshold; what is unknown
follows `on_unknown`, whatever the threshold, and so does what a certificate no longer covers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

from bitcal_integrations.decide._certificate import Certificate
from bitcal_integrations.decide._check import is_number
from bitcal_integrations.decide._stop_certificate import StopCertificate
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.types import Decision

if TYPE_CHECKING:
    from bitcal_integrations.types import Record

Unknown: TypeAlias = Literal["escalate", "accept", "raise"]
Below: TypeAlias = Literal["escalate", "abstain", "raise", "review"]

ON_UNKNOWN = ("escalate", "accept", "raise")
BELOW = ("escalate", "abstain", "raise", "review")
VERSION = 1
UNCOVERED = "the certificate does not cover it"


@runtime_checkable
class Policy(Protocol):
    """Whatever decides about a record. A class of your own with this method is one."""

    def decide(self, record: Record) -> Decision:
        """What to do with this record's answer, and why."""
        ...


@dataclass(frozen=True)
class ThresholdPolicy:
    """Accept iff the confidence is at least `threshold`; None accepts nothing.

    `why` says which certificate stands behind the threshold, or why there is none. A certificate
    speaks for answers like those it was made on: where scores have shifted, an answer that would be
    accepted follows `on_unknown`. A plain threshold promises nothing and goes on accepting; its
    reason then says "shifted".
    """

    threshold: float | None
    on_unknown: Unknown = "escalate"
    below: Below = "escalate"
    why: str = ""

    def __post_init__(self) -> None:
        check_actions(self.on_unknown, self.below)
        if self.threshold is not None:
            object.__setattr__(self, "threshold", _threshold(self.threshold))

    def decide(self, record: Record) -> Decision:
        value = record.confidence.value
        if value is None or math.isnan(value):
            return self._unknown(record.confidence.reason or "no confidence")
        if self.threshold is None:
            return Decision(self.below, self.why or "no threshold: nothing is accepted")
        accepted = value >= self.threshold
        left, right = apart(value, self.threshold)
        reason = f"{left} >= {right}" if accepted else f"{left} < {right}"
        if accepted and (shift := shift_of(record)):
            if self.why:
                return Decision(self.on_unknown, f"{reason}, but {shift}; {UNCOVERED}")
            reason = f"{reason} ({shift})"
        return Decision("accept" if accepted else self.below, reason)

    def _unknown(self, reason: str) -> Decision:
        if self.threshold is None and self.on_unknown == "accept":
            return Decision(self.below, f"unknown: {reason}; {self.why or 'nothing is accepted'}")
        outside = f"; {UNCOVERED}" if self.why else ""
        accepts = self.on_unknown == "accept"
        return Decision(self.on_unknown, f"unknown: {reason}{outside if accepts else ''}")

    def to_dict(self) -> dict[str, Any]:
        return {"version": VERSION, "kind": "threshold", **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ThresholdPolicy:
        return cls(**unpacked(data, "threshold", VERSION))


def as_policy(what: Any, on_unknown: Unknown = "escalate", below: Below = "escalate") -> Policy:
    """One object with `decide(record)` from a threshold, a Certificate, a StopCertificate for
    chains, a policy, or the dict that `to_dict` of a certificate or of one of our policies wrote.

    `on_unknown` is the action where the confidence is unknown, or has shifted away from what a
    certificate covers: escalate, accept or raise; `below`
    the one for known confidence that is too low: escalate, abstain, raise or review. A policy has
    its own rules and passes through.

    >>> from bitcal_integrations.types import Confidence, Generation, Record, Request
    >>> record = Record(Request("?"), Generation("42", "stop"), Confidence(0.61))
    >>> as_policy(0.7).decide(record)
    Decision(action='escalate', reason='0.61 < 0.70')
    """
    check_actions(on_unknown, below)
    if isinstance(what, Mapping):
        what = _rebuilt(what)
    if isinstance(what, StopCertificate):
        from bitcal_integrations.decide._stop_policy import StopPolicy

        return StopPolicy(what, on_unknown, below)
    if isinstance(what, Certificate):
        why = f"no certified threshold: {what.reason}" if what.threshold is None else str(what)
        return ThresholdPolicy(what.threshold, on_unknown, below, why)
    if not isinstance(what, type) and callable(getattr(what, "decide", None)):
        if (on_unknown, below) != ("escalate", "escalate"):
            raise BadRequest(
                f"{what!r:.80} decides by itself: on_unknown and below are for thresholds"
            )
        return cast("Policy", what)
    return ThresholdPolicy(_threshold(what), on_unknown, below)


def shift_of(record: Record) -> str:
    """Why the scores are unlike those that were measured; empty where they are not."""
    reason = record.confidence.reason
    return reason if reason.startswith("shifted") else ""


def _rebuilt(data: Mapping[str, Any]) -> Any:
    """The policy or certificate that a dict was written from."""
    from bitcal_integrations.decide._router_policy import RouterPolicy
    from bitcal_integrations.decide._stop_policy import StopPolicy

    kinds: dict[Any, Any] = {"threshold": ThresholdPolicy, "router": RouterPolicy}
    kind = data.get("kind", "certificate" if "max_error" in data else None)
    if kind == "certificate":
        kinds["certificate"] = Certificate
    if kind == "stop":
        kinds["stop"] = StopPolicy
    if "max_loss" in data:
        kind = "stop certificate"
        kinds[kind] = StopCertificate
    if kind not in kinds:
        raise BadRequest(
            f"kind {kind!r} of {dict(data)!r:.80} is not allowed: a saved policy is of the kind "
            f"{' or '.join(map(repr, kinds))}, or the dict of a Certificate"
        )
    try:
        return kinds[kind].from_dict(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"{dict(data)!r:.80} is not a whole {kind}: {error}") from error


def check_actions(on_unknown: Any, below: Any) -> None:
    """Refuse an action that cannot be taken in its place."""
    for name, value, known in (("on_unknown", on_unknown, ON_UNKNOWN), ("below", below, BELOW)):
        if not isinstance(value, str) or value not in known:
            raise BadRequest(f"{name}={value!r} is not allowed: it is one of {', '.join(known)}")


def unpacked(data: Mapping[str, Any], kind: str, version: int) -> dict[str, Any]:
    """The fields of a saved policy of this kind and version."""
    values = dict(data)
    found = values.pop("kind", None), values.pop("version", None)
    if found != (kind, version):
        raise CalibrationError(
            f"kind {found[0]!r}, version {found[1]!r}; this reads {kind!r}, version {version}"
        )
    return values


def _threshold(value: Any) -> float:
    if is_number(value) and 0 <= value <= 1:
        return float(value)
    raise BadRequest(
        f"the threshold {value!r:.80} is not allowed: a policy is a number from 0 to 1, "
        "a certificate, an object with a method decide(record), or what to_dict of one wrote"
    )


def apart(left: float, right: float) -> tuple[str, str]:
    """Both numbers with two decimals, or as many as it takes that they compare as they do.

    >>> apart(0.831, 0.7), apart(0.6999, 0.7), apart(0.7, 0.7)
    (('0.83', '0.70'), ('0.6999', '0.7000'), ('0.70', '0.70'))
    """
    for digits in range(2, 18):
        a, b = f"{left:.{digits}f}", f"{right:.{digits}f}"
        if (float(a) == float(b)) == (left == right):
            return a, b
    return repr(left), repr(right)
