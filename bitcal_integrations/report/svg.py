"""Drawing primitives: a frame with axes, and bars, lines, dots and whiskers inside it, as SVG text.

Colours, fonts and line widths are classes that page.css fills in, so that one drawing serves the
light and the dark page. Knows coordinates; it does not know what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 360  # pixels on a phone; a wider page scales the drawing up
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 42
TENTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

Point = tuple[float, float]


def percent(value: float) -> str:
    """
    >>> percent(0.25), percent(0.005)
    ('25%', '0.5%')
    """
    return f"{100 * value:.3g}%"


@dataclass(frozen=True)
class Frame:
    """A drawing area whose `x` and `y` ranges are in data units; `height` is in pixels."""

    x_title: str
    y_title: str
    x: Point = (0.0, 1.0)
    y: Point = (0.0, 1.0)
    x_ticks: Sequence[float] = TENTHS
    y_ticks: Sequence[float] = TENTHS
    x_text: Callable[[float], str] = percent
    y_text: Callable[[float], str] = percent
    height: int = 280

    def px(self, x: float) -> float:
        share = (x - self.x[0]) / (self.x[1] - self.x[0])
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def py(self, y: float) -> float:
        share = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.height - BOTTOM - min(max(share, 0.0), 1.0) * (self.height - TOP - BOTTOM)

    def axes(self) -> str:
        """Grid, tick labels and the titles of both axes."""
        left, right = self.px(self.x[0]), self.px(self.x[1])
        bottom, top = self.py(self.y[0]), self.py(self.y[1])
        parts = []
        for tick in self.x_ticks:
            at = self.px(tick)
            parts.append(_line(at, bottom, at, top, "grid"))
            parts.append(_text(at, bottom + 15, self.x_text(tick), "tick", "middle"))
        for tick in self.y_ticks:
            at = self.py(tick)
            parts.append(_line(left, at, right, at, "grid"))
            parts.append(_text(left - 6, at + 4, self.y_text(tick), "tick", "end"))
        parts.append(_line(left, bottom, right, bottom, "axis"))
        middle = (top + bottom) / 2
        parts.append(_text((left + right) / 2, self.height - 7, self.x_title, "title", "middle"))
        parts.append(
            f'<text class="title" text-anchor="middle" '
            f'transform="translate(11 {middle:.1f}) rotate(-90)">{escape(self.y_title)}</text>'
        )
        return "".join(parts)

    def bar(self, x0: float, x1: float, y0: float, y1: float, kind: str, tip: str = "") -> str:
        """A filled box between two corners, with a tip on hovering."""
        left, right = self.px(x0), self.px(x1)
        top, bottom = sorted((self.py(y0), self.py(y1)))
        return (
            f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{max(right - left - 1, 1):.1f}" height="{bottom - top:.1f}">{_tip(tip)}</rect>'
        )

    def line(self, points: Sequence[Point], kind: str) -> str:
        """A straight line from point to point."""
        at = " ".join(f"{self.px(x):.1f},{self.py(y):.1f}" for x, y in points)
        return f'<polyline class="{kind}" points="{at}"/>' if points else ""

    def steps(self, points: Sequence[Point], kind: str) -> str:
        """A line that holds each height until the next point."""
        corners: list[Point] = []
        for x, y in points:
            if corners:
                corners.append((x, corners[-1][1]))
            corners.append((x, y))
        return self.line(corners, kind)

    def level(self, y: float, kind: str) -> str:
        """A horizontal line through the whole frame."""
        return self.line([(self.x[0], y), (self.x[1], y)], kind)

    def whisker(self, x: float, low: float, high: float, kind: str) -> str:
        """A vertical interval with short caps."""
        at, a, b = self.px(x), self.py(low), self.py(high)
        stem = _line(at, a, at, b, kind)
        return stem + _line(at - 3, a, at + 3, a, kind) + _line(at - 3, b, at + 3, b, kind)

    def dot(self, x: float, y: float, kind: str, radius: float = 3.5, tip: str = "") -> str:
        return (
            f'<circle class="{kind}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" '
            f'r="{radius:.1f}">{_tip(tip)}</circle>'
        )

    def diamond(self, x: float, y: float, kind: str, tip: str = "") -> str:
        """A mark that stands out from the dots of a curve."""
        a, b = self.px(x), self.py(y)
        return (
            f'<path class="{kind}" d="M{a:.1f} {b - 7:.1f}L{a + 7:.1f} {b:.1f}'
            f'L{a:.1f} {b + 7:.1f}L{a - 7:.1f} {b:.1f}Z">{_tip(tip)}</path>'
        )

    def label(self, x: float, y: float, text: str, anchor: str = "start", lift: float = 0) -> str:
        """Words inside the frame, `lift` pixels above the point."""
        return _text(self.px(x), self.py(y) - lift, text, "label", anchor)

    def svg(self, body: str, says: str) -> str:
        """The whole drawing; `says` is what it shows, for those who do not see it."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(says)}">'
            f"{self.axes()}{body}</svg>"
        )


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def nice_ticks(top: float, most: int = 5) -> tuple[float, ...]:
    """Round numbers from 0 to at least `top`.

    >>> nice_ticks(0.37)
    (0.0, 0.1, 0.2, 0.3, 0.4)
    >>> nice_ticks(1234)
    (0.0, 500.0, 1000.0, 1500.0)
    """
    import math

    if not top > 0:
        return (0.0, 1.0)
    scale = 10.0 ** math.floor(math.log10(top / most))
    step = next(f * scale for f in (1, 2, 5, 10) if f * scale * most >= top * (1 - 1e-9))
    return tuple(round(i * step, 12) for i in range(math.ceil(top / step - 1e-9) + 1))
