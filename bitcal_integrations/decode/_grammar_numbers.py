"""JSON integers and decimals within bounds, as grammar nodes. Without exponents.

Knows digits only: a bound becomes the choices of digits that respect it.
"""

from __future__ import annotations

import math
from decimal import Decimal

from bitcal_integrations.decode._grammar_nodes import (
    Alt,
    Leaf,
    Lit,
    Node,
    Repeat,
    Seq,
    alt,
    digits,
    leaf,
    maybe,
)

DIGITS = 15  # what a double holds exactly, before and after the point
_MINUS, _POINT = Lit(b"-"), Lit(b".")


def integer(low: int | None, high: int | None) -> Leaf | None:
    """Whole numbers from `low` to `high`, or None if there are none.

    >>> integer(8, 12).regex
    '([8-9]|(1[0-2]))'
    """
    largest = 10 ** max(DIGITS, len(str(abs(low or 0))), len(str(abs(high or 0)))) - 1
    low, high = -largest if low is None else low, largest if high is None else high
    choices = []
    if high >= 0 and low <= high:
        choices.append(_whole(max(low, 0), high))
    if low < 0 and low <= high:
        choices.append(Seq((_MINUS, _whole(max(-high, 1), -low))))
    return leaf(alt(choices)) if choices else None


def _whole(low: int, high: int) -> Node:
    """Whole numbers >= 0, number of digits by number of digits."""
    sizes = range(len(str(low)), len(str(high)) + 1)
    bounds = [(max(low, 10 ** (n - 1) if n > 1 else 0), min(high, 10**n - 1)) for n in sizes]
    if low == 1 and high == 10 ** len(sizes) - 1:
        return Seq((digits(1), *_some(len(sizes) - 1)))
    if low == 0 and high == 10 ** len(sizes) - 1:
        return Alt((Lit(b"0"), Seq((digits(1), *_some(len(sizes) - 1)))))
    return alt(_between(str(a), str(b)) for a, b in bounds)


def _some(most: int, least: int = 0) -> tuple[Node, ...]:
    return (Repeat(digits(), least, most),) if most else ()


def _between(low: str, high: str) -> Node:
    """Numbers of the same count of digits."""
    if low == high:
        return Lit(low.encode())
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    if first == last:
        return Seq((Lit(low[0].encode()), _between(low[1:], high[1:])))
    choices: list[Node] = []
    if low[1:].strip("0"):
        choices.append(Seq((Lit(low[0].encode()), _between(low[1:], "9" * rest))))
        first += 1
    upper: list[Node] = []
    if high[1:].strip("9"):
        upper.append(Seq((Lit(high[0].encode()), _between("0" * rest, high[1:]))))
        last -= 1
    if first <= last:
        one: Node = Lit(b"%d" % first) if first == last else digits(first, last)
        choices.append(Seq((one, *_some(rest, rest))) if rest else one)
    return alt(choices + upper)


# ---- decimals: (bound, whether the bound itself is left out) -------------------------------------

Bound = tuple[Decimal, bool]


def decimal(low: Bound | None, high: Bound | None) -> Leaf | None:
    """Decimal numbers between two bounds, or None if there are none.

    >>> decimal((Decimal(1), False), (Decimal(3), True)).regex
    '((1((\\\\.(([0-9]){1,15}))){0,1})|(2((\\\\.(([0-9]){1,15}))){0,1}))'
    """
    largest = (Decimal(10**DIGITS), True)
    top = high or max(largest, (abs(low[0]) * 10 if low else Decimal(0), True))
    bottom = low or (min(-largest[0], -abs(top[0]) * 10), True)
    choices = []
    if top[0] >= 0:
        choices.append(_positive(bottom if bottom[0] >= 0 else (Decimal(0), False), top))
    if bottom[0] < 0:
        least = (-top[0], top[1]) if top[0] < 0 else (Decimal(0), True)  # never -0
        found = _positive(least, (-bottom[0], bottom[1]))
        choices.append(found and Seq((_MINUS, found)))
    known = [choice for choice in choices if choice is not None]
    return leaf(alt(known)) if known else None


