"""The free signals by hand: tokens of probability 1/2, 1/4, 1/8 and 1/2, the middle the span."""

from __future__ import annotations

import math

import numpy as np
import pytest
from signal_help import seen

from bitcal_integrations.registry import resolve
from bitcal_integrations.signals.lowest_window import WINDOW

P = (1 / 2, 1 / 4, 1 / 8, 1 / 2)
ENTROPY, MARGIN = (1.0, 0.5, 0.25, 0.0), (0.25, 2.0, 4.0, 1.0)
LN2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "whole", "span"),
    [
        ("sum_logprob", -7 * LN2, -5 * LN2),
        ("mean_logprob", -7 / 4 * LN2, -5 / 2 * LN2),
        ("min_logprob", -3 * LN2, -3 * LN2),
        ("lowest_window", -7 / 4 * LN2, -5 / 2 * LN2),
        ("mean_entropy", 7 / 16, 3 / 8),
        ("max_entropy", 1.0, 0.5),
        ("mean_margin", 29 / 16, 3.0),
        ("min_margin", 0.25, 2.0),
        ("first_prob", 1 / 2, 1 / 4),
        ("length", 4.0, 2.0),
    ],
)
def test_by_hand(name: str, whole: float, span: float) -> None:
    measure = resolve("signals", name).measure
    assert measure(seen(P, entropy=ENTROPY, margin=MARGIN)) == pytest.approx(whole)
    assert measure(seen(P, (1, 3), entropy=ENTROPY, margin=MARGIN)) == pytest.approx(span)


def test_the_lowest_window_is_the_worst_stretch_of_sixteen_tokens() -> None:
    """Sixteen tokens of 1/4 in a row among tokens of 1/2: one window holds just them."""
    p = [1 / 2] * 10 + [1 / 4] * WINDOW + [1 / 2] * 20
    measure = resolve("signals", "lowest_window").measure
    assert measure(seen(p)) == pytest.approx(-2 * LN2)
    p[12] = 1 / 2
    assert measure(seen(p)) == pytest.approx(-2 * LN2 * 15 / 16 - LN2 / 16)


def test_the_lowest_window_equals_a_loop_over_windows() -> None:
    p = np.random.default_rng(3).random(100)
    means = [np.log(p[i : i + WINDOW]).mean() for i in range(100 - WINDOW + 1)]
    assert resolve("signals", "lowest_window").measure(seen(p)) == pytest.approx(min(means))
