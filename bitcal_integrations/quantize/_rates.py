"""At which rate norm gains are trained: a rate has to prove itself on texts that are set aside.

One that is too high for the little that is to be learned makes a good model worse, and a loss on
the training texts hardly shows it. Knows batches and losses; held-out questions are another test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.quantize._recovery import Recovery
from bitcal_integrations.quantize._targets import Lesson
from bitcal_integrations.quantize._texts import answer_logits
from bitcal_integrations.quantize.recover import Learned, learn, loss_of

LOWER = (1.0, 0.25, 0.0625)  # shares of the rate that is asked for, tried in this order
ASIDE = 8  # one batch of so many is set aside
CLEAR = 0.1  # a share of the loss: who lowers it by more is taken at once


@dataclass(frozen=True)
class Chosen:
    """What was learned at the best rate, and the loss on the texts set aside before and after.

    `learned` is None if no rate lowered it, and `how` is then as it was asked for.
    """

    learned: Learned | None
    how: Recovery
    before: float
    after: float

    @property
    def why_not(self) -> str:
        """In words, for where nothing was learned."""
        return (
            f"the loss on prompts that were set aside fell at no rate from {self.how.rate:g} down "
            f"to {self.how.rate * LOWER[-1]:.2g}"
        )


def learn_at_best(
    student: Any,
    lessons: Sequence[Lesson],
    how: Recovery,
    *,
    keep: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Chosen:
    """The gains learned at the rate of `how` or, where that does not clearly help, at a lower one.

    One batch of eight is set aside, at least one; a single batch is learned from and judged by.
    """
    if not lessons:
        raise CalibrationError("there is nothing to learn from: no prompt was answered")
    aside = lessons[-max(1, len(lessons) // ASIDE) :]
    rest = lessons[: -len(aside)] or lessons
    before = _loss(student, aside, how)
    best = Chosen(None, how, before, before)
    for share in LOWER:
        tried = replace(how, rate=how.rate * share)
        folder = None if keep is None else Path(keep).expanduser() / f"rate-{tried.rate:g}"
        learned = learn(student, rest, tried, keep=folder, progress=progress)
        after = _loss(student, aside, how, learned.gains)
        if after < best.after:
            best = Chosen(learned, tried, before, after)
        if after < (1 - CLEAR) * before:
            break
    return best


@torch.no_grad()
def _loss(
    student: Any,
    lessons: Sequence[Lesson],
    how: Recovery,
    gains: Mapping[str, torch.Tensor] | None = None,
) -> float:
    """The mean loss of a token of all answers."""
    total, n = 0.0, 0
    for batch, targets in lessons:
        logits = answer_logits(student, batch, gains)
        total += loss_of(logits, batch, targets, how).item() * len(targets.top)
        n += len(targets.top)
    return total / n
