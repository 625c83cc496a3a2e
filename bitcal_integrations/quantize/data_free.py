"""Quantizes a float model with everything that betters its weights without data, in this order:
fold (fold.py), clipped scales (clip.py), paired rounding (round.py), alignment (align.py).

Fold and paired rounding act on value and output layers, alignment on all layers below 8 bits; where
one does not lower the error, the plain way stays. What a model does not allow is left out, and the
report says so. Knows weights, and token sequences that the model makes up; whether answers get
better is measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from optimum.quanto import qtypes

from bitcal_integrations.quantize import align, clip, fold
from bitcal_integrations.quantize import round as pairs_round
from bitcal_integrations.quantize._build import release_memory
from bitcal_integrations.quantize._kept_layers import KeptLayers, Tensors
from bitcal_integrations.quantize._pairs import Pair
from bitcal_integrations.quantize._plan import group_size, quantize_linear
from bitcal_integrations.quantize._repair import STEPS, Repair

LOW = ("qint4", "qint2")
LARGE = "no layer that it works on has less than 8 bits"
Progress = Callable[[int, int, str], None]
Sides = Sequence[torch.Tensor]  # scale and shift; the scale alone at 8 bits


@torch.no_grad()
def quantize_repaired(
    model: Any, kinds: dict[str, str], repair: Repair, progress: Progress | None = None
) -> dict[str, Any]:
    """Put frozen layers of these types in the place of float ones; the report.

    `fold` and `round` are {attention module: [error before, error after] or why it was left out},
    `clip` {layer: [squared error on quanto's own grid, on this one]}, relative to the weights,
    `align` {layer: [squared error of what it gives, rounded plainly, and so]}. Where a step has
    nothing to work on, it is {"": why}.
    """
    work = _Work(model, kinds, repair, KeptLayers(repair.keep), progress)
    work.run()
    return work.report


@dataclass
class _Work:
    model: Any
    kinds: dict[str, str]
    repair: Repair
    kept: KeptLayers
    progress: Progress | None
    report: dict[str, Any] = field(default_factory=lambda: {s: {} for s in STEPS})
    grids: dict[str, Sides] = field(default_factory=dict)  # of weights that lie on them
    done: int = 0
    total: int = 0

    def run(self) -> None:
        steps = self.repair.steps
        pairs = self._pairs()
        rounds = [p for p in pairs if self._low(p, all)] if "round" in steps else []
        low = {name for name, kind in self.kinds.items() if kind in LOW}
        extra = (len(pairs) if "fold" in steps else 0) + (len(low) if "align" in steps else 0)
        self.total = len(self.kinds) + len(rounds) + extra
        for pair in pairs if "fold" in steps else ():
            self._fold(pair)
            self._tell(f"fold {pair.name}")
        for pair in rounds:
            self._round(pair)
            self._tell(f"round {pair.name}")
        if "align" in steps:
            self._align(low - set(self.grids))
            self._note("align", LARGE)
        for name, kind in self.kinds.items():
            grid = self.grids[name] if name in self.grids else self._grid(name)
            quantize_linear(self.model, name, kind, clip.given(grid))
            release_memory()
            self._tell(f"freeze {name}")

    def _align(self, names: set[str]) -> None:
        try:
            align.align(self.model, names, self._aligned, self.repair.seed)
        except align.NotAlignable as reason:
            self.report["align"] = dict.fromkeys(sorted(names), str(reason))

    def _aligned(self, name: str, target: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        """The better of plain and compensated rounding, for what a layer should give."""
        weight, kind = self.model.get_submodule(name).weight.data, self.kinds[name]
        sides, bits = self._grid(name), qtypes[kind].bits

        def rounded() -> Tensors:
            wide = [_wide(side, weight.shape) for side in sides]
            made = pairs_round.compensate(target, gram, pairs_round.grid(wide, bits))
            return {"weight": made.to(weight.dtype)}

        basis = (target, gram, kind, *sides)
        made = self.kept.get("align", name, basis, rounded)["weight"].to(weight.device)
        rows = weight.reshape(sides[0].shape[0], -1)
        plain = clip.on_its_grid(rows, sides, bits).reshape(weight.shape)
        size = pairs_round.cost(target, torch.zeros_like(target), gram)
        errors = [pairs_round.cost(target, w.float(), gram) / size for w in (plain, made)]
        self.report["align"][name] = errors
        self.grids[name] = sides
        self._tell(f"align {name}")
        return made if errors[1] < errors[0] else plain

    def _pairs(self) -> list[Pair]:
        """The pairs that a step works on."""
        if not {"fold", "round"} & set(self.repair.steps):
            return []
        found, skipped = fold.foldable(self.model)
        some = [p for p in found if self._low(p, any)]
        for step in {"fold", "round"} & set(self.repair.steps):
            self.report[step].update(skipped)
            if not some:
                self._note(step, LARGE if found else "there are no value and output layers to pair")
        return some

    def _note(self, step: str, why: str) -> None:
        """Say why a step that has said nothing does nothing."""
        self.report[step] = self.report[step] or {"": why}

    def _low(self, pair: Pair, how: Callable[[Sequence[bool]], bool]) -> bool:
        return how([self.kinds.get(n) in LOW for n in (pair.value_name, pair.output_name)])

    def _tell(self, label: str, steps: int = 1) -> None:
        self.done += steps
        if self.progress is not None:
            self.progress(self.done, self.total, label)

    def _fold(self, pair: Pair) -> None:
        """Learn and fold; undo it if the two layers do not round better together."""
        v, o = pair.value.weight.data, pair.output.weight.data
        bias = None if pair.value.bias is None else pair.value.bias.data
        settings = (self.repair.seed, self.repair.fold_steps)

        def learned() -> Tensors:
            found = fold.learn_fold(pair, seed=settings[0], steps=settings[1])
            return {"matrices": found.matrices}

        found = self.kept.get("fold", pair.name, (v, o, settings), learned)
        before = self._pair_error(pair)
        fold.fold(pair, found["matrices"])
        after = self._pair_error(pair)
        if after >= before:
            pair.value.weight.data, pair.output.weight.data = v, o
            if bias is not None:
                pair.value.bias.data = bias
        self.report["fold"][pair.name] = [before, min(before, after)]

    def _pair_error(self, pair: Pair) -> float:
        """The relative squared rounding error of the pair's quantized layers."""
        names = [n for n in (pair.value_name, pair.output_name) if self.kinds.get(n) in LOW]
        return sum(self._error(n, self._searched(n)) for n in names)

    def _error(self, name: str, sides: Sides) -> float:
        """The squared error of a layer on this grid, relative to its weights."""
        weight = self.model.get_submodule(name).weight.data
        rows = weight.reshape(sides[0].shape[0], -1)
        found = clip.on_its_grid(rows, sides, qtypes[self.kinds[name]].bits)
        w = rows.float()
        return float((found.float() - w).square().sum() / w.square().sum().clamp_min(1e-30))

    def _searched(self, name: str, plain: bool = False) -> Sides:
        """The grid of a layer: clipped if that is a step, or quanto's own."""
        kind, weight = self.kinds[name], self.model.get_submodule(name).weight.data
        search = None if plain or "clip" not in self.repair.steps else clip.clip_optimizer(kind)
        kind_of, group = qtypes[kind], group_size(weight.shape[1])
        if search is None:
            return clip.sides_of(weight, clip.plain_optimizer(kind), kind_of, group)

        def searched() -> Tensors:
            found = clip.sides_of(weight, search, kind_of, group)
            return dict(zip(("scale", "shift"), found, strict=False))

        found = self.kept.get("clip", name, (weight, kind), searched)
        return [found[side].to(weight.device) for side in ("scale", "shift") if side in found]

    def _grid(self, name: str) -> Sides:
        """The grid of a layer, with a note on how much nearer it is to the weights."""
        found = self._searched(name)
        if "clip" in self.repair.steps:
            grids = (self._searched(name, plain=True), found)
            self.report["clip"][name] = [self._error(name, grid) for grid in grids]
        return found

    def _round(self, pair: Pair) -> None:
        """Put both layers of a pair on their grids, rounded for each other."""
        grids = {n: self._grid(n) for n in (pair.value_name, pair.output_name)}
        v, o = pair.value.weight.data, pair.output.weight.data
        kinds = [self.kinds[n] for n in grids]

        def rounded() -> Tensors:
            return _rounded(pair, kinds, list(grids.values()))

        basis = (v, o, kinds, *(side for sides in grids.values() for side in sides))
        found = self.kept.get("round", pair.name, basis, rounded)
        self.report["round"][pair.name] = found["errors"].tolist()
        pair.value.weight.data = found["value"].to(v.device)
        pair.output.weight.data = found["output"].to(o.device)
        self.grids.update(grids)


def _rounded(pair: Pair, kinds: Sequence[str], grids: Sequence[Sides]) -> Tensors:
    """Both weights of a pair on their grids, and the error before and after."""
    v, o = pair.value.weight.data, pair.output.weight.data
    v_wide = [pair.values(_wide(side, v.shape)).mT for side in grids[0]]
    o_wide = [pair.outputs(_wide(side, o.shape)) for side in grids[1]]
    v_grid, o_grid = (
        pairs_round.grid(wide, qtypes[kind].bits)
        for wide, kind in zip((v_wide, o_wide), kinds, strict=True)
    )
    values, outputs, errors = pairs_round.paired_round(
        pair.values(v).float(), pair.outputs(o).float(), v_grid, o_grid
    )
    return {
        "value": pair.whole_value(v, values),
        "output": pair.whole_output(outputs).to(o.dtype),
        "errors": torch.tensor([errors[0], min(errors)]),
    }


def _wide(side: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A scale or shift for every weight, in float32."""
    return (
        side.float()
        .reshape(shape[0], -1)
        .repeat_interleave(shape[1] * shape[0] // side.numel(), dim=1)
    )
