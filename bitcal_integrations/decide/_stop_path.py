"""From the runs of the fit part to one path of rules, from the most careful to the boldest.

It tries a grid of scores, thresholds, patience, spacing and gates by replaying each on the fit
part, and keeps for every saving the rule that loses least there. It never sees the certify part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bitcal_integrations.decide._stop_rule import Level, StopRule, needs_trial
from bitcal_integrations.decide._stop_table import (
    Ahead,
    Array,
    Course,
    Outcome,
    Table,
    course_of,
    give_up,
    settle,
)

PACES = ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 4))  # (patience, every)
GATES = (0.2, 0.4, 0.6, 0.8)  # shares of the checkpoints where a gate spares the trial answer
THRESHOLDS = 24
STEPS = 30  # of the path
BOLDEST = 0.1  # loss on the fit part beyond which a rule is not worth a test


class Point(NamedTuple):
    """A rule with what it cost (tokens a run) and about what it lost on the fit part."""

    rule: StopRule
    cost: float
    loss: float


class Measured(NamedTuple):
    """The rules of one family, one a bar, from strict to lax."""

    family: StopRule
    bars: Array
    cost: Array
    loss: Array

    def point(self, at: int) -> Point:
        sign = 1 if self.family.level == "settled" else -1
        rule = replace(self.family, threshold=sign * float(self.bars[at]))
        return Point(rule, float(self.cost[at]), float(self.loss[at]))


class Fit(NamedTuple):
    """What a path is laid on: the fit part, the scores, and what is already decided."""

    table: Table
    level: Level
    names: Sequence[str]
    weights: dict[str, Any]
    risk: Array | None
    ahead: Ahead


def outcome(table: Table, course: Course, bars: Array, ahead: Ahead, level: Level) -> Outcome:
    """A rule on a table; one for hopeless runs beside the rule for settled answers."""
    return (
        settle(table, course, bars) if level == "settled" else give_up(table, course, bars, ahead)
    )


def path_of(fit: Fit) -> list[Point]:
    """At most STEPS rules, each cheaper than the one before and likely to lose more."""
    measured = [found for family in _families(fit) if (found := _measure(fit, family)) is not None]
    if not measured:
        return []
    cost, loss = (np.concatenate([getattr(m, name) for m in measured]) for name in ("cost", "loss"))
    points = [(m, i) for m in measured for i in range(m.bars.size)]
    path: list[Point] = []
    for best in _front(cost, loss, _cost_without(fit)):
        of, at = points[best]
        path.append(of.point(at))
    return path


def _front(cost: Array, loss: Array, start: float) -> list[int]:
    """For each of STEPS costs, from `start` down, the point within it that loses least."""
    useful = (cost < start) & (loss <= BOLDEST)
    if not useful.any():
        return []
    path: list[int] = []
    for most in np.linspace(start, cost[useful].min(), STEPS + 1)[1:]:
        within = np.flatnonzero(useful & (cost <= most + 1e-9))
        best = int(within[np.lexsort([-cost[within], loss[within]])[0]])
        if not path or cost[best] < cost[path[-1]]:
            path.append(best)
    return path


def _cost_without(fit: Fit) -> float:
    """Tokens a run without a rule of this level."""
    never = Course(*(np.full(fit.table.there.shape, -np.inf),) * 2, fit.ahead.asked, False)
    return float(outcome(fit.table, never, np.zeros(1), fit.ahead, fit.level).spent.mean())


def _families(fit: Fit) -> Iterator[StopRule]:
    """Every rule of the grid but for its threshold."""
    gates = _gates(fit)
    for score in [*filter(partial(_varies, fit), fit.names), *fit.weights]:
        weights = {score: fit.weights[score]} if score in fit.weights else None
        trial = needs_trial(score, fit.weights)
        for patience, every in PACES:
            if patience * every <= fit.table.there.shape[1]:
                rule = StopRule(fit.level, score, 0.0, patience, every, weights=weights)
                yield rule
                yield from (_gated(rule, gate, fit.weights) for gate in gates if trial)


def _varies(fit: Fit, score: str) -> bool:
    """A score that is the same everywhere says nothing; patience with it only counts places."""
    value = fit.table.value(StopRule(fit.level, score, 0.0), score, fit.table.there)
    value = value[np.isfinite(value)]
    return bool(value.size and np.ptp(value) > 0)


def _gated(rule: StopRule, gate: tuple[str, float], weights: dict[str, Any]) -> StopRule:
    both = {**(rule.weights or {}), **({gate[0]: weights[gate[0]]} if gate[0] in weights else {})}
    return replace(rule, gate=gate, weights=both or None)


def _gates(fit: Fit) -> list[tuple[str, float]]:
    """Bounds on a free score that spare trial answers, where these take tokens at all."""
    name = "learned_free"
    if name not in fit.weights or not fit.table.trial_tokens.any():
        return []
    value = fit.table.value(
        StopRule(fit.level, name, 0.0, weights=fit.weights), name, fit.table.there
    )
    value = value[fit.table.there & np.isfinite(value)]
    return [(name, _short(float(q))) for q in _ranked(value, np.array(GATES))]


def _measure(fit: Fit, family: StopRule) -> Measured | None:
    """What the family's rules cost and lose on the fit part, from strict to lax."""
    course = course_of(fit.table, family)
    bars = _bars(course)
    if not bars.size:
        return None
    out = outcome(fit.table, course, bars, fit.ahead, fit.level)
    loss = out.lost.mean(1)
    if fit.risk is not None:
        ended = out.settled if fit.level == "settled" else out.hopeless
        place = np.minimum(out.at, fit.table.there.shape[1] - 1)
        likely = (ended * fit.risk[np.arange(place.shape[1]), place]).mean(1)
        loss = (loss + likely) / 2
    return Measured(family, bars, out.spent.mean(1), np.maximum.accumulate(loss))


def _bars(course: Course) -> Array:
    """Thresholds from strict to lax: some by how many runs end, some by how many places pass."""
    so_far = course.reached.max(axis=1)
    runs, places = so_far[np.isfinite(so_far)], course.reached[np.isfinite(course.reached)]
    if not places.size:
        return places
    shares = np.linspace(0.02, 0.98, THRESHOLDS // 2)
    bars = np.concatenate([_ranked(runs, shares), _ranked(places, shares)])
    return np.unique([_short(float(bar)) for bar in bars])[::-1]


def _ranked(values: Array, shares: Array) -> Array:
    """The values below which these shares lie."""
    return np.asarray(np.sort(values)[(shares * (values.size - 1)).astype(int)])


def _short(value: float) -> float:
    """Nine digits: a threshold must not hang on the last bit of a score."""
    return float(f"{value:.9g}")
