"""Drift on recorded runs of real 4-bit models: another data set and another checkpoint are seen.

Skipped where the runs do not lie beside the checkout; tests/benchmarks/drift.py plays all of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.monitor._evidence import LARGE, SMALL, ScoreTest

RUNS = Path(__file__).parents[3] / "shared" / "data" / "quantized_runs"
pytestmark = pytest.mark.skipif(not RUNS.is_dir(), reason="the recorded runs are not here")
FITTED, NEEDED = 1000, 100.0


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(RUNS / f"{name}.npz") as data:
        x = np.column_stack([data["confidence"].astype(float), data["entropy"].astype(float)])
        return x, data["correct"].astype(float)


def play(measured: str, met: str, most: int, warm: int = 0) -> tuple[ScoreTest, int]:
    """A profile of one run that meets another, and after how many answers it is on the watch."""
    rng, (x, y), (other, _) = np.random.default_rng(3), load(measured), load(met)
    order = rng.permutation(len(y))
    test = ScoreTest(fit_calibrator(x[order[:FITTED]], y[order[:FITTED]], method="logistic"), 0.01)
    for row in x[order[FITTED : FITTED + warm]]:
        test.see(row)
    assert (test.bets.most < NEEDED).all()
    for step, row in enumerate(other[rng.permutation(len(other))[:most]], 1):
        test.see(row)
        if test.bets.most[SMALL] >= NEEDED:
            return test, step
    return test, most + 1


@pytest.mark.parametrize("model", ["llama1-7b", "mistral-7b"])
@pytest.mark.parametrize("pair", [("triviaqa", "hellaswag"), ("hellaswag", "triviaqa")])
def test_another_data_set_is_caught_within_300(model: str, pair: tuple[str, str]) -> None:
    mine, theirs = (f"{model}__nf4__4__{task}" for task in pair)
    test, step = play(mine, theirs, 300, warm=1000)
    assert step <= 100
    for row in load(theirs)[0][:200]:
        test.see(row)
    assert test.bets.most[LARGE] >= NEEDED  # and it is not only watched


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        ("llama1-7b__nf4__4__hellaswag", "mistral-7b__nf4__4__hellaswag"),
        ("llama1-7b__nf4__4__triviaqa", "llama1-7b__nf4-kd-T4__4__triviaqa"),
        ("mistral-7b__nf4__4__hellaswag", "mistral-7b__nf4-kd-T1__4__hellaswag"),
        ("llama1-7b__nf4__4__triviaqa", "llama1-7b__gptq__4__triviaqa"),
    ],
)
def test_another_checkpoint_is_caught_within_2000(measured: str, met: str) -> None:
    assert play(measured, met, 2000)[1] <= 2000


def test_the_rest_of_a_run_is_no_drift() -> None:
    name = "llama1-7b__awq__4__triviaqa"
    test, _ = play(name, name, 2000)
    assert (test.bets.most < NEEDED).all()
