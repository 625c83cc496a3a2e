"""Chooses a weight type for every linear layer under a memory budget.

Each layer is quantized alone in each type and scored; an exact knapsack finds the types that fit
and should cost least if losses add up. At few bits they add up to far more, so the plan is scored
as a whole, beside each single type that fits, and exchanges between layers are tried on the best.
Knows layers, bytes and a score to be lowered; what the score measures is the caller's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import nn

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize._kept_scores import KeptScores
from bitcal_integrations.quantize._knapsack import knapsack
from bitcal_integrations.quantize._layer_bytes import (
    Budget,
    budget_bytes,
    layer_bytes,
    linear_layers,
    takes,
)
from bitcal_integrations.quantize._plan import TYPES, Exclude
from bitcal_integrations.quantize._swapped import Optimizer, quantized

__all__ = ["OPTIONS", "BitPlan", "Budget", "choices", "plan_bits", "quantized"]

Kinds: TypeAlias = "Mapping[str, str | None]"
Score = Callable[[Any], float]
Progress = Callable[[int, int, str], None]

OPTIONS = ("qint2", "qint4", "qint8", None)
SWAPS = 20


@dataclass(frozen=True)
class BitPlan:
    """Weight types by layer, and the numbers they were chosen by; lower scores are better.

    `plan` is what `load(weights=...)` takes, None for a layer that stays float. `bytes` is what
    these layers take with scales and shifts, `float_bytes` what they took, `budget` what was
    allowed. `unquantized` is the score of the float model, `why` by how much each type raises it
    where one layer alone has it, `predicted` the sum of these, `measured` the score of the whole
    plan. `swaps` are the exchanges that were kept after the first plan, {layer: (from, to)}.
    """

    plan: dict[str, str | None]
    bytes: int
    float_bytes: int
    budget: int
    unquantized: float
    predicted: float
    measured: float
    swaps: tuple[dict[str, tuple[str | None, str | None]], ...]
    why: dict[str, dict[str, float]]


def plan_bits(
    model: Any,
    score: Score,
    *,
    budget: Budget,
    options: Sequence[str | None] = OPTIONS,
    exclude: Exclude = "*lm_head",
    swaps: int = SWAPS,
    optimizer: Optimizer | None = None,
    keep: str | os.PathLike[str] | KeptScores | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> BitPlan:
    """The weight types under which `score(model)` stays lowest, within the budget.

    `model` is a float model, which is as it was afterwards; `score` gives the same number for the
    same weights, and is called about once per layer and type. `budget` is a share of the bytes of
    its linear layers (0.35), bits per weight ("3 bits"), or bytes. At most `swaps` exchanges are
    scored in the end. `optimizer(type)` chooses the scales, quanto's own by default. `keep` names a
    file of what was scored, from which a cut run goes on; `about` says there what was scored.
    """
    sizes, room = choices(model, budget, options, exclude)
    if isinstance(swaps, bool) or not isinstance(swaps, int) or swaps < 0:
        raise BadRequest(f"swaps={swaps!r} must be a whole number from 0 up")
    kept = keep if isinstance(keep, KeptScores) else KeptScores(keep, about or {})
    search = _Search(model, score, sizes, room, swaps, optimizer, kept, progress)
    floats = sum(layer_bytes(model.get_submodule(name), None) for name in sizes)
    return search.run(floats)


def choices(
    model: Any, budget: Budget, options: Sequence[str | None], exclude: Exclude
) -> tuple[dict[str, dict[str | None, int]], int]:
    """The bytes of every layer in each type it can have, and how many are allowed in all."""
    layers = linear_layers(model, exclude)
    kinds = {name: [k for k in _checked(options) if takes(x, k)] for name, x in layers.items()}
    sizes = {n: {k: layer_bytes(layers[n], k) for k in ks} for n, ks in kinds.items()}
    return sizes, _room(budget, layers, sizes)


def _checked(options: Sequence[str | None]) -> list[str | None]:
    found: list[str | None] = [options] if isinstance(options, str) else list(options)
    found = list(dict.fromkeys(found))
    unknown = [kind for kind in found if kind is not None and kind not in TYPES]
    if unknown or not found:
        offender = unknown[0] if unknown else options
        raise BadRequest(
            f"options={offender!r} is no choice of weight types: use {', '.join(TYPES)}, None"
        )
    return found


def _room(budget: Budget, layers: Mapping[str, nn.Linear], sizes: Any) -> int:
    """The budget in bytes, if something fits into it."""
    none = [name for name, mine in sizes.items() if not mine]
    if none:
        raise BadRequest(f"the layer {none[0]!r} takes none of these weight types")
    room = budget_bytes(budget, layers)
    least = sum(min(mine.values()) for mine in sizes.values())
    if least > room:
        floats = sum(layer_bytes(layer, None) for layer in layers.values())
        weights = sum(layer.weight.numel() for layer in layers.values())
        share, bits = math.ceil(1e4 * least / floats) / 1e4, math.ceil(800 * least / weights) / 100
        raise BadRequest(
            f"budget={budget!r} is {room} bytes, and these layers take {least} bytes in the "
            f"smallest types allowed: the smallest budget is {share}, or '{bits} bits'"
        )
    return room


@dataclass
class _Search:
    model: Any
    score: Score
    sizes: dict[str, dict[str | None, int]]
    room: int
    swaps: int
    optimizer: Optimizer | None
    kept: KeptScores
    progress: Progress | None
    losses: dict[str, dict[str | None, float]] = field(default_factory=dict)
    done: int = 0
    total: int = 0

    def run(self, floats: int) -> BitPlan:
        singles = sum(kind is not None for mine in self.sizes.values() for kind in mine)
        uniform = self._uniform()
        self.total = singles + len(uniform) + 2 + self.swaps
        base = self._scored({}, "unquantized")
        why = self._alone(base)
        starts = [self._best(), *uniform]
        found = [(self._scored(plan, "whole plan"), at) for at, plan in enumerate(starts)]
        measured, at = min(found)
        plan, kept, measured = self._exchanged(starts[at], measured)
        predicted = base + sum(why[n][k] for n, k in plan.items() if k is not None)
        size = self._size(plan)
        return BitPlan(plan, size, floats, self.room, base, predicted, measured, tuple(kept), why)

    def _alone(self, base: float) -> dict[str, dict[str, float]]:
        """What each layer changes where all others are float."""
        why: dict[str, dict[str, float]] = {name: {} for name in self.sizes}
        for name, mine in self.sizes.items():
            for kind in mine:
                if kind is not None:
                    why[name][kind] = self._scored({name: kind}, f"{name} {kind}") - base
        self.losses = {
            name: {kind: 0.0 if kind is None else why[name][kind] for kind in mine}
            for name, mine in self.sizes.items()
        }
        return why

    def _scored(self, kinds: Kinds, label: str) -> float:
        """The score of the model with these layers quantized."""

        def measure() -> float:
            with quantized(self.model, kinds, self.optimizer):
                value = float(self.score(self.model))
            if not math.isfinite(value):
                raise BadRequest(f"the score is {value} ({label}): it must be a finite number")
            return value

        value: float = self.kept.get(_key(kinds), measure)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, label)
        return value

    def _size(self, plan: Kinds) -> int:
        return sum(self.sizes[name][kind] for name, kind in plan.items())

    def _best(self) -> dict[str, str | None]:
        """The plan that fits and should cost least."""
        kinds = {name: list(mine) for name, mine in self.sizes.items()}
        losses = [[self.losses[name][k] for k in mine] for name, mine in kinds.items()]
        chosen = knapsack([list(m.values()) for m in self.sizes.values()], losses, self.room)
        return {n: mine[at] for (n, mine), at in zip(kinds.items(), chosen, strict=True)}

    def _uniform(self) -> list[dict[str, str | None]]:
        """One type for all layers, for each that fits: no plan may be worse than that."""
        every = dict.fromkeys(k for mine in self.sizes.values() for k in mine if k is not None)
        plans: list[dict[str, str | None]] = [dict.fromkeys(self.sizes, k) for k in every]
        whole = [p for p in plans if all(k in self.sizes[n] for n, k in p.items())]
        return [plan for plan in whole if self._size(plan) <= self.room]

    def _exchanged(
        self, plan: dict[str, str | None], measured: float
    ) -> tuple[dict[str, str | None], list[Any], float]:
        """The plan after the exchanges that lowered its score, each tried once."""
        kept: list[Any] = []
        tried = {_key(plan)}
        for _ in range(self.swaps):
            new = next((n for n in self._neighbours(plan) if _key({**plan, **n}) not in tried), {})
            if not new:
                break
            label = "swap " + ", ".join(f"{name} {kind}" for name, kind in new.items())
            found = self._scored({**plan, **new}, label)
            tried.add(_key({**plan, **new}))
            if found < measured:
                kept.append({name: (plan[name], kind) for name, kind in new.items()})
                plan, measured = {**plan, **new}, found
        return plan, kept, measured

    def _neighbours(self, plan: dict[str, str | None]) -> list[dict[str, str | None]]:
        """More bytes for one layer, paid for by another if need be; what should cost least first.

        Such a change costs more if losses add up, which is what is being doubted.
        """
        spare = self.room - self._size(plan)
        more: list[tuple[float, int, str, str | None]] = []
        less: list[tuple[float, int, str, str | None]] = []
        for name, mine in self.sizes.items():
            for kind, size in mine.items():
                step = size - mine[plan[name]]
                loss = self.losses[name][kind] - self.losses[name][plan[name]]
                move = (loss, step, name, kind)
                (more if step > 0 else less if step < 0 else []).append(move)
        found = [(loss, {name: kind}) for loss, step, name, kind in more if step <= spare]
        found += [
            (up[0] + down[0], {up[2]: up[3], down[2]: down[3]})
            for up in more
            for down in less
            if up[2] != down[2] and up[1] + down[1] <= spare
        ]
        found.sort(key=lambda item: item[0])
        return [change for _, change in found]


def _key(kinds: Kinds) -> str:
    """Short and the same for the same types: where it is one layer, its name and type."""
    taken = {name: kind for name, kind in sorted(kinds.items()) if kind is not None}
    if len(taken) > 1:
        return "plan " + hashlib.sha256(json.dumps(taken).encode()).hexdigest()[:24]
    return " ".join(f"{name} {kind}" for name, kind in taken.items()) or "unquantized"
