"""Canaries: prompts whose answers are known, to tell whether a model still behaves as measured.

Knows prompts, answers and raw scores; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bitcal_integrations.types import Prompt, Record, make_prompt

CANARIES = 64
# Above the first of each pair the model is the same, beyond the second nothing measured holds.
SAME_AGREEMENT, VOID_AGREEMENT = 0.95, 0.80
SAME_DIFFERENCE, VOID_DIFFERENCE = 0.02, 0.10


@dataclass(frozen=True)
class Canary:
    """A prompt with the answer and raw score that it got when the profile was measured."""

    prompt: Prompt
    task: str
    max_new_tokens: int
    answer: str
    raw: float

    def to_dict(self) -> dict[str, Any]:
        prompt = self.prompt if isinstance(self.prompt, str) else [dict(m) for m in self.prompt]
        return {**self.__dict__, "prompt": prompt}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Canary:
        return cls(**{**data, "prompt": make_prompt(data["prompt"])})


@dataclass(frozen=True)
class Check:
    """What replayed canaries say: `agreement` is the share of equal answers, `difference` the
    mean distance of the raw scores (NaN without any), `unscored` how many answers came without
    one; `fingerprint` names a part that differs, or is empty."""

    state: Literal["same", "shifted", "void"]
    agreement: float
    difference: float
    n: int
    fingerprint: str = ""
    unscored: int = 0

    def __str__(self) -> str:
        found = (
            f"{self.state}: {self.agreement:.0%} of {self.n} canary answers are equal, "
            f"raw scores differ by {self.difference:.3f} on average"
        )
        if self.unscored:
            found += f" ({self.unscored} have none now)"
        return f"{found}; {self.fingerprint}" if self.fingerprint else found


def answer_of(record: Record) -> str:
    """The parsed answer, or all of the text where there is none."""
    answer = record.generation.answer
    return answer.text if answer else record.generation.text.strip()


def judge(
    agreement: float, difference: float, n: int, fingerprint: str, unscored: int = 0
) -> Check:
    """An answer that lost its score weighs as much as one that is another."""
    state: Literal["same", "shifted", "void"] = "void"
    alike = min(agreement, 1 - unscored / n)
    if alike >= SAME_AGREEMENT and difference <= SAME_DIFFERENCE:
        state = "same"
    elif alike >= VOID_AGREEMENT and difference <= VOID_DIFFERENCE:
        state = "shifted"
    return Check(state, agreement, difference, n, fingerprint, unscored)


def by_options(canaries: Sequence[Canary]) -> list[list[int]]:
    """Indices of the canaries that are asked with the same options."""
    groups: dict[tuple[str, int], list[int]] = {}
    for index, canary in enumerate(canaries):
        groups.setdefault((canary.task, canary.max_new_tokens), []).append(index)
    return list(groups.values())
