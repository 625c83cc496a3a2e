"""Scores that know nothing, on runs that are otherwise as they were logged: negative controls.

Answers and what is right stay where they are. A rule that is certified on such runs could only have
been lucky, or have used the place of a checkpoint alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random

from bitcal_integrations.decide.stop import Checkpoint, LoggedRun

PLACES = ("tokens", "lines")  # they tell the place of a checkpoint, not the state of a run


def names_of(runs: Sequence[LoggedRun]) -> list[str]:
    """The scores of these runs that a control may use.

    Agreement of trial answers is not among them: it is read off the answers, which stay.
    """
    found: dict[str, None] = {}
    for run in runs:
        for place in run.checkpoints:
            found |= dict.fromkeys((*place.scores, *(place.trial.scores if place.trial else ())))
    return [name for name in found if name not in PLACES]


def shuffled(runs: Sequence[LoggedRun], seed: int = 0) -> list[LoggedRun]:
    """Every checkpoint with the scores of another one, drawn at random among all runs."""
    places = [place for run in runs for place in run.checkpoints]
    order = list(range(len(places)))
    Random(seed).shuffle(order)
    taken = iter(order)
    return [_with(run, [_given(p, places[next(taken)]) for p in run.checkpoints]) for run in runs]


def constant(runs: Sequence[LoggedRun], seed: int = 0) -> list[LoggedRun]:
    """Every score the same everywhere."""
    return [_with(run, [_level(place) for place in run.checkpoints]) for run in runs]


CONTROLS: dict[str, Callable[[Sequence[LoggedRun], int], list[LoggedRun]]] = {
    "shuffled": shuffled,
    "constant": constant,
}


def _with(run: LoggedRun, places: Sequence[Checkpoint]) -> LoggedRun:
    return replace(run, checkpoints=tuple(places))


def _given(place: Checkpoint, other: Checkpoint) -> Checkpoint:
    trial = place.trial
    if trial is not None:
        trial = replace(trial, scores=other.trial.scores if other.trial else {})
    return replace(place, scores=other.scores, trial=trial)


def _level(place: Checkpoint) -> Checkpoint:
    def same(scores: Mapping[str, float]) -> dict[str, float]:
        return dict.fromkeys(scores, 0.0)

    trial = replace(place.trial, scores=same(place.trial.scores)) if place.trial else None
    return replace(place, scores=same(place.scores), trial=trial)
