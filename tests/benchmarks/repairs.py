"""What each step of a repair gives bitcal-tiny on fresh questions, and what it costs.

`python tests/benchmarks/repairs.py --questions 1500` prints a line per combination of steps; the
unquantized model and quanto's own weights come first, and the shares taken back are of what lies
between these two.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitcal_integrations import load, metrics
from bitcal_integrations.quantize._repair import STEPS
from bitcal_integrations.repair import Repair
from bitcal_integrations.tiny import measure

DEFAULT = "none,plain,clip,fold,round,fold+clip,fold+clip+round,fold+clip+align"
SCORES = {"Brier back": "brier", "AUROC back": "auroc", "in tasks": "inside", "ECE back": "ece"}


def loaded(name: str, weights: str, dtype: str) -> tuple[Any, float]:
    """A model under one setting, and the seconds that its loading took."""
    steps = tuple(step for step in STEPS if step in name.split("+"))
    started = time.perf_counter()
    model = load(
        "bitcal-tiny",
        weights=None if name == "none" else weights,
        dtype=dtype,
        profile=None,
        max_batch=128,
        repair=Repair(steps) if steps else None,
    )
    return model, time.perf_counter() - started


def scored(model: Any, questions: int, seed: int) -> dict[str, float]:
    """Accuracy, and Brier, ECE and AUROC of the raw confidence; `inside`: mean AUROC of a task."""
    with tempfile.TemporaryDirectory() as folder:
        asked = measure.draw("test", questions, seed)
        rows = measure.ask(model, asked, Path(folder) / "answers.jsonl", None)
    known = [r for r in rows if r.confidence.raw is not None]
    p = np.array([r.confidence.raw for r in known], dtype=float)
    y = np.array([bool(r.correct) for r in known], dtype=float)
    found = metrics.summary(p, y)
    tasks = np.array([r.by["task"] for r in known])
    inside = [metrics.summary(p[tasks == t], y[tasks == t])["auroc"] for t in sorted(set(tasks))]
    right = float(np.mean([bool(r.correct) for r in rows]))
    scores = {k: found[k] for k in ("brier", "ece", "auroc")}
    return {"accuracy": right, **scores, "inside": float(np.mean(inside))}


def taken_back(found: dict[str, float], kept: dict[str, dict[str, float]], name: str) -> str:
    """The share of a loss that is undone, in percent."""
    if "none" not in kept or "plain" not in kept:
        return ""
    lost = kept["plain"][name] - kept["none"][name]
    return f"{100 * (kept['plain'][name] - found[name]) / lost:4.0f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--weights", default="qint2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", default=DEFAULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'steps':22}{'accuracy':>9}" + "".join(f"{name:>14}" for name in SCORES) + "  loading")
    kept: dict[str, dict[str, float]] = {}
    for name in options.steps.split(","):
        model, seconds = loaded(name, options.weights, options.dtype)
        with model:
            found = kept[name] = scored(model, options.questions, options.seed)
        columns = "".join(
            f"{found[score]:8.4f}{taken_back(found, kept, score):>6}" for score in SCORES.values()
        )
        print(f"{name:22}{found['accuracy']:9.3f}{columns}{seconds:7.0f} s", flush=True)


if __name__ == "__main__":
    main()
