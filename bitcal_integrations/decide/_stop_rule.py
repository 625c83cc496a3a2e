"""StopRule: where a run may end early, and by what score, as a function of its checkpoints so far.

A live run and the replay of a logged one are decided by this same code. It knows numbers and
answers, no model and no labels. What is not known never stops a run: a score that is absent or not
finite passes no threshold.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from bitcal_integrations.calibrators._check import refuse_part
from bitcal_integrations.decide._check import is_number
from bitcal_integrations.decide.logged import Checkpoint
from bitcal_integrations.errors import BadRequest

Level: TypeAlias = Literal["settled", "hopeless"]
Seen: TypeAlias = Sequence[Checkpoint]

LEVELS = ("settled", "hopeless")
AGREEMENT = "trial_agreement"
LOGIT = "logit:"  # before the name of a score in [0, 1]: its log-odds
EDGE = 1e-6  # a probability closer to 0 or 1 counts as this close
CLAMP = 8.0  # standard deviations beyond which a score says no more to a learned one
ORDINALS = {2: "2nd", 3: "3rd"}


def needs_trial(name: str, weights: Mapping[str, Any] | None = None) -> bool:
    """Whether a score is one of a trial answer, or learned with one among its terms.

    >>> needs_trial("trial_probability"), needs_trial("logprob")
    (True, False)
    """
    if weights and name in weights:
        return any(needs_trial(term) for term in weights[name]["terms"])
    return name.removeprefix(LOGIT).startswith("trial_")


def log_odds(p: float) -> float:
    """Of a probability, kept within reach."""
    p = min(max(p, EDGE), 1 - EDGE)
    return math.log(p) - math.log1p(-p)


@dataclass(frozen=True)
class StopRule:
    """One reason to end a run: a score that has crossed a threshold `patience` times in a row.

    It looks at each `every`-th checkpoint from `after` tokens on. "settled" holds where the score
    is at least the threshold and there is a trial answer to end with; "hopeless" where the score is
    at most the threshold. `gate` (a free score, its bound) spares trial answers: none is asked for
    where that score is lower. `weights` defines learned scores by name: log-odds, the sum of `bias`
    and of weight * (score - mean) / scale over `terms`, which are {name: [mean, scale, weight]}.
    "logit:NAME" is the log-odds of a score in [0, 1].

    >>> rule = StopRule("settled", "trial_probability", 0.9, gate=("logprob", -0.5))
    >>> rule.wants_trial([Checkpoint(20, {"logprob": -0.2})])
    True
    >>> rule.holds([Checkpoint(20, {"logprob": -0.2})])
    False
    """

    level: Level
    score: str
    threshold: float
    patience: int = 1
    every: int = 1
    after: int = 0
    gate: tuple[str, float] | None = None
    weights: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise BadRequest(f"level={self.level!r} is not one of {', '.join(LEVELS)}")
        if not isinstance(self.score, str) or not self.score:
            raise BadRequest(f"score={self.score!r} is not allowed: it is the name of a score")
        if not is_number(self.threshold) or not math.isfinite(self.threshold):
            raise BadRequest(f"threshold={self.threshold!r} is not allowed: it must be a number")
        for name, least in (("patience", 1), ("every", 1), ("after", 0)):
            check_whole(name, getattr(self, name), least)
        if self.weights is not None:
            object.__setattr__(self, "weights", checked_weights(self.weights))
        if self.gate is not None:
            object.__setattr__(self, "gate", _checked_gate(self.gate, self.weights))
        if self.score.startswith("learned") and self.score not in (self.weights or {}):
            raise BadRequest(f"score={self.score!r} needs weights={{{self.score!r}: ...}}")

    @property
    def needs_trial(self) -> bool:
        """Whether its score is read off a trial answer."""
        return needs_trial(self.score, self.weights)

    def wants_trial(self, seen: Seen) -> bool:
        """Whether it asks for a trial answer at the last checkpoint, before there is one.

        A score of a trial answer needs it wherever the rule looks; any other score only where it
        would settle the run, which ends with that answer.
        """
        if not self._looks(seen, len(seen) - 1):
            return False
        return self.needs_trial or (self.level == "settled" and self._passes_in_a_row(seen))

    def holds(self, seen: Seen) -> bool:
        """Whether the run ends at the last checkpoint."""
        if not self._looks(seen, len(seen) - 1):
            return False
        trial = seen[-1].trial
        ends = self.level == "hopeless" or (trial is not None and trial.answer is not None)
        return ends and self._passes_in_a_row(seen)

    def value(self, seen: Seen) -> float | None:
        """Its score at the last checkpoint; None where that is not known."""
        return self._value(self.score, seen, len(seen) - 1) if seen else None

    def _looks(self, seen: Seen, at: int) -> bool:
        """Whether it looks at this checkpoint, with its gate open."""
        if at < 0 or (at + 1) % self.every or seen[at].tokens < self.after:
            return False
        if self.gate is None:
            return True
        value = self._value(self.gate[0], seen, at)
        return value is not None and value >= self.gate[1]

    def _passes_in_a_row(self, seen: Seen) -> bool:
        places = [len(seen) - 1 - self.every * back for back in range(self.patience)]
        return all(self._looks(seen, at) and self._passes(seen, at) for at in places)

    def _passes(self, seen: Seen, at: int) -> bool:
        value = self._value(self.score, seen, at)
        if value is None:
            return False
        return value >= self.threshold if self.level == "settled" else value <= self.threshold

    def _value(self, name: str, seen: Seen, at: int) -> float | None:
        if self.weights and name in self.weights:
            return self._learned(self.weights[name], seen, at)
        if name.startswith(LOGIT):
            p = self._value(name.removeprefix(LOGIT), seen, at)
            return None if p is None else log_odds(p)
        value = self._agreement(seen, at) if name == AGREEMENT else seen[at].score(name)
        return None if value is None or not math.isfinite(value) else float(value)

    def _learned(self, fit: Mapping[str, Any], seen: Seen, at: int) -> float | None:
        total = fit["bias"]
        for name, (mean, scale, weight) in fit["terms"].items():
            value = self._value(name, seen, at)
            if value is None:
                return None
            total += weight * min(max((value - mean) / scale, -CLAMP), CLAMP)
        return float(total)

    def _agreement(self, seen: Seen, at: int) -> float | None:
        """How many of its last trials in a row gave the answer of this one."""
        trial = seen[at].trial
        if trial is None or trial.answer is None:
            return None
        alike = 0
        for back in range(at, -1, -self.every):
            if not self._looks(seen, back):
                continue
            other = seen[back].trial
            if other is None or other.answer != trial.answer:
                break
            alike += 1
        return float(alike)

    def __str__(self) -> str:
        """In words.

        >>> str(StopRule("settled", "trial_margin", 2.5, patience=2, every=4, after=16))
        'trial_margin >= 2.5 at 2 checkpoints in a row, looking at each 4th from 16 tokens on'
        """
        sign = ">=" if self.level == "settled" else "<="
        row = f" at {self.patience} checkpoints in a row" if self.patience > 1 else ""
        looks = [f"each {ORDINALS.get(self.every, f'{self.every}th')}"] if self.every > 1 else []
        looks += [f"from {self.after} tokens on"] if self.after else []
        looking = f", looking {'at ' if self.every > 1 else ''}{' '.join(looks)}" if looks else ""
        gated = f", where {self.gate[0]} >= {self.gate[1]:.4g}" if self.gate else ""
        return f"{self.score} {sign} {self.threshold:.4g}{row}{looking}{gated}"

    def to_dict(self) -> dict[str, Any]:
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "gate": list(self.gate) if self.gate else None,
            "weights": plain(self.weights),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StopRule:
        values = dict(data)
        refuse_part(values, ("level", "score", "threshold"), "stop rule")
        if isinstance(values.get("gate"), list):
            values["gate"] = tuple(values["gate"])
        return cls(**values)


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadRequest(f"{name}={value!r} is not allowed: a whole number from {least} up")


def checked_weights(weights: Any) -> dict[str, dict[str, Any]]:
    """The weights of learned scores as plain numbers."""
    try:
        return {str(name): _checked_fit(fit) for name, fit in weights.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadRequest(
            f"weights={weights!r:.80} is not allowed ({error}): it must be "
            "{name: {'bias': number, 'terms': {score: [mean, scale above 0, weight]}}}"
        ) from error


def _checked_fit(fit: Any) -> dict[str, Any]:
    terms = {str(name): tuple(map(_finite, term)) for name, term in fit["terms"].items()}
    for name, term in terms.items():
        if len(term) != 3 or term[1] <= 0:
            raise ValueError(f"{name}: {list(term)}")
    return {"bias": _finite(fit["bias"]), "terms": terms}


def _finite(value: Any) -> float:
    if not is_number(value) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a finite number")
    return float(value)


def _checked_gate(gate: Any, weights: Mapping[str, Any] | None) -> tuple[str, float]:
    whole = isinstance(gate, tuple) and len(gate) == 2 and isinstance(gate[0], str)
    if not whole or not is_number(gate[1]) or not math.isfinite(gate[1]):
        raise BadRequest(f"gate={gate!r} is not allowed: (name of a free score, lowest value)")
    if needs_trial(gate[0], weights):
        raise BadRequest(f"gate={gate!r} needs the trial answer that it should spare")
    if gate[0].startswith("learned") and gate[0] not in (weights or {}):
        raise BadRequest(f"gate={gate!r} needs weights={{{gate[0]!r}: ...}}")
    return gate[0], float(gate[1])


def plain(value: Any) -> Any:
    """Mappings and tuples as dicts and lists, for JSON."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
