"""P(True): the model's own verdict on its answer, asked in one more turn, in [0, 1].

One verdict token is read: the probability of all its variants of "True" over that of "True" and
"False" (Kadavath et al., arXiv 2207.05221, normalised). A tokenizer that has neither as one token
is read by their first letters. A word that is not among the 100 best counts as the last of them,
the most it can be; with neither there is no value. Untrained models of 7B rank answers hardly
better than chance with it, so it is for models whose calibration set says otherwise.
"""

from __future__ import annotations

import math

from bitcal_integrations.signals._ask import follow_up, words_of
from bitcal_integrations.signals._same import answer_of
from bitcal_integrations.types import Generation, Observation, Request

NEEDS = "extra_pass"
COST = 1


def requests(request: Request, generation: Generation) -> tuple[Request, ...]:
    question = (
        f"Proposed answer: {answer_of(generation)}\n"
        "Is the proposed answer right? Reply with one word, True or False."
    )
    return (follow_up(request, generation, question, "Reply:", tokens=1),)


def measure(observation: Observation) -> float:
    passes = observation.passes.get("p_true", ())
    if not passes or not passes[0].steps:
        return math.nan
    words = words_of(passes[0].steps[0])
    return share(words, ("true",), ("false",)) if _any(words) else share(words, *_BEGINNINGS)


_BEGINNINGS = tuple(tuple(w[:n] for n in range(1, len(w))) for w in ("true", "false"))


def _any(words: list[tuple[str, float]]) -> bool:
    return any(word in ("true", "false") for word, _ in words)


def share(words: list[tuple[str, float]], true: tuple[str, ...], false: tuple[str, ...]) -> float:
    """What words of `true` have of all that these and words of `false` have; NaN without any."""
    found = [[p for word, p in words if word in variants] for variants in (true, false)]
    if not any(found):
        return math.nan
    least = min(p for _, p in words)
    yes, no = (sum(ps) if ps else least for ps in found)
    return yes / (yes + no)
