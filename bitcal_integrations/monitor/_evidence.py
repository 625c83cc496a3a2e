"""The two tests behind the drift states: of scores against a profile, and of labels against it.

Each plays two games at once, against a small and a large slack, and can say in words what moved.
They know a calibrator and rows of its features; no model, record or store.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from bitcal_integrations.metrics import wilson
from bitcal_integrations.monitor._bets import Array, Bets, Stakes, stakes

SMALL, LARGE = 0, 1  # the games
SCORE_SLACK = (0.02, 0.10)  # shares of answers below a score
LABEL_SLACK = (0.02, 0.05)  # beyond what the interval of the confidence leaves room for
# Of the way from a confidence to the ends of its interval: the errors of a fitted curve are rarely
# all on one side. With the whole way an accuracy that fell by .10 took twice as many labels.
ROOM = 0.5
UNCLAIMED = 0.10  # either way, where a profile was transferred and claims no interval
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
RECENT = 500
BINS = ((0.0, 1.0), (0.0, 0.5), (0.5, 0.8), (0.8, 1.0))  # all answers, and three kinds of them


class ScoreTest:
    """Do the scores come from where the profile's reference scores came from?

    The outcomes are "this signal is at most that quantile of its reference". Each share may differ
    from the measured one by what the reference itself does not know, by the inequality of
    Dvoretzky, Kiefer and Wolfowitz with probability `unsure`, and by the slack of the game.
    """

    def __init__(self, calibrator: Any, unsure: float) -> None:
        self._columns, self._names = calibrator.columns, calibrator.names
        reference = calibrator.reference
        grids = [np.asarray(q) for q in reference.quantiles]
        cuts = [np.unique(g[np.round(np.multiply(LEVELS, g.size - 1)).astype(int)]) for g in grids]
        self._column = np.repeat(np.arange(len(grids)), [c.size for c in cuts])
        self._cut = np.concatenate(cuts)
        pairs = zip(grids, cuts, strict=True)
        self.share = np.concatenate([_share_below(grid, cut) for grid, cut in pairs])
        n = reference.n if calibrator.transferred else min(reference.n, calibrator.n)
        self.known_to = math.sqrt(math.log(2 * len(grids) / unsure) / (2 * n))
        room = self.known_to + np.array(SCORE_SLACK)[:, None]
        self.pay = stakes(self.share - room, self.share + room)
        self.bets = Bets(np.full((len(SCORE_SLACK), self.share.size), 1 / self.share.size))
        self._recent: deque[Array] = deque(maxlen=RECENT)

    def see(self, row: Array) -> None:
        """One answer's features, all of them finite."""
        y = self.below(row[None, :])[0]
        self.bets.see(y, self.pay)
        self._recent.append(y)

    def below(self, rows: Array) -> Array:
        """Which cuts the scores of each row lie at or below: (rows, cuts)."""
        z = self._columns.scaled(rows)[:, self._column]
        below: Array = z <= self._cut + 1e-9 * np.maximum(1, np.abs(self._cut))
        return below

    def moved(self) -> tuple[float, str]:
        """The largest move of a share among the last answers, and what it is in words."""
        if not self._recent:
            return 0.0, ""
        now = np.mean(self._recent, axis=0)
        at = int(np.argmax(np.abs(now - self.share)))
        return float(abs(now[at] - self.share[at])), (
            f"{self._names[self._column[at]]} is at most {self._value(at):.4g} in {now[at]:.0%} of "
            f"the last {len(self._recent)} answers, in {self.share[at]:.0%} when it was measured"
        )

    def _value(self, at: int) -> float:
        """A cut on the scale of its signal."""
        i, columns = self._column[at], self._columns
        raw = float(self._cut[at] * columns.scale[i] + columns.center[i])
        return 0.5 * (1 + math.tanh(0.5 * raw)) if columns.logits[i] else raw


def _share_below(grid: Array, cut: Array) -> Array:
    """The share of the reference at or below each cut, from its quantiles."""
    return (np.searchsorted(grid, cut, "right") - 1) / (grid.size - 1)


def in_bins(p: Any) -> Array:
    """Which of BINS each confidence belongs to: (..., bins)."""
    low, high = np.array(BINS).T
    p = np.asarray(p)[..., None]
    inside: Array = (low <= p) & ((p < high) | ((p == 1) & (high == 1)))
    return inside


def label_stakes(low: Any, high: Any) -> Stakes:
    """Bets against what confidences claim, for both games: (..., games, 1, 2, offsets)."""
    slack = np.array(LABEL_SLACK)[:, None]
    return stakes(
        np.asarray(low)[..., None, None] - slack, np.asarray(high)[..., None, None] + slack
    )


class LabelTest:
    """Are answers right as often as their confidence says?

    They may be right as often as half the way to the ends of its interval says, and by the slack of
    the game more or less often than that, in every bin.
    """

    def __init__(self, calibrator: Any) -> None:
        self._calibrator = calibrator
        self.bets = Bets(np.full((len(LABEL_SLACK), len(BINS)), 1 / len(BINS)))
        self._sums = np.zeros((len(BINS), 4))  # labels, right, low, high

    def see(self, row: Array, y: float) -> None:
        """One answer's features, and whether it was right; a share where judges differ."""
        low, high, p = (v[0] for v in self.bounds(row[None, :]))
        inside = in_bins(p)
        self.bets.see(np.full(len(BINS), y), label_stakes(low, high), inside)
        self._sums[inside] += (1, y, low, high)

    def bounds(self, rows: Array) -> tuple[Array, Array, Array]:
        """Which rates keep to the confidence of each row, low and high, and the confidence."""
        p = self._calibrator(rows)
        if self._calibrator.interval_kind.startswith("none"):
            return np.maximum(0, p - UNCLAIMED), np.minimum(1, p + UNCLAIMED), p
        low, high = self._calibrator.interval(rows).T
        return p + ROOM * (low - p), p + ROOM * (high - p), p

    def moved(self) -> tuple[float, str]:
        """How far beyond its interval the confidence is where most speaks against it, in words."""
        if not self.bets.n:
            return 0.0, ""
        at = int(np.argmax(self.bets.by_outcome[SMALL].sum(axis=-1)))
        n, right, low, high = self._sums[at]
        if not n:
            return 0.0, ""
        share, (a, b) = right / n, wilson(right, int(n))
        beyond = max(0.0, low / n - share, share - high / n)
        which = "" if at == 0 else f" with a confidence from {BINS[at][0]:g} to {BINS[at][1]:g}"
        return float(beyond), (
            f"of {n:.0f} labelled answers{which} {share:.0%} were right ({a:.0%} to {b:.0%}), "
            f"where {low / n:.0%} to {high / n:.0%} is what was said"
        )
