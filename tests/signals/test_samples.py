"""Agreement counts the samples with the same answer; CoCoA multiplies it with the probability."""

from __future__ import annotations

import math

import pytest
from signal_help import said, seen

from bitcal_integrations.signals import agreement, cocoa


@pytest.mark.parametrize(
    ("given", "others", "share"),
    [
        ("72", ["72", "72.0", "71", "$72"], 3 / 4),
        ("-7", ["7", "-7"], 1 / 2),
        ("3.5", ["35", "3"], 0.0),
        ("The Nile", ["nile.", "Amazon"], 1 / 2),
        ("A", ["a", "B", "the"], 1 / 3),
        ("1,200", ["1200", "12 of 100"], 1 / 2),
    ],
)
def test_agreement(given: str, others: list[str], share: float) -> None:
    samples = [said(f"so {text}", text) for text in others]
    observation = seen(answer=given, samples=samples)
    assert agreement.measure(observation) == pytest.approx(share)


def test_without_a_parser_whole_texts_are_compared() -> None:
    observation = seen(text=" Paris.\n", samples=[said("paris"), said("It is Paris")])
    assert agreement.measure(observation) == 0.5


def test_a_sample_without_an_answer_agrees_with_nothing() -> None:
    samples = [said("so 72", "72"), said("I wonder 72 times"), said("")]
    assert agreement.measure(seen(answer="72", samples=samples)) == pytest.approx(1 / 3)


def test_cocoa() -> None:
    """P(answer) = 1/4 x 1/8 over the span; two of four samples agree."""
    samples = [said(x, x) for x in ("5", "5", "6", "7")]
    observation = seen((1 / 2, 1 / 4, 1 / 8), (1, 3), answer="5", samples=samples)
    assert cocoa.measure(observation) == pytest.approx(1 / 64)


@pytest.mark.parametrize("signal", [agreement, cocoa])
def test_unknown_without_samples_or_without_an_answer(signal: object) -> None:
    assert math.isnan(signal.measure(seen(answer="5")))
    assert math.isnan(signal.measure(seen(text=" ", samples=[said("")])))


def test_cocoa_of_no_tokens_is_unknown() -> None:
    assert math.isnan(cocoa.measure(seen((), answer="5", samples=[said("5", "5")])))
