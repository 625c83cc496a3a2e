"""Rules on arrays of many runs say what the same rules say checkpoint by checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from logged_help import runs

from bitcal_integrations.decide._stop_path import outcome
from bitcal_integrations.decide._stop_table import Ahead, Outcome, Table, bar_of, course_of
from bitcal_integrations.decide.logged import Checkpoint, LoggedRun, Trial
from bitcal_integrations.decide.stop import StopPlan, StopRule, replay
from bitcal_integrations.errors import CalibrationError

WEIGHTS = {
    "learned": {
        "bias": 0.3,
        "terms": {
            "logprob": (0.0, 0.4, 0.7), "logit:trial_probability": (0.1, 2.0, 1.1),
            "trial_agreement": (1.5, 0.8, 0.9),
        },
    },
    "learned_free": {"bias": -0.2, "terms": {"logprob": (0.0, 0.4, 1.3), "hope": (0, 1, 0.2)}},
}  # fmt: skip
SCORES = ("logprob", "entropy", "trial_probability", "trial_agreement", *WEIGHTS, "absent")
RUNS = [
    *runs(60, 3, gaps=0.15),
    LoggedRun((), 30, "4", False, id="bare"),
    *runs(20, 4, steps=(1, 2)),
]


def rules(level: Any, seed: int, count: int) -> Iterator[StopRule]:
    """Rules drawn at random from all that a rule can be."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        gates = (None, ("logprob", 0.0), ("learned_free", -0.5), ("entropy", -0.3))
        score = str(rng.choice(SCORES))
        threshold = float(rng.integers(1, 4)) if score == "trial_agreement" else rng.normal() / 2
        yield StopRule(
            level, score, float(threshold), int(rng.integers(1, 4)), int(rng.integers(1, 4)),
            int(rng.choice([0, 25])), gates[rng.integers(len(gates))], WEIGHTS,
        )  # fmt: skip


def on_arrays(settled: StopRule | None, hopeless: StopRule | None, kind: str) -> Outcome:
    table = Table.of(RUNS, kind)
    rule = hopeless or settled
    assert rule is not None
    ahead = Ahead.of(table, settled if hopeless else None)
    return outcome(table, course_of(table, rule), np.array([bar_of(rule)]), ahead, rule.level)


def agrees(plan: StopPlan, out: Outcome, kind: str) -> int:
    """Every run by itself; how many of them end early."""
    ended = 0
    for row, run in enumerate(RUNS):
        one = replay(run, plan)
        found = out.tokens[0, row], out.probes[0, row], out.settled[0, row], out.hopeless[0, row]
        says = one.finish == "settled", one.finish == "hopeless"
        assert found == (one.tokens, one.probe_tokens, *says), (plan, run)
        if one.index is not None:
            assert out.at[0, row] == one.index
        by_kind = run.right and not one.right if kind == "wrong" else one.answer != run.answer
        counted = one.finish == ("hopeless" if plan.hopeless else "settled")
        assert out.lost[0, row] == bool(counted and by_kind and run.answer is not None)
        ended += one.index is not None
    return ended


@pytest.mark.parametrize("kind", ["wrong", "changed"])
@pytest.mark.parametrize("level", ["settled", "hopeless"])
def test_one_rule(level: str, kind: str) -> None:
    ended = 0
    for rule in rules(level, 1, 60):
        given: dict[str, Any] = {level: rule}
        settled, hopeless = given.get("settled"), given.get("hopeless")
        ended += agrees(StopPlan(settled, hopeless), on_arrays(settled, hopeless, kind), kind)
    assert ended > 200  # so that it compares something


def test_both_rules_together() -> None:
    pairs = list(zip(rules("settled", 2, 80), rules("hopeless", 3, 80), strict=True))
    ended = sum(agrees(StopPlan(s, h), on_arrays(s, h, "wrong"), "wrong") for s, h in pairs)
    assert ended > 200


def test_many_thresholds_at_once_are_each_alone() -> None:
    table, rule = Table.of(RUNS, "wrong"), StopRule("settled", "logprob", 0.0, patience=2)
    bars, ahead = np.array([0.6, 0.2, -0.3]), Ahead.of(table, None)
    course = course_of(table, rule)
    whole = outcome(table, course, bars, ahead, "settled")
    for i, bar in enumerate(bars):
        alone = outcome(table, course, np.array([bar]), ahead, "settled")
        assert all(np.array_equal(a[i], b[0]) for a, b in zip(whole, alone, strict=True))


def test_rows_of_a_table_are_tables_of_the_rows() -> None:
    some = np.array([5, 0, 33])
    part, same = Table.of(RUNS, "wrong").rows(some), Table.of([RUNS[i] for i in some], "wrong")
    wide = same.there.shape[1]
    assert np.array_equal(part.tokens[:, :wide], same.tokens)
    assert not part.there[:, wide:].any()
    for name, values in same.scores.items():
        assert np.array_equal(part.scores[name][:, :wide], values, equal_nan=True)


def test_a_trial_score_is_known_by_its_name() -> None:
    place = Checkpoint(5, {}, Trial("4", {"sure": 0.5}, 2))
    with pytest.raises(CalibrationError, match="'sure' of a trial answer must begin with 'trial_'"):
        Table.of([LoggedRun((place,), 9, "4", True)], "wrong")
