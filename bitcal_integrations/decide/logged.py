"""A whole run with its scores at every place where it could have ended: what stop rules learn from.

It knows numbers and answers, no model. One run is one unit of a promise: a generation with its
checkpoints, or a chain with its steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bitcal_integrations.errors import CalibrationError

if TYPE_CHECKING:
    from bitcal_integrations.types import Record


@dataclass(frozen=True)
class Trial:
    """The answer that a run would have given at a checkpoint, asked for on the side.

    `scores` are of its answer's tokens. `tokens` counts what the question for it and the answer
    take: as a probe that goes on, they are spent beside the text; as the end, they are its last.
    """

    answer: str | None
    scores: Mapping[str, float]
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        return {"answer": self.answer, "scores": dict(self.scores), "tokens": self.tokens}


@dataclass(frozen=True)
class Checkpoint:
    """A place where a run may end: after `tokens` tokens, with the scores that cost nothing."""

    tokens: int
    scores: Mapping[str, float]
    trial: Trial | None = None

    def score(self, name: str) -> float | None:
        """A score by its name, of the text or of the trial answer; None where it is not there."""
        found = self.scores.get(name)
        if found is None and self.trial is not None:
            found = self.trial.scores.get(name)
        return found

    def to_dict(self) -> dict[str, Any]:
        trial = self.trial.to_dict() if self.trial else None
        return {"tokens": self.tokens, "scores": dict(self.scores), "trial": trial}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Checkpoint:
        return cls(**{**data, "trial": Trial(**data["trial"]) if data["trial"] else None})


@dataclass(frozen=True)
class LoggedRun:
    """A run that went to its own end, and what each earlier end would have given.

    `tokens` is the length of the whole run, `answer` its answer and `right` whether that is right
    (None: nobody knows). `right_at` says the same for the trial answer at each checkpoint. Runs of
    one `group` share a question, so that they count as one in a promise. `asked` says how trial
    answers were asked for (closing, spacing, answer_tokens); empty where nobody knows.
    """

    checkpoints: tuple[Checkpoint, ...]
    tokens: int
    answer: str | None
    right: bool | None = None
    right_at: tuple[bool | None, ...] = ()
    finish: str = "answer"
    id: str = ""
    group: str = ""
    by: Mapping[str, str] = field(default_factory=dict)
    unit: Literal["generation", "chain"] = "generation"
    asked: Mapping[str, Any] = field(default_factory=dict)

    def right_of(self, at: int) -> bool | None:
        """Whether the trial answer at a checkpoint is right; None where nobody knows.

        One that nobody has judged is as right as the whole run where it gave the same answer.
        """
        known = self.right_at[at] if at < len(self.right_at) else None
        trial = self.checkpoints[at].trial
        if known is not None or trial is None or trial.answer is None:
            return known
        return self.right if trial.answer == self.answer else None

    @classmethod
    def of_chain(
        cls,
        records: Sequence[Record],
        right: bool | None,
        right_at: Sequence[bool | None] | None = None,
        *,
        id: str = "",
        group: str = "",
        by: Mapping[str, str] | None = None,
    ) -> LoggedRun:
        """A whole run of a chain from the records of its steps, and whether its end was right.

        Every step is a checkpoint with the score "confidence" (not there where it is unknown) and
        the tokens so far; what it answers is what the chain would have given there. `right_at`
        says for each step whether that is right; without it, only where it is the last answer.

        >>> from bitcal_integrations.testing.toy import ToyModel
        >>> toy = ToyModel({"a": ("4", 0.9), "b": ("5", 0.7)})
        >>> run = LoggedRun.of_chain([toy.ask("a"), toy.ask("b")], right=True)
        >>> run.answer, run.tokens, run.right_of(0), run.right_of(1)
        ('5', 2, None, True)
        """
        if not records:
            raise CalibrationError(f"chain {id!r} has no record of a step")
        if right_at is not None and len(right_at) != len(records):
            raise CalibrationError(
                f"right_at of chain {id!r} has {len(right_at)} entries for {len(records)} steps"
            )
        steps = steps_of(records)
        last = steps[-1].trial
        return cls(
            steps, steps[-1].tokens, last.answer if last else None, right, tuple(right_at or ()),
            records[-1].generation.finish, id, group, by or {}, "chain",
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        checkpoints = [c.to_dict() for c in self.checkpoints]
        return {
            **out, "checkpoints": checkpoints, "right_at": list(self.right_at),
            "by": dict(self.by), "asked": dict(self.asked),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LoggedRun:
        checkpoints = tuple(Checkpoint.from_dict(c) for c in data["checkpoints"])
        return cls(**{**data, "checkpoints": checkpoints, "right_at": tuple(data["right_at"])})


def steps_of(records: Sequence[Record]) -> tuple[Checkpoint, ...]:
    """The steps of a chain as checkpoints: a step's own answer is its trial answer, and free."""
    steps, tokens = [], 0
    for record in records:
        generation, value = record.generation, record.confidence.value
        tokens += generation.n_tokens + generation.probe_tokens
        words = generation.answer.text if generation.answer else generation.text
        trial = Trial(words.strip() or None, {}, 0)
        known = {} if value is None or math.isnan(value) else {"confidence": value}
        steps.append(Checkpoint(tokens, known, trial))
    return tuple(steps)
