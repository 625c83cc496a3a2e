"""A valid test of a bounded mean: is the accuracy lost against the big model below a limit?

Betting (Waudby-Smith and Ramdas, 2024): under "the loss is at least the limit" the capital of a
gambler is not expected to grow, so that it reaches 1/delta with probability at most delta.
It knows no router: losses are -1, 0 or 1, one per independent row, in random order.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
BOLD = 0.75  # largest bet, as a share of what would risk the whole capital


def certified(losses: Array, limit: float, delta: float) -> bool:
    """Whether P(mean loss > limit) <= delta can be claimed from these losses in [-1, 1].

    >>> certified(np.zeros(200), 0.02, 0.1), certified(np.zeros(100), 0.02, 0.1)
    (True, False)
    """
    if not len(losses):
        return False
    x, level = (1 + np.asarray(losses, dtype=np.float64)) / 2, (1 + limit) / 2
    count = np.arange(1, x.size + 1)
    mean = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum((x - mean) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], spread[:-1]])  # a bet may only know the rows before it
    bets = np.sqrt(2 * math.log(1 / delta) / (x.size * before))
    bets = np.minimum(bets, BOLD / (1 - level))
    capital = np.cumsum(np.log1p(bets * (level - x)))
    return bool(capital.max() >= math.log(1 / delta))
