"""Scales that cut off the few largest weights, so that the many others lie on a finer grid.

Two optimizers for quanto (`quantize(model, qint2, optimizer=ClipAffine())`, or `clip_optimizer`
for a weight type). Each group of weights gets the scale and the shift with the smallest squared
error of a search: ranges on a grid, then least squares for the codes found. Where nothing beats
quanto's own choice, that stays, so no group is ever worse. Knows weights only: no data, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from optimum.quanto import AbsmaxOptimizer, AffineOptimizer, MaxOptimizer, SymmetricOptimizer

KEPT = tuple(i / 20 for i in range(20, 4, -1))  # of the larger side of the range
SKEW = (0.0, -0.15, 0.15)  # by how much one side is cut less than the other
POLISH = 4  # rounds of least squares
CHUNK = 1 << 21  # weights looked at together: bounds the memory


def clip_optimizer(kind: str) -> AffineOptimizer | SymmetricOptimizer | None:
    """The optimizer for a weight type; None for qfloat8, whose steps grow with the weight.

    >>> type(clip_optimizer("qint2")).__name__, clip_optimizer("qfloat8")
    ('ClipAffine', None)
    """
    if kind == "qfloat8":
        return None
    return ClipSymmetric() if kind == "qint8" else ClipAffine()


def plain_optimizer(kind: str) -> AffineOptimizer | SymmetricOptimizer:
    """What quanto itself uses for a weight type."""
    return AbsmaxOptimizer() if kind in ("qint8", "qfloat8") else MaxOptimizer()


class ClipAffine(AffineOptimizer):
    """For the types with a scale and a shift per group: qint4 and qint2."""

    def optimize(
        self, base: torch.Tensor, qtype: Any, axis: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        own = MaxOptimizer().optimize(base, qtype, axis)
        rows, scale, shift = (as_rows(t, axis) for t in (base, *own))
        parts = zip(*(t.split(_step(rows)) for t in (rows, scale, shift)), strict=True)
        found = [_affine(w, s, z, qtype.bits) for w, s, z in parts]
        scale, shift = (torch.cat(side) for side in zip(*found, strict=True))
        return scale.reshape(own[0].shape), shift.reshape(own[1].shape)


class ClipSymmetric(SymmetricOptimizer):
    """For the integer type with a scale per row and none for the shift: qint8."""

    def optimize(self, base: torch.Tensor, qtype: Any, axis: int | None = None) -> torch.Tensor:
        own = AbsmaxOptimizer().optimize(base, qtype, axis)
        if qtype.is_floating_point:
            return own
        rows, scale = as_rows(base, axis), as_rows(own, axis)
        parts = zip(rows.split(_step(rows)), scale.split(_step(rows)), strict=True)
        found = [_symmetric(w, s, qtype.qmin, qtype.qmax) for w, s in parts]
        return torch.cat(found).reshape(own.shape)


def as_rows(t: torch.Tensor, axis: int | None) -> torch.Tensor:
    """One row per scale."""
    if axis is None:
        return t.reshape(1, -1)
    return t.reshape(t.shape[0], -1) if axis == 0 else t.reshape(-1, t.shape[-1]).t()


def codes(w: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, bits: int) -> torch.Tensor:
    """The codes that quanto gives weights, as floats; a group without a range gets 0."""
    return ((w + shift) / scale).round().nan_to_num(0.0).clamp(0, 2**bits - 1)


def on_grid(w: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, bits: int) -> torch.Tensor:
    """The weights that come back from the codes.

    >>> on_grid(torch.tensor([[0.1, 0.9, 5.0]]), torch.ones(1, 1), torch.zeros(1, 1), 2).tolist()
    [[0.0, 1.0, 3.0]]
    """
    return codes(w, scale, shift, bits) * scale - shift


def _step(rows: torch.Tensor) -> int:
    return max(1, CHUNK // max(1, rows.shape[1]))


def _affine(
    w: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best (scale, shift) per row, in the dtype they will be stored in."""
    best = _Best(lambda s, z: _error(w, on_grid(w, s, z, bits)), scale, shift)
    low, high = w.amin(1, keepdim=True).float(), w.amax(1, keepdim=True).float()
    for kept in KEPT:
        for skew in SKEW:
            bottom, top = low * (kept - skew), high * (kept + skew)
            best.offer((top - bottom).abs() / (2**bits - 1), -bottom)
    for _ in range(POLISH):
        code = codes(w, best.sides[0], best.sides[1], bits).float()
        middle, mean = code.mean(1, keepdim=True), w.float().mean(1, keepdim=True)
        spread = (code - middle).square().sum(1, keepdim=True)
        slope = ((code - middle) * (w.float() - mean)).sum(1, keepdim=True) / spread
        best.offer(slope, slope * middle - mean)
    return best.sides[0], best.sides[1]


