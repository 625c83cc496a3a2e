"""What an answer is, and when two answers are the same: as numbers, else in their words."""

from __future__ import annotations

from bitcal_integrations.grading import as_number, normalise
from bitcal_integrations.types import Generation, Observation


def answer_of(found: Observation | Generation) -> str:
    """The parsed answer, or all of the text where there is none."""
    if found.answer is None:
        return found.text.strip()
    return found.answer if isinstance(found.answer, str) else found.answer.text


def same(one: str, other: str) -> bool:
    """Equal as numbers where both are numbers, else after normalising.

    >>> same("1,200", "1200.0"), same("-7", "7"), same("The Nile.", "nile"), same("A", "the")
    (True, False, True, False)
    """
    a, b = as_number(one), as_number(other)
    if a is not None and b is not None:
        return a == b
    words = normalise(one), normalise(other)
    if not all(words):  # nothing is left of an article or a sign: "A" is a letter here
        words = one.strip(" .").casefold(), other.strip(" .").casefold()
    return words[0] == words[1]


def share(observation: Observation, others: tuple[Generation, ...]) -> float:
    """The share of other answers that are the same as the given one; NaN without a given one."""
    given = answer_of(observation)
    if not given or not others:
        return float("nan")
    return sum(same(given, answer_of(other)) for other in others) / len(others)
