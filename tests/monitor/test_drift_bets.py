"""Bets: fair by hand, by counting every outcome, and by simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from bitcal_integrations.monitor._bets import Bets, held_back, stakes


def test_nobody_expects_to_win_at_the_rate_that_is_allowed() -> None:
    rate, pay, mean = 0.3, stakes(np.array([0.3]), np.array([0.3])), 0.0
    for ys in product((0.0, 1.0), repeat=8):
        bets = Bets(np.ones(1))
        for y in ys:
            bets.see(np.array([y]), pay)
        mean += float(bets.evidence) * math.prod(rate if y else 1 - rate for y in ys)
    assert mean == pytest.approx(1.0, abs=1e-12)


def test_one_bet_by_hand() -> None:
    bets = Bets(np.ones(1))
    bets.see(np.array([1.0]), stakes(np.array([0.5]), np.array([0.5])))
    # Half the wealth is staked on eight bets; a 1 pays 2 q at the rate q that is bet on.
    rates = [1 / (1 + math.exp(-sign * d)) for sign in (1, -1) for d in (0.25, 0.5, 1, 2)]
    assert float(bets.evidence) == pytest.approx(0.5 + 0.5 * sum(2 * q for q in rates) / 8)


def test_inside_the_bounds_every_bet_loses_on_average() -> None:
    pay = stakes(np.array([0.2]), np.array([0.4]))
    for rate in (0.2, 0.3, 0.4):
        assert ((1 - rate) * pay.after_0 + rate * pay.after_1 <= 1 + 1e-12).all()
    free = stakes(np.array([0.0]), np.array([1.0]))
    assert (free.after_0 == 1).all()
    assert (free.after_1 == 1).all()


def test_the_chance_of_a_false_alarm_is_kept_while_one_looks() -> None:
    rng, streams = np.random.default_rng(1), 2000
    bets, pay = Bets(np.ones((streams, 1))), stakes(np.array([0.7]), np.array([0.7]))
    for _ in range(400):
        bets.see(rng.random((streams, 1)) < 0.7, pay)
    assert np.mean(bets.most >= 20) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / streams)
    assert np.mean(bets.most >= 20) > 0.002  # it does bet


def test_a_late_change_is_found_too() -> None:
    rng = np.random.default_rng(2)
    pay = stakes(np.array([0.45]), np.array([0.55]))
    found = []
    for quiet in (0, 20_000):
        bets = Bets(np.ones(1))
        for _ in range(quiet):
            bets.see(np.array([float(rng.random() < 0.5)]), pay)
        while bets.most < 100:
            bets.see(np.array([float(rng.random() < 0.8)]), pay)
        found.append(bets.n - quiet)
    assert found[0] < 100
    assert found[1] < 300
    assert held_back(20_000) > 0.05