def _positive(low: Bound, high: Bound) -> Node | None:
    (a, open_a), (b, open_b) = low, high
    if a > b or (a == b and (open_a or open_b)):
        return None
    first, last = math.floor(a), math.floor(b)
    below, above = _places(a), _places(b)
    places = max(DIGITS, len(below) + 3, len(above) + 3)
    if first == last:
        size = max(len(below), len(above))
        padded = (below.ljust(size, "0"), above.ljust(size, "0"))
        parts = [
            _join(first, first, _inside(*padded, open_a, open_b, places), not below and not open_a)
        ]
    else:
        parts = [_join(first, first, _over(below, open_a, places), not below and not open_a)]
        if last > first + 1:
            parts.append(_join(first + 1, last - 1, Seq(_some(places, 1)), True))
        if above or not open_b:
            parts.append(_join(last, last, _under(above, open_b, places), True))
    known = [part for part in parts if part is not None]
    return alt(known) if known else None


def _places(value: Decimal) -> str:
    """The digits after the point, without zeros at the end."""
    return format(value, "f").partition(".")[2].rstrip("0")


def _join(first: int, last: int, places: Node | None, bare: bool) -> Node | None:
    """A whole part, and a point with places; `bare` allows the whole part alone."""
    whole = _whole(first, last)
    if places is None:
        return whole if bare else None
    behind = Seq((_POINT, places))
    return Seq((whole, maybe(behind) if bare else behind))


def _over(bound: str, strictly: bool, places: int) -> Node:
    """Places that are at least (or more than) the bound's; at least one."""
    if not bound:
        if not strictly:
            return Seq(_some(places, 1))
        return Seq((Repeat(Lit(b"0"), 0, places - 1), digits(1), *_some(places)))
    more = bound[1:] or strictly
    tail = (_over(bound[1:], strictly, places - 1),) if more else _some(places - 1)
    choices: list[Node] = [Seq((Lit(bound[0].encode()), *tail))]
    if bound[0] < "9":
        choices.append(Seq((digits(int(bound[0]) + 1), *_some(places - 1))))
    return alt(choices)


def _under(bound: str, strictly: bool, places: int) -> Node | None:
    """Places that are at most (or less than) the bound's; at least one."""
    if not bound:
        return None if strictly else Repeat(digits(0, 0), 1, places)
    choices: list[Node] = []
    if bound[0] > "0":
        choices.append(Seq((digits(0, int(bound[0]) - 1), *_some(places - 1))))
    more = _under(bound[1:], strictly, places - 1)
    if bound[1:] or not strictly:
        tail = () if more is None else (maybe(more),)
        choices.append(Seq((Lit(bound[0].encode()), *tail)))
    return alt(choices) if choices else None


def _inside(low: str, high: str, open_low: bool, open_high: bool, places: int) -> Node | None:
    """Places between two bounds of one length; at least one."""
    if not low:
        return None if open_low or open_high else Repeat(digits(0, 0), 1, places)
    if low[0] == high[0]:
        rest = _inside(low[1:], high[1:], open_low, open_high, places - 1)
        exact = not low[1:].strip("0") and not open_low  # the low bound may end here
        if rest is None:
            return Lit(low[0].encode()) if exact and not open_high else None
        return Seq((Lit(low[0].encode()), maybe(rest) if exact else rest))
    below, above = low[1:].rstrip("0"), high[1:].rstrip("0")
    exact = not below and not open_low
    over = _over(below, open_low, places - 1)
    choices: list[Node] = [Seq((Lit(low[0].encode()), maybe(over) if exact else over))]
    first, last = int(low[0]) + 1, int(high[0]) - 1
    if first <= last:
        choices.append(Seq((digits(first, last), *_some(places - 1))))
    under = _under(above, open_high, places - 1)
    if above or not open_high:
        choices.append(Seq((Lit(high[0].encode()), *(() if under is None else (maybe(under),)))))
    return alt(choices)
