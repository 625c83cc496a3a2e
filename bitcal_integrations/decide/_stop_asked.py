"""What a request may ask for as its early stop, as objects: a plan, a certificate, or a name.

It knows no model: which certificate a name stands for is said by a model's profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from bitcal_integrations.decide._stop_certificate import StopCertificate
from bitcal_integrations.decide._stop_plan import StopPlan
from bitcal_integrations.decide.logged import Checkpoint
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.types import Confidence

Asked: TypeAlias = "None | str | StopPlan | StopCertificate"


def as_asked(value: Any) -> Asked:
    """A plan or certificate, also from its `to_dict`; names and None stay as they are.

    >>> as_asked(StopPlan(spacing=16).to_dict()).spacing
    16
    """
    if isinstance(value, Mapping):
        try:
            value = (StopCertificate if "plan" in value else StopPlan).from_dict(value)
        except (CalibrationError, KeyError, TypeError) as err:
            raise BadRequest(f"early_stop={value!r:.100} is not allowed: {err}") from err
    if isinstance(value, StopCertificate) and value.unit != "generation":
        raise BadRequest(
            "early_stop got a certificate of whole chains, which ends no generation",
            "Give it as the policy of a chain.",
        )
    if value is not None and not isinstance(value, str | StopPlan | StopCertificate):
        raise BadRequest(f"early_stop={value!r:.100} is no StopPlan and no StopCertificate")
    return value


def plan_of(asked: Asked) -> StopPlan | None:
    """The plan that a decode loop is to follow; None where there is none.

    A name has no plan: whoever knows the profile has not found one for it.
    """
    if isinstance(asked, StopCertificate):
        return asked.plan
    return asked if isinstance(asked, StopPlan) else None


def settled_confidence(asked: Asked, seen: Sequence[Checkpoint], bare: Confidence) -> Confidence:
    """The confidence of an answer that ended its text early, from its certificate alone.

    What was measured on whole answers does not speak for it.
    """
    if not isinstance(asked, StopCertificate):
        return replace(bare, reason="settled early by a plan without a certificate")
    value = asked.probability(seen)
    rule = asked.plan.settled if asked.plan else None
    if value is None or asked.calibrator is None or rule is None:
        return replace(
            bare, reason="settled early: too few such answers were labelled to know how many hold"
        )
    low, high = (float(v) for v in asked.calibrator.interval([[rule.value(seen)]])[0])
    teacher = asked.label_source.partition("teacher: ")[2]
    return replace(
        bare, value=value, calibrated=True, low=low, high=high,
        interval=asked.calibrator.interval_kind,
        reason=f"the probability that it agrees with {teacher}" if teacher else "",
    )  # fmt: skip
