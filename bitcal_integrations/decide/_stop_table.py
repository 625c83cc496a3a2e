"""Logged runs as arrays, one row a run and one column a checkpoint, and rules evaluated on them.

It says the same as calling a rule checkpoint by checkpoint, for many runs and thresholds at once.
Rows shorter than the longest are filled up with places that are not there, where nothing holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from bitcal_integrations.decide._stop_rule import (
    AGREEMENT,
    CLAMP,
    EDGE,
    LOGIT,
    StopRule,
    needs_trial,
)
from bitcal_integrations.decide.logged import Checkpoint, LoggedRun
from bitcal_integrations.errors import CalibrationError

Array: TypeAlias = np.ndarray


@dataclass(frozen=True)
class Table:
    """The runs' numbers; (rows, columns) unless said otherwise.

    `answers` numbers the different trial answers of a row, -1 for none. `loses` says that ending
    here loses what the full run had; `quit_loses` (rows) that giving it up does. `right` is NaN
    where nobody knows. `length` (rows) is what the full run took.
    """

    there: Array
    tokens: Array
    scores: Mapping[str, Array]
    answers: Array
    trial_tokens: Array
    loses: Array
    quit_loses: Array
    right: Array
    length: Array

    @classmethod
    def of(cls, runs: Sequence[LoggedRun], kind: str) -> Table:
        wide = max(len(run.checkpoints) for run in runs)
        shape = len(runs), wide
        table = cls(
            np.zeros(shape, bool), np.zeros(shape), _scores(runs, shape),
            np.full(shape, -1), np.zeros(shape), np.ones(shape, bool), np.zeros(len(runs), bool),
            np.full(shape, np.nan), np.array([run.tokens for run in runs], float),
        )  # fmt: skip
        for row, run in enumerate(runs):
            table._fill(row, run, kind)
        return table

    def _fill(self, row: int, run: LoggedRun, kind: str) -> None:
        numbers: dict[str, int] = {}
        valued = run.right if kind == "wrong" else run.answer is not None
        self.quit_loses[row] = bool(valued)
        for at, place in enumerate(run.checkpoints):
            self.there[row, at], self.tokens[row, at] = True, place.tokens
            if place.trial is None:
                continue
            answer, right = place.trial.answer, run.right_of(at)
            self.trial_tokens[row, at] = place.trial.tokens
            if answer is not None:
                self.answers[row, at] = numbers.setdefault(answer, len(numbers))
            kept = right if kind == "wrong" else answer == run.answer
            self.loses[row, at] = bool(valued) and not kept
            self.right[row, at] = np.nan if right is None else right

    def rows(self, index: Array) -> Table:
        """The same for some of the rows."""
        parts: dict[str, Any] = {k: v[index] for k, v in vars(self).items() if k != "scores"}
        return replace(self, **parts, scores={k: v[index] for k, v in self.scores.items()})

    def looks(self, rule: StopRule) -> Array:
        """Where it looks, with its gate open."""
        places = np.arange(1, self.there.shape[1] + 1)
        found: Array = self.there & (places % rule.every == 0) & (self.tokens >= rule.after)
        if rule.gate is None:
            return found
        return found & (self.value(rule, rule.gate[0], found) >= rule.gate[1])

    def value(self, rule: StopRule, name: str, looks: Array) -> Array:
        """A score by its name, NaN where it is not known."""
        if rule.weights and name in rule.weights:
            fit = rule.weights[name]
            total = np.full(self.there.shape, fit["bias"])
            for term, (mean, scale, weight) in fit["terms"].items():
                away = (self.value(rule, term, looks) - mean) / scale
                total += weight * np.clip(away, -CLAMP, CLAMP)
            return total
        if name.startswith(LOGIT):
            p = np.clip(self.value(rule, name.removeprefix(LOGIT), looks), EDGE, 1 - EDGE)
            return np.asarray(np.log(p) - np.log1p(-p))
        if name == AGREEMENT:
            return self._agreement(looks)
        if name not in self.scores:
            return np.full(self.there.shape, np.nan)
        return self.scores[name]

    def _agreement(self, looks: Array) -> Array:
        """How many of the last trials in a row, where it looks, gave the answer of this one."""
        out = np.full(self.there.shape, np.nan)
        rows, wide = len(out), out[0].size
        last, alike = np.full(rows, -1), np.zeros(rows)
        for at in range(wide):
            here, answer = looks[:, at], self.answers[:, at]
            alike = np.where(here, np.where(answer == last, alike + 1, 1), alike)
            last = np.where(here, answer, last)
            out[:, at] = np.where(here & (answer >= 0), alike, np.nan)
        return out


def _scores(runs: Sequence[LoggedRun], shape: tuple[int, int]) -> dict[str, Array]:
    out: dict[str, Array] = {}
    for row, run in enumerate(runs):
        for at, place in enumerate(run.checkpoints):
            for name, value in _named(place):
                if name not in out:
                    out[name] = np.full(shape, np.nan)
                out[name][row, at] = value
    return {k: np.where(np.isfinite(v), v, np.nan) for k, v in out.items() if k != AGREEMENT}


def _named(place: Checkpoint) -> list[tuple[str, Any]]:
    """Its scores; of two with one name the one that costs nothing, as Checkpoint.score has it."""
    trial = place.trial.scores if place.trial else {}
    for name in trial:
        if not needs_trial(name):
            raise CalibrationError(f"the score {name!r} of a trial answer must begin with 'trial_'")
    free = [(name, value) for name, value in place.scores.items() if value is not None]
    return [*trial.items(), *free]


class Course(NamedTuple):
    """How far a rule is, everywhere: it holds where `reached` is at least its bar.

    `asked` says where it asks for a trial answer whatever the bar. `almost` is what `reached` would
    be if no answer were needed: where only that is at the bar, a trial has been asked for in vain.
    """

    reached: Array
    almost: Array
    asked: Array
    by_score: bool  # asks only where its score is at the bar


def course_of(table: Table, rule: StopRule) -> Course:
    """The course of a rule, whatever its threshold. Its bar is `bar_of(rule)`."""
    looks = table.looks(rule)
    value = table.value(rule, rule.score, looks)
    value = value if rule.level == "settled" else -value
    level = np.where(looks & np.isfinite(value), value, -np.inf)
    almost = level
    for back in range(1, rule.patience):
        almost = np.minimum(almost, _later(level, rule.every * back))
    settles = rule.level == "settled"
    reached = np.where(table.answers >= 0, almost, -np.inf) if settles else almost
    asked = looks if rule.needs_trial else np.zeros_like(looks)
    return Course(reached, almost, asked, settles and not rule.needs_trial)


def bar_of(rule: StopRule) -> float:
    return rule.threshold if rule.level == "settled" else -rule.threshold


def _later(level: Array, columns: int) -> Array:
    """What was there so many columns before."""
    out = np.full_like(level, -np.inf)
    if columns < level.shape[1]:
        out[:, columns:] = level[:, :-columns]
    return out


def first_at(course: Course, bars: Array) -> Array:
    """(bars, rows): the first column where the rule holds; the number of columns where none."""
    so_far = np.maximum.accumulate(course.reached, axis=1)
    return np.asarray((so_far[None] < bars[:, None, None]).sum(2))


class Outcome(NamedTuple):
    """What a plan does to each run; (thresholds, rows).

    `at` is the column where it ends, `settled` and `hopeless` how; `spent` counts the tokens of the
    text and of probes; `lost` that the end loses what the full run had.
    """

    at: Array
    settled: Array
    hopeless: Array
    tokens: Array
    probes: Array
    lost: Array

    @property
    def spent(self) -> Array:
        return self.tokens + self.probes


def settle(table: Table, course: Course, bars: Array) -> Outcome:
    """The runs under one rule for settled answers, for each of its bars."""
    at = first_at(course, bars)
    ends = at < table.there.shape[1]
    place = np.minimum(at, table.there.shape[1] - 1)
    rows = np.arange(len(table.length))
    end = table.tokens[rows, place] + table.trial_tokens[rows, place]
    probes = _before(table, course.asked)[rows, at]
    if course.by_score:
        probes = probes + _in_vain(table, course, bars, at)
    lost = ends & table.loses[rows, place]
    tokens = np.where(ends, end, table.length)
    return Outcome(at, ends, np.zeros_like(ends), tokens, probes, lost)


class Ahead(NamedTuple):
    """What a rule for settled answers does alone: where each run ends, where it asks for trials."""

    at: Array
    asked: Array

    @classmethod
    def of(cls, table: Table, rule: StopRule | None) -> Ahead:
        rows, wide = table.there.shape
        if rule is None:
            return cls(np.full(rows, wide), np.zeros((rows, wide), bool))
        course, bar = course_of(table, rule), bar_of(rule)
        at = first_at(course, np.array([bar]))[0]
        return cls(at, course.almost >= bar if course.by_score else course.asked)


def give_up(table: Table, course: Course, bars: Array, ahead: Ahead) -> Outcome:
    """The runs under a rule for hopeless ones, for each of its bars, beside one for settled.

    A run that settles at a place is not given up there. `lost` counts those given up alone.
    """
    wide, rows = table.there.shape[1], np.arange(len(table.length))
    quits, done = first_at(course, bars), ahead.at
    gone, ends = quits < done, (done <= quits) & (done < wide)
    at = np.minimum(quits, done)
    place = np.minimum(at, wide - 1)
    here = table.tokens[rows, place]
    end = np.where(ends, here + table.trial_tokens[rows, place], table.length)
    probes = _before(table, course.asked | ahead.asked)[rows, at + gone]
    return Outcome(at, ends, gone, np.where(gone, here, end), probes, gone & table.quit_loses)


def _before(table: Table, asked: Array) -> Array:
    """(rows, columns + 1): what the trials asked for before each column take."""
    total = np.cumsum(asked * table.trial_tokens, axis=1)
    return np.hstack([np.zeros((len(total), 1)), total])


def _in_vain(table: Table, course: Course, bars: Array, at: Array) -> Array:
    """(bars, rows): what trials without an answer took before the end."""
    empty = (table.answers < 0) & table.there & np.isfinite(course.almost)
    columns = np.flatnonzero(empty.any(0))
    out = np.zeros(at.shape)
    for column in columns:
        asked = empty[:, column] & (course.almost[:, column] >= bars[:, None]) & (column < at)
        out += asked * table.trial_tokens[:, column]
    return out
