"""What a probe of hidden states adds to bitcal-tiny's confidence, per weight type.

`python tests/benchmarks/probe.py --questions 4000` prints Brier score and AUROC on questions that
nothing was fitted on: of the free features, of them with the probe, and of the probe alone, all on
the same labels; and the mean gain with its standard error over questions. Each split into fit and
test halves keeps together all answers to one question, and all questions about one country.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bitcal_integrations import load, metrics
from bitcal_integrations.answered import answer_all
from bitcal_integrations.dataset import Example, split
from bitcal_integrations.features import DEFAULT_FEATURES, PROBE, make_schema, with_probe
from bitcal_integrations.fitted import FitOptions, Fitted, fit_rows, usable
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.countries import countries
from bitcal_integrations.types import Labelled

NAMES = {
    "free features": DEFAULT_FEATURES,
    "with probe": (*DEFAULT_FEATURES, PROBE),
    "probe alone": (PROBE,),
}


def answers(weights: str, options: argparse.Namespace, keep: Path) -> list[Labelled]:
    """Judged answers with their hidden states."""
    asked = measure.draw("test", options.questions, options.seed)
    with load(
        "bitcal-tiny", weights=None if weights == "none" else weights, dtype=options.dtype,
        profile=None, max_batch=128,
    ) as model:  # fmt: skip
        layer = model.request_of("", hidden_layer=options.layer).hidden_layer
        schema = make_schema(NAMES["with probe"], layer=layer)
        return answer_all(model, asked, replace(measure.asking(), schema=schema), keep)


def apart(row: Labelled) -> Labelled:
    """A row in the group of what it asks about: all questions on one country are in one half.

    A fact is asked in several wordings, and its state says which fact it is.
    """
    last = row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"]
    if row.by["task"] != "facts":
        return row
    named = [country["name"] for country in countries() if country["name"] in last]
    return replace(row, group=max(named, key=len)) if named else row


def layer_of(rows: Sequence[Labelled]) -> int:
    return next(int(row.hidden["layer"]) for row in rows if row.hidden)


def tested(rows: Sequence[Labelled], fitted: Fitted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, verdicts and questions of the test half."""
    schema = fitted.schema
    assert schema is not None
    scored = [
        replace(r, confidence=replace(
            r.confidence, signals=with_probe(r.confidence.signals, r.hidden, schema)
        ))
        for r in rows
    ]  # fmt: skip
    part = usable(scored, schema, "report")
    return fitted.calibrator(part.x), part.y, part.groups


def compared(rows: Sequence[Labelled], splits: int, method: str) -> None:
    """Print the mean over the splits of each setting's scores, and its gain."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in NAMES}
    layer = layer_of(rows)
    for seed in range(splits):
        place = split([Example(r.id, r.group, r.prompt) for r in rows], (0.5, 0.0, 0.5), seed)
        placed = [replace(r, part=place[r.id]) for r in rows]
        base: np.ndarray | None = None
        for name, features in NAMES.items():
            schema = make_schema(features, layer=layer if PROBE in features else None)
            fitted = fit_rows(placed, schema, FitOptions(method, seed=seed))
            p, y, groups = tested(placed, fitted)
            loss = (p - y) ** 2
            base = loss if base is None else base
            sums = np.bincount(metrics.group_numbers(groups, len(groups)), weights=base - loss)
            error = float(np.sqrt((sums**2).sum())) / len(loss)
            gain = float(sums.sum()) / len(loss)
            found[name].append((metrics.brier(p, y), metrics.auroc(p, y), gain, error))
            if name == "with probe" and fitted.schema and fitted.schema.probe:
                how = fitted.calibrator.method
                print(f"    split {seed}, {how}: {fitted.schema.probe.reason}", flush=True)
    for name, scores in found.items():
        brier, auroc, gain, error = np.mean(scores, axis=0)
        print(f"  {name:14} Brier {brier:.4f}  AUROC {auroc:.4f}  gain {gain:+.4f} +- {error:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=4000)
    parser.add_argument("--weights", default="none,qint4,qint2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--layer", type=int, default=0, help="0: the usual one")
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--method", default="auto", help="the calibrator of all settings")
    parser.add_argument("--splits", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="a folder for the answers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for weights in options.weights.split(","):
            keep = (options.keep or Path(folder)) / f"{weights}-{options.layer}.jsonl"
            rows = answers(weights, options, keep)
            right = np.mean([bool(r.correct) for r in rows])
            print(f"{weights}: {len(rows)} answers, {right:.3f} right, layer {layer_of(rows)}")
            compared([apart(row) for row in rows], options.splits, options.method)


if __name__ == "__main__":
    main()
