"""A simulated model for tests of early stops: its answer settles somewhere, and its scores know."""

from __future__ import annotations

import math
from random import Random

from bitcal_integrations.bench.stops import Case
from bitcal_integrations.decide.stop import Checkpoint, LoggedRun, Trial


def simulated(n: int, seed: int = 0, labels: bool = True) -> list[Case]:
    """Runs of 90 tokens with eight checkpoints, two of a group; four in five come out right."""
    return [Case(_run(i, Random(f"{seed} {i}"), labels)) for i in range(n)]


def _run(i: int, rng: Random, labels: bool) -> LoggedRun:
    settles, right, places, good = rng.randint(1, 8), rng.random() < 0.8, [], []
    for at in range(8):
        done = at >= settles
        sure = 1 / (1 + math.exp(-rng.gauss(3 if done else -2, 1.2)))
        answer = "4" if done else str(rng.randint(10, 99))
        free = {"logprob": rng.gauss(-0.1 if done else -0.5, 0.2), "tokens": 10.0 * (at + 1)}
        trial = Trial(answer, {"trial_probability": sure}, 4)
        places.append(Checkpoint(10 * (at + 1), free, trial))
        good.append((right and done) if labels else None)
    return LoggedRun(
        tuple(places), 90, "4", right if labels else None, tuple(good), id=str(i), group=str(i // 2)
    )
