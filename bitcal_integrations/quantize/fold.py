"""Turns the values of each attention head so that they round better, and undoes it on the way out.

For each key-value head an orthogonal matrix M goes into the value layer and comes out of the
output layer: the model computes what it did, and both layers have fewer extreme weights. M is
learned without data, from the weights alone (the paired transform of CafeQ): Adam on a smooth
maximum over each group that shares a scale, M in Cayley's form from a random start. A model whose
attention does more with its values than mix them, such as gating, is noticed and left as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize._check import device_of, vocabulary
from bitcal_integrations.quantize._pairs import Pair, find_pairs
from bitcal_integrations.quantize._plan import group_size
from bitcal_integrations.quantize._repair import FOLD_STEPS

logger = logging.getLogger(__name__)

RATE, SHARPNESS = 0.02, 5.0
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of what arrives; others: COARSE
COARSE = 0.1  # bfloat16 and float16 round every layer; a gate changes what arrives by more

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Learned:
    """Orthogonal matrices (head, number, number), and the smooth maximum before and after."""

    matrices: torch.Tensor
    before: float
    after: float


def fold(pair: Pair, matrices: torch.Tensor) -> None:
    """Turn the values of a pair by one orthogonal matrix per key-value head, in place."""
    turn = matrices.to(device=pair.value.weight.device, dtype=torch.float32)
    with torch.no_grad():
        v, o = pair.value.weight, pair.output.weight
        values = turn.mT @ pair.values(v).float()
        outputs = pair.outputs(o).float() @ turn[:, None]
        v.data = pair.whole_value(v.data, values)
        o.data = pair.whole_output(outputs).to(o.dtype)
        bias = pair.value.bias
        if bias is not None:
            turned = torch.einsum("kij,ki->kj", turn, bias[pair.rows].float())
            bias.data = pair.whole_value(bias.data, turned)


def learn_fold(pair: Pair, *, seed: int = 0, steps: int = FOLD_STEPS) -> Learned:
    """The matrices for one pair; the same seed gives the same ones. `steps=0`: random ones."""
    v = pair.values(pair.value.weight).detach().float()
    o = pair.outputs(pair.output.weight).detach().float()
    v, o = v / v.square().mean().sqrt(), o / o.square().mean().sqrt()
    sizes = group_size(v.shape[-1]), group_size(pair.output.in_features)
    heads, _, size = pair.shape
    start = random_orthogonal(heads, size, seed).to(v.device)
    free = torch.zeros(heads, size, size, device=v.device, requires_grad=True)
    adam = torch.optim.Adam([free], lr=RATE)

    def loss(matrices: torch.Tensor) -> torch.Tensor:
        turned = pair.whole_output(o @ matrices[:, None])
        return smooth_range(matrices.mT @ v, sizes[0]) + smooth_range(turned, sizes[1])

    with torch.no_grad():
        eye = torch.eye(size, device=v.device).expand(heads, -1, -1)
        before = float(loss(eye))
    for _ in range(steps):
        with torch.enable_grad():
            value = loss(start @ cayley(free))
        (free.grad,) = torch.autograd.grad(value, free)
        adam.step()
    with torch.no_grad():
        found = start @ cayley(free)
        return Learned(found, before, float(loss(found)))


def smooth_range(weight: torch.Tensor, group: int | None) -> torch.Tensor:
    """The mean square, over the groups, of a smooth maximum of the sizes of their weights.

    >>> round(float(smooth_range(torch.tensor([[3.0, 0.0], [0.0, -3.0]]), None)), 3)
    9.0
    """
    groups = weight.reshape(-1, group or weight.shape[-1]).abs()
    return (torch.logsumexp(SHARPNESS * groups, -1) / SHARPNESS).square().mean()


def cayley(free: torch.Tensor) -> torch.Tensor:
    """Orthogonal matrices from any square ones, by their skew part; zero gives the identity."""
    skew = free - free.mT
    eye = torch.eye(free.shape[-1], dtype=free.dtype, device=free.device)
    return torch.linalg.solve(eye + skew, eye - skew)


def random_orthogonal(heads: int, size: int, seed: int) -> torch.Tensor:
    """Random orthogonal matrices, the same on every device."""
    source = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(heads, size, size, generator=source))
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]


def foldable(model: Any) -> tuple[list[Pair], dict[str, str]]:
    """The pairs that may be folded, and why other attention modules may not, by name.

    One module of each kind is folded for a moment, and what arrives at its output layer compared.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        return [], {"": f"{type(model).__name__} is an encoder and a decoder"}
    pairs, skipped = find_pairs(model)
    good: list[Pair] = []
    tried: dict[Any, str] = {}
    for pair in pairs:
        kind = (type(model.get_submodule(pair.name)), pair.shape)
        if kind not in tried:
            tried[kind] = _objection(model, pair)
        if tried[kind]:
            skipped[pair.name] = tried[kind]
        else:
            good.append(pair)
    return good, skipped


def require_foldable(model: Any) -> list[Pair]:
    """The pairs that may be folded; an error where there is none."""
    pairs, skipped = foldable(model)
    if not pairs:
        why = next(iter(skipped.values()), f"{type(model).__name__} has no attention layers")
        raise LoadError(f"the values of this model cannot be folded: {why}")
    for name, why in skipped.items():
        logger.info("%s is not folded: %s", name, why)
    return pairs


def _objection(model: Any, pair: Pair) -> str:
    """Why this pair cannot be folded; empty when it can."""
    turn = random_orthogonal(pair.rows.shape[0], pair.rows.shape[1], 1)
    kept = [t.data for t in (pair.value.weight, pair.output.weight)]
    bias = pair.value.bias.data if pair.value.bias is not None else None
    before = _arriving(model, pair)
    fold(pair, turn)
    try:
        after = _arriving(model, pair)
    finally:
        pair.value.weight.data, pair.output.weight.data = kept
        if bias is not None:
            pair.value.bias.data = bias
    turn = turn.to(before.device)
    split = before.unflatten(-1, pair.shape)
    expected = torch.einsum("...kri,kij->...krj", split, turn).flatten(-3)
    off = float((after - expected).norm() / expected.norm().clamp_min(1e-30))
    if off <= TOLERANCE.get(pair.value.weight.dtype, COARSE):
        return ""
    kind = type(model.get_submodule(pair.name)).__name__
    return f"{kind} does more with its values than mix them, or orders its heads in its own way"


@torch.no_grad()
def _arriving(model: Any, pair: Pair) -> torch.Tensor:
    """What reaches the output layer for a few tokens."""
    ids = (torch.arange(1, 17, device=device_of(model)) * 7 % vocabulary(model)).reshape(2, 8)
    with _watched(pair.output) as seen:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return seen[0].float()


@contextmanager
def _watched(layer: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()
