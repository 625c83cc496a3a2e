"""One choice per item, so that all sizes fit and the losses add up to the least: exactly.

Dynamic programming over the sizes that can be reached; what can no longer lead to the best sum is
dropped by the bound of the relaxed problem. Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Sizes = Sequence[Sequence[int]]
Losses = Sequence[Sequence[float]]
_HALVINGS = 100


@dataclass(frozen=True)
class _Front:
    """Partial choices that no other beats in both, by size; and the way to each."""

    size: np.ndarray
    loss: np.ndarray
    parent: np.ndarray
    choice: np.ndarray


def knapsack(sizes: Sizes, losses: Losses, room: int) -> list[int]:
    """The index chosen of each item; of equally good choices the smaller one, then the first.

    >>> knapsack([[1, 2], [1, 3]], [[5.0, 0.0], [9.0, 0.0]], 4)
    [0, 1]
    """
    least = sum(map(min, sizes))
    if least > room:
        raise ValueError(f"{least} do not fit into {room}")
    price, best = _relaxed(sizes, losses, room)
    spare = 1e-9 * (1.0 + abs(best) + sum(max(map(abs, row)) for row in losses))
    limit = best + price * room + spare  # no partial choice above it can lead to the best sum
    left = sum(min(_priced(s, w, price)) for s, w in zip(sizes, losses, strict=True))
    start = np.zeros(1, np.int64)
    fronts = [_Front(start, np.zeros(1), start, start)]
    for mine, costs in zip(sizes, losses, strict=True):
        least -= min(mine)
        left -= min(_priced(mine, costs, price))
        fronts.append(_extended(fronts[-1], mine, costs, (room - least, price, limit - left)))
    return _way(fronts)


def _priced(sizes: Sequence[int], losses: Sequence[float], price: float) -> list[float]:
    return [loss + price * size for size, loss in zip(sizes, losses, strict=True)]


def _relaxed(sizes: Sizes, losses: Losses, room: int) -> tuple[float, float]:
    """The lowest price of a byte at which what is best by itself fits, and its loss."""

    def chosen(price: float) -> tuple[int, float]:
        total, loss = 0, 0.0
        for mine, costs in zip(sizes, losses, strict=True):
            priced = _priced(mine, costs, price)
            at = min(range(len(mine)), key=lambda i: (priced[i], mine[i]))
            total, loss = total + mine[at], loss + costs[at]
        return total, loss

    low, high = 0.0, 0.0
    found = chosen(high)
    while found[0] > room:
        low, high = high, max(1e-12, 4 * high)
        found = chosen(high)
    for _ in range(_HALVINGS if low < high else 0):
        middle = (low + high) / 2
        tried = chosen(middle)
        if tried[0] > room:
            low = middle
        else:
            high, found = middle, tried
    return high, found[1]


def _extended(
    front: _Front,
    sizes: Sequence[int],
    losses: Sequence[float],
    bounds: tuple[int, float, float],
) -> _Front:
    """Every choice of one more item behind every partial choice, without what cannot be best."""
    room, price, limit = bounds
    n = len(front.size)
    size = np.concatenate([front.size + s for s in sizes])
    loss = np.concatenate([front.loss + w for w in losses])
    parent, choice = np.tile(np.arange(n), len(sizes)), np.repeat(np.arange(len(sizes)), n)
    usable = np.flatnonzero((size <= room) & (loss + price * size <= limit))
    order = usable[np.lexsort((parent[usable], choice[usable], loss[usable], size[usable]))]
    lowest = np.minimum.accumulate(loss[order])
    better = np.concatenate([[True], loss[order][1:] < lowest[:-1]])
    kept = order[better]
    return _Front(size[kept], loss[kept], parent[kept], choice[kept])


def _way(fronts: Sequence[_Front]) -> list[int]:
    """Back from the last partial choice, which has the least loss."""
    at, found = len(fronts[-1].size) - 1, []
    for front in reversed(fronts[1:]):
        found.append(int(front.choice[at]))
        at = int(front.parent[at])
    return found[::-1]
