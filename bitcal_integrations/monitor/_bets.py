"""Evidence against "this happens no more, or no less, often than that", valid while one looks.

Every outcome is bet on: a bet pays what a likelihood ratio says, at the nearest rate that is still
allowed, so that nobody expects to win while the rates are where they may be. Wealth therefore
reaches 1 / alpha with a chance of at most alpha, however often one looks and however long (Ville).
A part of the wealth is held back and staked little by little, so that a change that comes late is
seen as well. Numpy only; it knows neither scores nor labels.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray

OFFSETS = np.array([0.25, 0.5, 1.0, 2.0])  # of the rates that are bet on, on the logit
UP_DOWN = np.array([1.0, -1.0])
EDGE = 1e-6
MOST = 1e30  # wealth beyond it tells nothing more


class Stakes(NamedTuple):
    """What each bet makes of its stake after a 0 and after a 1; (..., outcomes, 2, offsets)."""

    after_0: Array
    after_1: Array


def stakes(low: Array, high: Array) -> Stakes:
    """Bets that a rate is above `high`, then that it is below `low`; none where 1 or 0 is allowed.

    >>> made = stakes(np.array([0.5]), np.array([0.5]))
    >>> bool(np.allclose((made.after_0 + made.after_1) / 2, 1))
    True
    """
    rate = np.stack([high, low], axis=-1)[..., None]
    inside = np.clip(rate, EDGE, 1 - EDGE)
    moved = np.log(inside) - np.log1p(-inside) + UP_DOWN[:, None] * OFFSETS
    other = 0.5 * (1 + np.tanh(0.5 * moved))
    played = np.stack([high < 1, low > 0], axis=-1)[..., None]
    return Stakes(
        np.where(played, (1 - other) / (1 - inside), 1.0), np.where(played, other / inside, 1.0)
    )


class Bets:
    """The wealth of bets on several outcomes that are seen together, step by step.

    `shares` (..., outcomes) says how the stake is divided among the outcomes. A leading axis plays
    independent games side by side.
    """

    def __init__(self, shares: Array) -> None:
        self._shares = shares[..., None, None] / (len(UP_DOWN) * len(OFFSETS))
        self._wealth = np.zeros((*shares.shape, len(UP_DOWN), len(OFFSETS)))
        self.n = 0
        self.evidence = np.ones(shares.shape[:-1])  # now
        self.most = np.ones(shares.shape[:-1])  # so far

    def see(self, y: Array, pay: Stakes, where: Array | bool = True) -> None:
        """One step: outcomes in [0, 1]; no bet is settled where `where` is false."""
        stake = held_back(self.n) - held_back(self.n + 1)
        self.n += 1
        y = np.asarray(y, dtype=float)[..., None, None]
        gain = pay.after_0 + y * (pay.after_1 - pay.after_0)
        if where is not True:
            gain = np.where(np.asarray(where)[..., None, None], gain, 1.0)
        self._wealth = np.minimum((self._wealth + stake * self._shares) * gain, MOST)
        self.evidence = held_back(self.n) + self._wealth.sum(axis=(-3, -2, -1))
        self.most = np.maximum(self.most, self.evidence)

    @property
    def by_outcome(self) -> Array:
        """The wealth per outcome, upwards and downwards: (..., outcomes, 2)."""
        return self._wealth.sum(axis=-1)


def held_back(n: int) -> float:
    """The share of the first stake that is not bet yet after n steps.

    It falls so slowly that a change after 10,000 steps costs about as much evidence as one that
    is a few hundred steps old.

    >>> held_back(0), held_back(1)
    (1.0, 0.5)
    """
    return 1 / (1 + math.log2(1 + n))
