"""How often the promise of an early stop is broken, where the true loss is known."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from logged_help import runs

from bitcal_integrations.decide import StopPlan, certify_stop
from bitcal_integrations.decide._stop_path import outcome
from bitcal_integrations.decide._stop_rule import Level
from bitcal_integrations.decide._stop_table import Ahead, Table, bar_of, course_of
from bitcal_integrations.decide.logged import LoggedRun

POPULATION, N, DELTA, MAX_LOSS = 4000, 300, 0.1, 0.05


@cache
def population() -> tuple[list[LoggedRun], Table]:
    """All runs there are; a draw of N of them is a calibration set."""
    logged = runs(POPULATION, 11, steps=(2, 6), noise=1.5)
    return logged, Table.of(logged, "wrong")


def true_losses(plan: StopPlan) -> dict[Level, float]:
    """Of each level; that arrays say the same as a replay has a test of its own."""
    table, found = population()[1], {}
    for rule in plan.rules:
        ahead = Ahead.of(table, plan.settled if rule is plan.hopeless else None)
        bars = np.array([bar_of(rule)])
        out = outcome(table, course_of(table, rule), bars, ahead, rule.level)
        found[rule.level] = float(out.lost.mean())
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scores", "levels", "draws"),
    [
        (("trial_probability",), ("settled",), 100),
        (("logprob", "trial_margin", "hope"), ("settled", "hopeless"), 20),
    ],
    ids=["one score", "learned, both levels"],
)
def test_the_true_loss_rarely_exceeds_what_was_promised(
    scores: tuple[str, ...], levels: tuple[Level, ...], draws: int
) -> None:
    rng = np.random.default_rng(5)
    logged, _ = population()
    broken, found = 0, 0
    for draw in range(draws):
        some = [logged[i] for i in rng.choice(POPULATION, N, replace=False)]
        plan = certify_stop(some, MAX_LOSS, DELTA, scores=scores, levels=levels, seed=draw).plan
        found += plan is not None
        broken += plan is not None and max(true_losses(plan).values()) > MAX_LOSS
    assert found > draws / 4  # so that it is no empty promise
    assert broken / draws <= DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / draws)
