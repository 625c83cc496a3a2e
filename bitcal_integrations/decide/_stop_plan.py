"""StopPlan: what a decode loop is handed, that says at each checkpoint whether to end there.

It joins a rule for settled answers and one for hopeless runs with how the answer is asked for. It
knows checkpoints, no model and no text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bitcal_integrations.calibrators._check import refuse_part
from bitcal_integrations.decide._stop_rule import LEVELS, Seen, StopRule, check_whole, plain
from bitcal_integrations.errors import BadRequest, CalibrationError

Verdict: TypeAlias = Literal["go_on", "trial", "settled", "hopeless"]

SPACINGS = ("line", "sentence")
ASKING = ("closing", "spacing", "answer_tokens")
VERSION = 1


@dataclass(frozen=True)
class StopPlan:
    """How a generation may end early: where, how its answer is asked for, and by what rules.

    `closing` is the text that asks for the answer now; it begins a new line where the text is not
    at the beginning of one. Checkpoints lie after each line, each sentence (or line), or each k
    tokens. `answer_tokens` is the longest trial answer. `log` asks for a trial answer at every
    checkpoint and stops nowhere. `promise` tells what the certificate behind it says.

    >>> from bitcal_integrations.decide.logged import Checkpoint
    >>> plan = StopPlan(settled=StopRule("settled", "tokens", 64))
    >>> [plan.verdict([Checkpoint(n, {"tokens": n})]) for n in (60, 70)]
    ['go_on', 'trial']
    """

    settled: StopRule | None = None
    hopeless: StopRule | None = None
    closing: str = "#### "
    spacing: Literal["line", "sentence"] | int = "line"
    answer_tokens: int = 24
    log: bool = False
    promise: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in LEVELS:
            rule = getattr(self, name)
            if rule is not None and not (isinstance(rule, StopRule) and rule.level == name):
                raise BadRequest(f"{name}={rule!r:.80} is not a StopRule of that level")
        if not isinstance(self.closing, str) or not self.closing:
            raise BadRequest(f"closing={self.closing!r} must be a text that asks for the answer")
        check_spacing(self.spacing)
        check_whole("answer_tokens", self.answer_tokens, 1)

    @property
    def asking(self) -> dict[str, Any]:
        """Where and how it asks for trial answers."""
        return {name: getattr(self, name) for name in ASKING}

    @property
    def rules(self) -> tuple[StopRule, ...]:
        return tuple(rule for rule in (self.settled, self.hopeless) if rule is not None)

    def verdict(self, seen: Seen) -> Verdict:
        """What to do at the last checkpoint: ask for a trial answer there, end the run, or go on.

        After "trial" it is asked again with that trial answer in the last checkpoint. "settled"
        always has one: the run ends with its closing text and answer.
        """
        if not seen:
            return "go_on"
        rules = () if self.log else self.rules
        if seen[-1].trial is None and (self.log or any(r.wants_trial(seen) for r in rules)):
            return "trial"
        return next((rule.level for rule in rules if rule.holds(seen)), "go_on")

    def to_dict(self) -> dict[str, Any]:
        rules = {n: r.to_dict() if (r := getattr(self, n)) else None for n in LEVELS}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"version": VERSION, **fields, **rules, "promise": plain(self.promise)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StopPlan:
        values = dict(data)
        if (version := values.pop("version", None)) != VERSION:
            raise CalibrationError(f"version {version!r} of a stop plan; known is {VERSION}")
        refuse_part(values, ("closing", "spacing"), "stop plan")
        rules = {n: StopRule.from_dict(values[n]) if values.get(n) else None for n in LEVELS}
        return cls(**{**values, **rules})


def check_spacing(value: Any) -> None:
    """Refuse what names no place for checkpoints."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not whole and (not isinstance(value, str) or value not in SPACINGS):
        raise BadRequest(
            f"spacing={value!r} is not allowed: it is 'line', 'sentence' or a number of tokens"
        )
