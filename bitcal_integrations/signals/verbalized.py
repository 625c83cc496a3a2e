"""The confidence that the model states from 0 to 100 when asked, as an expectation, in [0, 1].

Not the stated number but the mean over the numbers it could have stated: at each token of the
number every alternative that is a number counts with its probability (arXiv 2305.14975 asks for
the number; the expectation keeps what the other digits say). What follows an alternative was not
computed: a first digit other than the stated one stands for the middle of its ten, and a 1 in the
place of a larger digit is left out, because it could begin 100 as well as 10. Without a number
there is no value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitcal_integrations.signals._ask import follow_up, word, words_of
from bitcal_integrations.signals._same import answer_of
from bitcal_integrations.types import Generation, Observation, Request, Step

NEEDS = "extra_pass"
COST = 1
TOKENS = 4  # "100", digit by digit, and a space before it

_QUESTION = (
    "Proposed answer: {}\nHow likely is it that the proposed answer is right? "
    "Reply with one whole number from 0 to 100, and nothing else."
)


def requests(request: Request, generation: Generation) -> tuple[Request, ...]:
    question = _QUESTION.format(answer_of(generation))
    return (follow_up(request, generation, question, "Reply:", TOKENS),)


def measure(observation: Observation) -> float:
    passes = observation.passes.get("verbalized", ())
    steps = passes[0].steps if passes else ()
    while steps and not word(steps[0].text):  # a space of its own before the number
        steps = steps[1:]
    return _expect(steps, "", _stated(steps)) / 100


def _stated(steps: Sequence[Step]) -> str:
    """The digits of the number as it was generated."""
    digits = ""
    for step in steps:
        if not _is_number(word(step.text)):
            break
        digits += word(step.text)
    return digits


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _expect(steps: Sequence[Step], before: str, stated: str) -> float:
    """The mean of the number that begins with `before` and goes on at the first of `steps`."""
    if not stated or len(before) >= 3 or not steps:
        return float(before) if before else math.nan
    mass = total = 0.0
    chosen = word(steps[0].text)
    for text, p in words_of(steps[0]):
        if _is_number(text) and text == chosen:
            value = _expect(steps[1:], before + text, stated)
        elif _is_number(text):
            value = _other(before + text, stated, grouped=len(chosen) > 1)
        else:
            value = float(before) if before else math.nan
        if value <= 100:  # NaN is not
            mass, total = mass + p, total + p * value
    return total / mass if mass else math.nan


def _other(digits: str, stated: str, grouped: bool) -> float:
    """The value of a number that begins with these digits, where another one was stated.

    `grouped`: one token holds several digits, so that these are the whole number.
    """
    if grouped or len(digits) >= min(len(stated), 2) or digits == "0":
        return float(digits)
    return math.nan if digits == "1" else float(digits) * 10 + 4.5
