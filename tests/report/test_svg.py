"""Where the primitives draw, worked out by hand from the frame's margins."""

from __future__ import annotations

import re

from bitcal_integrations.report.svg import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Frame

FRAME = Frame("x", "y", x=(0, 10), y=(0, 2), x_ticks=(0, 10), y_ticks=(0, 2), height=200)
MIDDLE = (LEFT + (WIDTH - LEFT - RIGHT) / 2, TOP + (200 - TOP - BOTTOM) / 2)


def numbers(markup: str) -> list[float]:
    return [float(n) for n in re.findall(r'[" ,](-?[\d.]+)', markup)]


def test_the_corners_and_the_middle() -> None:
    assert (FRAME.px(0), FRAME.py(0)) == (LEFT, 200 - BOTTOM)
    assert (FRAME.px(10), FRAME.py(2)) == (WIDTH - RIGHT, TOP)
    assert (FRAME.px(5), FRAME.py(1)) == MIDDLE


def test_what_lies_outside_stays_at_the_edge() -> None:
    assert (FRAME.px(-3), FRAME.py(99)) == (LEFT, TOP)


def test_steps_hold_until_the_next_point() -> None:
    at = numbers(FRAME.steps([(0, 0), (5, 1), (10, 2)], "a"))
    right, top, bottom = WIDTH - RIGHT, TOP, 200 - BOTTOM
    x, y = MIDDLE
    assert at == [LEFT, bottom, x, bottom, x, y, right, y, right, top]


def test_a_bar_hangs_from_either_end() -> None:
    up, down = FRAME.bar(0, 5, 0, 1, "a"), FRAME.bar(0, 5, 1, 0, "a")
    assert up == down
    height = (200 - TOP - BOTTOM) / 2
    width = (WIDTH - LEFT - RIGHT) / 2 - 1  # a gap to the next bar
    assert numbers(up) == [LEFT, MIDDLE[1], width, height]


def test_words_are_escaped() -> None:
    assert "<b>" not in Frame("<b>", "<b>").svg(FRAME.label(0, 0, "<b>"), '"<b>')
