"""What recovery gives bitcal-tiny on fresh questions: norm gains alone, with nothing else changed.

`python tests/benchmarks/recovery.py --repair data-free` prints what the gate said of
held-out questions, and then accuracy, Brier, ECE and AUROC of the raw confidence on as many fresh
questions as asked for. With `--keep DIR` a cut run goes on, and several settings share what the
unquantized model said.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitcal_integrations import load, metrics
from bitcal_integrations.recovery import Recovery, recover_model
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.answers import MAX_NEW_TOKENS, PARSER

SCORES = ("brier", "ece", "auroc")


def scored(model: Any, questions: int, seed: int, keep: Path) -> str:
    """Accuracy of all answers, and scores of the raw confidence of those that have one."""
    rows = measure.ask(model, measure.draw("test", questions, seed), keep, None)
    known = [r for r in rows if r.confidence.raw is not None]
    p = np.array([r.confidence.raw for r in known], dtype=float)
    y = np.array([bool(r.correct) for r in known], dtype=float)
    found = metrics.summary(p, y)
    right = float(np.mean([bool(r.correct) for r in rows]))
    numbers = "  ".join(f"{name} {found[name]:.4f}" for name in SCORES)
    return f"right {right:.3f}  {numbers}  without a confidence {len(rows) - len(known)}"


def run(options: argparse.Namespace, keep: Path) -> None:
    name = f"{options.weights}-{options.repair}-{options.dtype}-{options.seed}"
    data = measure.draw("calibration", options.examples, options.seed)
    how = Recovery(**{"seed": options.seed, **json.loads(options.how)})
    with load(
        "bitcal-tiny",
        weights=options.weights,
        dtype=options.dtype,
        profile=None,
        max_batch=64,
        repair=None if options.repair == "none" else options.repair,
    ) as model:
        fresh = (options.questions, options.test_seed)
        if options.questions and not options.after_only:
            print(name, "before", scored(model, *fresh, keep / f"{name}-0.jsonl"), flush=True)
        started = time.process_time()
        found = recover_model(
            model,
            data,
            how=how,
            parser=PARSER,
            grader="tiny",
            max_new_tokens=MAX_NEW_TOKENS,
            parts=(0.55, 0.45),
            keep=keep,
        )
        print(name, found, f"{time.process_time() - started:.0f} s of CPU", flush=True)
        print(name, json.dumps(found.to_dict()), flush=True)
        if options.questions and found.kept:
            print(name, "after", scored(model, *fresh, keep / f"{name}-1.jsonl"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="qint2")
    parser.add_argument("--repair", default="none")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--examples", type=int, default=880)
    parser.add_argument("--questions", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-seed", type=int, default=77)
    parser.add_argument("--how", default="{}", help="settings of Recovery as JSON")
    parser.add_argument("--after-only", action="store_true")
    parser.add_argument("--keep", default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.keep is not None:
        Path(options.keep).mkdir(parents=True, exist_ok=True)
        return run(options, Path(options.keep))
    with tempfile.TemporaryDirectory() as folder:
        return run(options, Path(folder))


if __name__ == "__main__":
    main()