def _symmetric(w: torch.Tensor, scale: torch.Tensor, low: float, high: float) -> torch.Tensor:
    def rounded(s: torch.Tensor) -> torch.Tensor:
        return (w / s).round().nan_to_num(0.0).clamp(low, high)

    best = _Best(lambda s: _error(w, rounded(s) * s), scale)
    for kept in KEPT[: len(KEPT) // 2]:
        best.offer(scale.float() * kept)
    for _ in range(POLISH):
        code = rounded(best.sides[0]).float()
        best.offer((code * w.float()).sum(1, keepdim=True) / code.square().sum(1, keepdim=True))
    return best.sides[0]


def _error(w: torch.Tensor, approximation: torch.Tensor) -> torch.Tensor:
    """Squared error per row."""
    return (approximation.float() - w.float()).square().sum(1, keepdim=True)


class _Best:
    """The parameters with the smallest error per row; the first ones stay where none beats them."""

    def __init__(self, error: Callable[..., torch.Tensor], *sides: torch.Tensor) -> None:
        self.error, self.sides = error, list(sides)
        self.lowest = error(*sides)

    def offer(self, *sides: torch.Tensor) -> None:
        rounded = [new.to(old.dtype) for new, old in zip(sides, self.sides, strict=True)]
        error = self.error(*rounded)
        usable = torch.isfinite(rounded[0]) & (rounded[0] > 0)
        better = usable & (error < self.lowest)  # never where an error is NaN
        self.lowest = torch.where(better, error, self.lowest)
        pairs = zip(rounded, self.sides, strict=True)
        self.sides = [torch.where(better, new, old) for new, old in pairs]


def sides_of(
    weight: torch.Tensor, optimizer: Any, qtype: Any, group: int | None
) -> list[torch.Tensor]:
    """What an optimizer finds for the weight of a linear layer: [scale], or [scale, shift]."""
    if isinstance(optimizer, SymmetricOptimizer):
        return [optimizer(weight, qtype=qtype, axis=0)]
    return list(optimizer(weight, qtype=qtype, axis=0, group_size=group))


def on_its_grid(rows: torch.Tensor, sides: Sequence[torch.Tensor], bits: int) -> torch.Tensor:
    """Rows of weights as they come back from quanto, with a shift or without."""
    if len(sides) == 2:
        return on_grid(rows, sides[0], sides[1], bits)
    limit = 2 ** (bits - 1)
    return (rows / sides[0]).round().nan_to_num(0.0).clamp(-limit, limit - 1) * sides[0]


def given(sides: Sequence[torch.Tensor]) -> AffineOptimizer | SymmetricOptimizer:
    """An optimizer for sides that are known already."""
    return _GivenScale(sides[0]) if len(sides) == 1 else _Given(sides[0], sides[1])


class _Given(AffineOptimizer):
    def __init__(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        self.scale, self.shift = scale, shift

    def optimize(
        self, base: torch.Tensor, qtype: Any, axis: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self.scale, self.shift


class _GivenScale(SymmetricOptimizer):
    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale

    def optimize(self, base: torch.Tensor, qtype: Any, axis: int | None = None) -> torch.Tensor:
        return self.scale
