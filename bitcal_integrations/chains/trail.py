"""Confidence over the steps of a chain, and whether the chain may end early.

It folds the steps' confidences into one number and judges the latest step. A product assumes that
steps fail independently and that all must be right; it claims nothing beyond its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from bitcal_integrations.chains.records import judged, known
from bitcal_integrations.decide import Policy, as_policy
from bitcal_integrations.decide._check import is_number
from bitcal_integrations.decide._stop_policy import StopPolicy
from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.types import Record

Verdict: TypeAlias = Literal["go_on", "settled", "hopeless"]

_FOLDS: dict[str, Callable[[Sequence[float]], float]] = {
    "minimum": min,
    "product": math.prod,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
}
AGGREGATES = tuple(_FOLDS)


class Trail:
    """The records of a chain's steps, in order.

    `stop_above` settles the chain where the latest step's confidence is at least that, or where
    `policy` accepts it; below `stop_below` the chain is hopeless. A StopCertificate as the policy
    judges all steps so far. Unknown confidence settles nothing by a threshold, and is never
    hopeless.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> toy = ToyModel({"a": ("1", 0.5), "b": ("2", 0.9)})
    >>> trail = Trail("product", stop_above=0.8, stop_below=0.2)
    >>> for prompt in "ab":
    ...     trail.add(toy.ask(prompt), prompt)
    ...     print(trail.verdict())
    go_on
    settled
    >>> trail.value, trail.tokens
    (0.45, 2)
    """

    def __init__(
        self,
        aggregate: str = "minimum",
        stop_above: float | None = None,
        stop_below: float | None = None,
        policy: Any = None,
    ) -> None:
        if not isinstance(aggregate, str) or aggregate not in _FOLDS:
            raise UnknownName(f"aggregate={aggregate!r} is not one of {', '.join(AGGREGATES)}")
        self.aggregate = aggregate
        self.stop_above, self.stop_below = check_bounds(stop_above, stop_below)
        self.policy: Policy | None = None if policy is None else as_policy(policy)
        self._steps: list[tuple[str, Record]] = []

    def add(self, record: Record, name: str = "") -> None:
        """Take the record of a further step; where there is a policy, with its decision."""
        if isinstance(self.policy, StopPolicy):
            decision = self.policy.decide_chain([*self.records, record])
            record = replace(record, decision=decision)
        elif self.policy is not None:
            record = judged(self.policy, record)
        self._steps.append((name, record))

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of the steps so far."""
        return tuple(record for _, record in self._steps)

    @property
    def value(self) -> float | None:
        """The confidence of the chain; None while there is no step, or a step is unknown.

        For "last" only the last step counts.
        """
        counted = self.records[-1:] if self.aggregate == "last" else self.records
        values = [known(record) for record in counted]
        numbers = [value for value in values if value is not None]
        return _FOLDS[self.aggregate](numbers) if numbers and len(numbers) == len(values) else None

    @property
    def tokens(self) -> int:
        """The tokens of all steps' texts."""
        return sum(record.generation.n_tokens for record in self.records)

    def verdict(self) -> Verdict:
        """Whether the chain may end with its latest step, or should be given up."""
        if not self._steps:
            return "go_on"
        latest = self._steps[-1][1]
        value = known(latest)
        if self.policy is not None and latest.decision and latest.decision.action == "accept":
            return "settled"
        if value is not None and self.stop_above is not None and value >= self.stop_above:
            return "settled"
        if isinstance(self.policy, StopPolicy) and self.policy.gives_up(self.records):
            return "hopeless"
        hopeless = value is not None and self.stop_below is not None and value < self.stop_below
        return "hopeless" if hopeless else "go_on"

    def to_dict(self) -> dict[str, Any]:
        """The chain's confidence with each step's, as plain JSON."""
        steps = [
            {"name": name, "confidence": known(record), "tokens": record.generation.n_tokens}
            for name, record in self._steps
        ]
        return {"confidence": self.value, "aggregate": self.aggregate, "steps": steps}


def check_bounds(stop_above: Any, stop_below: Any) -> tuple[float | None, float | None]:
    """Both thresholds as floats or None; refused where they cannot both hold."""
    for name, value in (("stop_above", stop_above), ("stop_below", stop_below)):
        if value is not None and not (is_number(value) and 0 <= value <= 1):
            raise BadRequest(f"{name}={value!r:.80} is not allowed: a number from 0 to 1, or None")
    if stop_above is not None and stop_below is not None and stop_below > stop_above:
        raise BadRequest(f"stop_below={stop_below!r} is above stop_above={stop_above!r}")
    above = None if stop_above is None else float(stop_above)
    return above, None if stop_below is None else float(stop_below)
