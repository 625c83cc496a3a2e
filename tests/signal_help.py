"""Observations and generations of plain numbers, for hand-derived cases of the signals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bitcal_integrations.types import Answer, Generation, Observation, Step


def seen(
    p: Sequence[float] = (0.5,),
    span: tuple[int, int] | None = None,
    *,
    entropy: Sequence[float] | None = None,
    margin: Sequence[float] | None = None,
    text: str = "",
    answer: str | None = None,
    samples: Sequence[Generation] = (),
    passes: Mapping[str, tuple[Generation, ...]] | None = None,
) -> Observation:
    """An answer whose tokens had these probabilities."""
    zeros = np.zeros(len(p))
    logprob = np.log(np.asarray(p, dtype=float)) if len(p) else zeros
    return Observation(
        text,
        "stop",
        logprob,
        zeros if entropy is None else np.asarray(entropy, dtype=float),
        zeros if margin is None else np.asarray(margin, dtype=float),
        zeros,
        span=span,
        answer=answer,
        samples=tuple(samples),
        passes=passes or {},
    )


def said(text: str, answer: str | None = None) -> Generation:
    """A text, and its parsed answer if it has one."""
    found = None if answer is None else Answer(answer, 0, len(text))
    return Generation(text, "stop", answer=found)


def spoken(*tokens: Mapping[str, float]) -> Generation:
    """A reply of which each token is {its text: probability, each alternative: probability}."""
    steps = []
    for chances in tokens:
        best = next(iter(chances))
        top = tuple((i, math.log(p)) for i, p in enumerate(chances.values()))
        logprob = math.log(chances[best])
        steps.append(Step(0, best, 0, 0, logprob, 0.0, 0.0, 0.0, top=top, top_text=tuple(chances)))
    return Generation("".join(s.text for s in steps), "length", tuple(steps))
