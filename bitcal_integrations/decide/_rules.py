"""The rules of a router: where on its deferral curve to cut, and why.

Each returns the fields of a RouterPolicy. Nothing here claims more accuracy than the better of
the two models, unless two standard errors say so: the best point of a noisy curve looks better
than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bitcal_integrations.decide._check import as_share, is_number
from bitcal_integrations.decide._curve import Point
from bitcal_integrations.decide._regret import certified
from bitcal_integrations.decide._router_policy import ALWAYS, RegretCertificate
from bitcal_integrations.errors import BadRequest, CalibrationError

if TYPE_CHECKING:
    from bitcal_integrations.decide.route import Router

Found: TypeAlias = "dict[str, Any]"
TOLERANCE = 0.0025  # "matches" means: within a quarter of a point, one standard error included


def apply(router: Router, rule: str, value: Any, delta: float) -> Found:
    """The fields of the policy that a rule leads to."""
    if rule == "match_big":
        if value is not True:
            raise BadRequest(f"match_big={value!r} is not allowed: it is True or left out")
        return _match_big(router)
    if rule == "max_regret":
        return _max_regret(router, as_share(rule, value), as_share("delta", delta))
    if not is_number(value) or value < 0 or (rule == "max_escalation" and value > 1):
        allowed = "a share from 0 to 1" if rule == "max_escalation" else "a cost from 0 up"
        raise BadRequest(f"{rule}={value!r} is not allowed: it is {allowed}")
    if rule == "max_escalation":
        return _spend(router, float(value), f"at most {value:.4g} escalated")
    return _max_cost(router, float(value))


def _match_big(router: Router) -> Found:
    for point in router.curve:
        if point.regret + point.se <= TOLERANCE:
            return _cheaper(router, point, "matches the big model")
    return _always(router, "only the big model alone is sure to match itself")


def _max_cost(router: Router, budget: float) -> Found:
    if budget < min(router.cost_small, router.cost_big):
        raise BadRequest(
            f"max_cost={budget!r} pays neither model: they cost {router.cost_small:g} "
            f"and {router.cost_big:g}"
        )
    left = budget - router.cost_small
    rate = min(1.0, left / router.cost_big) if router.cost_big else 1.0
    found = _spend(router, max(0.0, rate), f"at most {budget:.4g} per query")
    if budget < router.cost_small:
        return _always(router, f"max_cost={budget:.4g} does not pay the small model")
    # The budget pays the big model for everything: it need not be shared with the small one.
    if budget >= router.cost_big and _loss(router, found["threshold"]) > 0:
        return _always(router, f"{budget:.4g} per query pays the big model alone, which is better")
    return found


def _loss(router: Router, threshold: float | None) -> float:
    """The regret that one standard error cannot exclude, at a threshold of the curve."""
    point = _point_at(router, threshold)
    return point.regret + point.se


def _spend(router: Router, rate: float, why: str) -> Found:
    """Escalate the highest gains above 0 up to a rate, if that is estimated to help at all."""
    points = [p for p in router.curve if p.rate <= rate + 1e-9]
    positive = [p for p in points if p.threshold is None or p.threshold > 0]
    point, none = positive[-1], router.curve[0]
    if point.threshold is None or point.regret >= none.regret:
        return _never(router, "escalating is not estimated to gain anything")
    return _at(router, point, why)


def _max_regret(router: Router, limit: float, delta: float) -> Found:
    """From all to none, by thresholds fixed before the held-out rows; the first failure ends it."""
    gains, diff = np.array(router.held_gain), np.array(router.held_diff)
    if not gains.size:
        raise CalibrationError(
            "max_regret needs rows that the router has not seen",
            "Fit it with held_out above 0.",
        )
    last: tuple[float | None] | None = None
    for threshold in router.path:
        kept = np.ones(gains.size, dtype=bool) if threshold is None else gains < threshold
        if not certified(kept * diff, limit, delta):
            break
        last = (threshold,)
    if last is None:
        return _always(router, f"{gains.size} held-out rows cannot certify a regret of {limit:g}")
    found = _cheaper(router, _point_at(router, last[0]), f"loses at most {limit:g}")
    return {**found, "certificate": RegretCertificate(limit, delta, int(gains.size))}


def _point_at(router: Router, threshold: float | None) -> Point:
    """The first point of the curve with this threshold."""
    return next(p for p in router.curve if p.threshold == threshold)


def _cheaper(router: Router, point: Point, why: str) -> Found:
    """This point, or the big model alone where the cascade would cost as much."""
    if _cost(router, point) >= router.cost_big and point.threshold is not None:
        return _always(router, "the cascade would cost as much as the big model alone")
    return _never(router, why) if point.threshold is None else _at(router, point, why)


def _cost(router: Router, point: Point) -> float:
    return router.cost_small + point.escalation * router.cost_big


def _at(router: Router, point: Point, why: str) -> Found:
    better = max(router.small_accuracy, router.big_accuracy)
    accuracy = router.big_accuracy - point.regret
    if accuracy - 2 * point.se <= better:
        accuracy = min(accuracy, better)
    return _found(router, point.threshold, why, point.escalation, accuracy, _cost(router, point))


def _never(router: Router, why: str) -> Found:
    return _found(router, None, why, 0.0, router.small_accuracy, router.cost_small)


def _always(router: Router, why: str) -> Found:
    why = f"{why}; ask the big model directly"
    return _found(router, ALWAYS, why, 1.0, router.big_accuracy, router.cost_big)


def _found(
    router: Router,
    threshold: float | None,
    why: str,
    escalation: float,
    accuracy: float,
    cost: float,
) -> Found:
    return {
        "threshold": threshold,
        "why": why,
        "escalation": escalation,
        "accuracy": accuracy,
        "cost": cost,
        "small_accuracy": router.small_accuracy,
        "big_accuracy": router.big_accuracy,
    }
