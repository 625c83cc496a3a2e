"""Simulated logged runs for tests of certified stops: the answer stands from some checkpoint on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from bitcal_integrations.decide.logged import Checkpoint, LoggedRun, Trial

PROBE = 4  # tokens of a trial answer


def runs(
    n: int,
    seed: int,
    *,
    right: float = 0.8,
    steps: tuple[int, int] = (4, 9),
    noise: float = 1.0,
    gaps: float = 0.0,
) -> list[LoggedRun]:
    """Runs of `steps` checkpoints, a share `right` of which come right.

    The scores of text and trial rise, with `noise`, where the answer has come to stand; "hope" is
    higher in runs that come right. A share `gaps` of scores, answers and verdicts is missing.
    """
    rng = np.random.default_rng(seed)
    return [_run(rng, f"{seed}-{i}", right, steps, noise, gaps) for i in range(n)]


def _run(
    rng: Any, name: str, right: float, steps: tuple[int, int], noise: float, gaps: float
) -> LoggedRun:
    count, tokens = int(rng.integers(*steps)), 0
    stands, good = int(rng.integers(count)), bool(rng.random() < right)
    places, verdicts = [], list[bool | None]()
    for at in range(count):
        tokens += int(rng.integers(8, 16))
        ahead = 2.0 if at >= stands else -2.0
        answer = "a" if at >= stands else f"w{rng.integers(4)}"
        z, spread = ahead + noise * rng.normal(), noise * rng.normal()
        scores = {
            "logprob": 0.2 * z + 0.3 * rng.normal(),
            "entropy": rng.normal(),
            "hope": (1.5 if good else -1.5) + rng.normal(),
        }
        trial = {"trial_probability": 1 / (1 + math.exp(-z)), "trial_margin": ahead + spread}
        missing = rng.random(4) < gaps
        if missing[0]:
            del scores["logprob"]
        if missing[1]:
            scores["entropy"] = math.nan
        found = Trial(None if missing[2] else answer, _plain(trial), PROBE)
        places.append(Checkpoint(tokens, _plain(scores), found))
        verdict = (good if at >= stands else bool(rng.random() < 0.02)) and not missing[2]
        verdicts.append(None if missing[3] and at < stands else verdict)
    end = tokens + int(rng.integers(8, 24))
    return LoggedRun(tuple(places), end, "a", good, tuple(verdicts), id=name)


def _plain(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items()}


def with_scores(logged: Sequence[LoggedRun], seed: int | None) -> list[LoggedRun]:
    """The same runs with the scores of checkpoints drawn by chance; for None all the same."""
    places = [place for run in logged for place in run.checkpoints]
    order = np.zeros(len(places), int)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(places))
    others = iter([places[i] for i in order])
    return [
        replace(run, checkpoints=tuple(_as(p, next(others)) for p in run.checkpoints))
        for run in logged
    ]


def _as(place: Checkpoint, other: Checkpoint) -> Checkpoint:
    assert place.trial is not None
    assert other.trial is not None
    trial = replace(place.trial, scores=other.trial.scores)
    return replace(place, scores=other.scores, trial=trial)
