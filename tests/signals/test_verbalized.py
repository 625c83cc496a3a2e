"""The stated number is read as an expectation over what could have been stated."""

from __future__ import annotations

import math

import pytest
from signal_help import said, seen, spoken

from bitcal_integrations.signals import verbalized
from bitcal_integrations.types import make_request


def value(*tokens: dict[str, float]) -> float:
    return verbalized.measure(seen(passes={"verbalized": (spoken(*tokens),)}))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        # One token holds the number: a plain mean over the numbers, here of mass .9.
        ([{"85": 0.5, "90": 0.3, "9": 0.1, "I": 0.1}], (0.5 * 85 + 0.3 * 90 + 0.1 * 9) / 0.9),
        ([{"100": 0.5, "101": 0.25, "0": 0.25}], (0.5 * 100) / 0.75),
        # Digit by digit. After 8: 5 -> 85, 0 -> 80, the end -> 8; 9 stands for 90 to 99, and 1,
        # which could be 10 or 100, is left out like the word.
        (
            [{"8": 0.6, "9": 0.3, "1": 0.05, "I": 0.05}, {"5": 0.7, "0": 0.2, "": 0.1}],
            (0.6 * (0.7 * 85 + 0.2 * 80 + 0.1 * 8) + 0.3 * 94.5) / 0.9,
        ),
        # 100: the ends of the shorter numbers on its way are known.
        (
            [
                {"1": 0.7, "9": 0.2, "8": 0.1},
                {"0": 0.9, "5": 0.1},
                {"0": 0.95, "%": 0.05},
                {"": 1.0},
            ],
            0.7 * (0.9 * (0.95 * 100 + 0.05 * 10) + 0.1 * 15) + 0.2 * 94.5 + 0.1 * 84.5,
        ),
        # A space of its own comes first; what follows the number does not matter.
        ([{" ": 1.0}, {"70": 1.0}, {"%": 0.9, "0": 0.1}], (0.9 * 70) / 0.9),
        ([{"0": 0.5, "2": 0.5}, {"": 1.0}], 1.0),
    ],
)
def test_by_hand(tokens: list[dict[str, float]], expected: float) -> None:
    assert value(*tokens) == pytest.approx(expected / 100)


def test_unknown_without_a_number() -> None:
    assert math.isnan(value({"Very": 0.6, "90": 0.4}, {"sure": 1.0}))
    assert math.isnan(value({"999": 1.0}))
    assert math.isnan(value({"²": 1.0}))
    assert math.isnan(value())
    assert math.isnan(verbalized.measure(seen()))


def test_what_is_asked() -> None:
    (asked,) = verbalized.requests(make_request("2 + 2?"), said("#### 4", "4"))
    assert asked.prompt[-1]["content"].startswith("Proposed answer: 4\nHow likely")
    assert (asked.max_new_tokens, asked.top_logprobs) == (4, 100)
