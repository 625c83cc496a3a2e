"""Chosen types per layer of bitcal-tiny against random plans of the same size, on fresh questions.

`python tests/benchmarks/plan_bits.py --questions 300` chooses by each objective on training
questions, then prints KL to the unquantized answers, and Brier score, AUROC and accuracy of answers
that are asked for, for each plan; and how far the random plans' mean is behind, in standard errors
over the random plans and over the questions.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bitcal_integrations import load, metrics
from bitcal_integrations.answered import gold_of
from bitcal_integrations.bits import BitPlan, choose_bits
from bitcal_integrations.canary import answer_of
from bitcal_integrations.grading import as_grader
from bitcal_integrations.quantize._layer_bytes import layer_bytes, linear_layers
from bitcal_integrations.quantize.forced import Divergence, Text
from bitcal_integrations.quantize.plan_bits import quantized
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.answers import MAX_NEW_TOKENS, PARSER

Plan = Mapping[str, "str | None"]
ASKING: dict[str, Any] = {"parser": PARSER, "max_new_tokens": MAX_NEW_TOKENS}


@dataclass(frozen=True)
class Found:
    """One plan on fresh questions: KL in nats per token, and a squared error per question."""

    kl: float
    squares: np.ndarray
    auroc: float
    accuracy: float

    @property
    def brier(self) -> float:
        return float(self.squares.mean())


@contextmanager
def rounded(model: Any, plan: Plan) -> Iterator[None]:
    """The float model with the weights that come back from the plan's types: the same in float32
    as quantized layers, and several times as fast."""
    layers = linear_layers(model, "*lm_head")
    with quantized(model, plan), torch.no_grad():
        weights = {n: model.get_submodule(n).weight.dequantize() for n, k in plan.items() if k}
    floats = {name: layers[name].weight.data for name in weights}
    try:
        for name, weight in weights.items():
            layers[name].weight.data = weight
        yield
    finally:
        for name, weight in floats.items():
            layers[name].weight.data = weight


def random_plan(model: Any, room: int, kinds: list[str | None], seed: int) -> Plan:
    """All layers in the first type; then one that is drawn gets its next type, while it fits."""
    draw, layers = random.Random(seed), linear_layers(model, "*lm_head")
    sizes = {n: [layer_bytes(layer, kind) for kind in kinds] for n, layer in layers.items()}
    at, waiting = dict.fromkeys(layers, 0), list(layers)
    size = sum(mine[0] for mine in sizes.values())
    while waiting:
        name = draw.choice(waiting)
        step = sizes[name][at[name] + 1] - sizes[name][at[name]]
        fits = size + step <= room
        if fits:
            at[name], size = at[name] + 1, size + step
        if not fits or at[name] == len(kinds) - 1:
            waiting.remove(name)
    return {name: kinds[i] for name, i in at.items()}


def scored(model: Any, plan: Plan, asked: list[Any], kl: Divergence) -> Found:
    grade = as_grader("tiny")
    with rounded(model._loaded.model, plan):
        moved = kl(model._loaded.model)
        records = model.ask([e.prompt for e in asked], **ASKING)
    right = [
        grade(answer_of(r), gold_of(e.gold, PARSER)) for r, e in zip(records, asked, strict=True)
    ]
    y = np.array(right, dtype=float)
    p = np.array([r.confidence.raw for r in records], dtype=float)
    return Found(moved, (p - y) ** 2, metrics.summary(p, y)["auroc"], float(y.mean()))


def texts(model: Any, asked: list[Any]) -> list[Text]:
    """The answers to fresh questions as texts."""
    from bitcal_integrations.bits import _Texts
    from bitcal_integrations.quantize._kept_scores import KeptScores

    return _Texts(model, "kl", as_grader("tiny"), ASKING, None).of(asked, KeptScores(None, {}))


def line(name: str, found: Found, note: str = "") -> None:
    numbers = f"{found.kl:9.4f}{found.brier:9.4f}{found.auroc:9.4f}{found.accuracy:9.3f}"
    print(f"{name:20}{numbers}  {note}", flush=True)


def behind(found: Found, others: list[Found]) -> str:
    """By how much the mean of the random plans is worse, in standard errors."""
    parts = []
    for name in ("kl", "brier"):
        values = np.array([getattr(o, name) for o in others])
        error = values.std(ddof=1) / np.sqrt(len(values))
        parts.append(f"{name} {(values.mean() - getattr(found, name)) / error:.1f}")
    apart = np.mean([o.squares for o in others], 0) - found.squares
    parts.append(
        f"brier by question {apart.mean() / (apart.std(ddof=1) / np.sqrt(len(apart))):.1f}"
    )
    return "behind, in standard errors: " + ", ".join(parts)


def plans(model: Any, known: list[Any], options: Any) -> Iterator[tuple[str, BitPlan, float]]:
    """A plan by each objective, with the CPU seconds that it took."""
    for name in options.objectives.split(","):
        started = time.process_time()
        plan = choose_bits(
            model, None if name == "own" else known, budget=options.budget,
            objective="brier" if name == "brier" else "kl", prompts=options.prompts,
            grader="tiny", **ASKING,
        )  # fmt: skip
        yield name, plan, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--random", type=int, default=20)
    parser.add_argument("--random-types", default="qint2,qint4", help="add qint8,none for more")
    parser.add_argument("--budget", default="3 bits")
    parser.add_argument("--objectives", default="kl,brier,own", help="own: kl, without prompts")
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    torch.set_num_threads(1)
    fresh = measure.draw("test", options.questions, options.seed)
    known = measure.draw("train", 4 * options.prompts, options.seed)
    print(f"{'types':20}{'KL':>9}{'Brier':>9}{'AUROC':>9}{'accuracy':>9}")
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None, max_batch=128) as model:
        kl = Divergence(model._loaded.model, texts(model, fresh))
        layers = linear_layers(model._loaded.model, "*lm_head")
        line("unquantized", scored(model, {}, fresh, kl))
        for kind in ("qint2", "qint4"):
            line(kind, scored(model, dict.fromkeys(layers, kind), fresh, kl))
        chosen: dict[str, Found] = {}
        room = 0
        for name, plan, seconds in plans(model, known, options):
            chosen[name], room = scored(model, plan.plan, fresh, kl), plan.budget
            used = 8 * plan.bytes / sum(x.weight.numel() for x in layers.values())
            note = f"{used:.2f} bits, {len(plan.swaps)} exchanges, {seconds:.0f} s of CPU, score "
            line(
                f"chosen by {name}",
                chosen[name],
                f"{note}{plan.predicted:.4f} -> {plan.measured:.4f}",
            )
        others = []
        kinds = [None if k == "none" else k for k in options.random_types.split(",")]
        for seed in range(options.random):
            plan_of_chance = random_plan(model._loaded.model, room, kinds, seed)
            others.append(scored(model, plan_of_chance, fresh, kl))
            line(f"random {seed}", others[-1])
        for name, found in chosen.items() if len(others) > 1 else ():
            print(f"chosen by {name}: random plans are {behind(found, others)}", flush=True)


if __name__ == "__main__":
    main()
