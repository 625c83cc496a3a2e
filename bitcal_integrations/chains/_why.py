"""Why a chain ends with its latest step, in words: the bound that was passed, or the policy's own.

It reads a Trail whose verdict has been given; it judges nothing.
"""

from __future__ import annotations

from bitcal_integrations.chains.records import known
from bitcal_integrations.chains.trail import Trail


def why_settled(trail: Trail) -> str:
    """Why the latest step is certain enough."""
    latest = trail.records[-1]
    if latest.decision is not None and latest.decision.action == "accept":
        return latest.decision.reason
    return f"the confidence {known(latest)} is at least stop_above={trail.stop_above}"


def why_hopeless(trail: Trail, name: str = "stop_below") -> str:
    """Why the chain is given up with the latest step; `name` is what its lower bound is called."""
    latest, bound = trail.records[-1], trail.stop_below
    value = known(latest)
    if value is not None and bound is not None and value < bound:
        return f"the confidence {value} is below {name}={bound}"
    return latest.decision.reason if latest.decision else f"its confidence is {value}"
