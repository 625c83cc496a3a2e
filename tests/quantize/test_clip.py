"""Clipped scales: never worse than quanto's own for any group, and much better at two bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimum.quanto import QLinear, freeze, qtypes, quantize, quantize_weight
from torch import nn

from bitcal_integrations.quantize import clip
from bitcal_integrations.quantize._plan import group_size

SHAPES = [(24, 256), (16, 96), (32, 200)]  # groups of 128, one per row, groups do not divide


def error_per_group(weight: torch.Tensor, kind: str, optimizer: Any) -> torch.Tensor:
    """Squared error of what quanto itself makes of a weight, one number per scale."""
    group = group_size(weight.shape[1]) if kind != "qint8" else None
    sides = clip.sides_of(weight, optimizer, qtypes[kind], group)
    shift = sides[1] if len(sides) == 2 else None
    made = quantize_weight(
        weight, qtypes[kind], 0, sides[0], shift, group_size=group, optimized=False
    )
    off = (made.dequantize().float() - weight.float()).square()
    return off.reshape(sides[0].numel(), -1).sum(1)


def heavy(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """Weights with a few large ones, as trained models have."""
    torch.manual_seed(0)
    weight = torch.randn(shape) * 0.02
    weight[::3, 5] *= 6
    return weight.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["qint2", "qint4", "qint8"])
def test_no_group_is_worse(kind: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight = heavy(shape, dtype)
    own = error_per_group(weight, kind, clip.plain_optimizer(kind))
    found = error_per_group(weight, kind, clip.clip_optimizer(kind))
    assert (found <= own).all()
    if kind != "qint8":  # 256 levels leave little to win, in bfloat16 nothing
        assert found.sum() < 0.9 * own.sum()


def test_two_bits_of_a_bell_curve_come_near_the_best_there_is() -> None:
    """0.1188 is the least error of four equally spaced levels for a normal distribution."""
    torch.manual_seed(0)
    weight = torch.randn(400, 128)
    own = error_per_group(weight, "qint2", clip.plain_optimizer("qint2")).sum() / weight.numel()
    found = error_per_group(weight, "qint2", clip.ClipAffine()).sum() / weight.numel()
    assert own > 0.25
    assert 0.100 < found < 0.1188  # the scale fits each group, so a little below


def test_a_case_by_hand() -> None:
    """Four weights on a grid and one far off: the range gives it up only if that is better."""
    weight = torch.tensor([[0.0, 1.0, 2.0, 3.0] * 8 + [3.4]] * 2)
    sides = clip.sides_of(weight, clip.ClipAffine(), qtypes["qint2"], None)
    own = clip.sides_of(weight, clip.plain_optimizer("qint2"), qtypes["qint2"], None)
    assert own[0][0].item() == pytest.approx(3.4 / 3)
    assert sides[0][0].item() == pytest.approx(1.0, abs=0.02)
    back = clip.on_grid(weight, sides[0], sides[1], 2)
    assert back[0, :4].tolist() == pytest.approx([0.0, 1.0, 2.0, 3.0], abs=0.05)


def test_constant_and_empty_rows_stay_as_quanto_has_them() -> None:
    weight = torch.cat([torch.zeros(2, 64), torch.full((1, 64), 0.3), torch.randn(3, 64)])
    for kind in ("qint2", "qint4", "qint8"):
        own = error_per_group(weight, kind, clip.plain_optimizer(kind)).nan_to_num(0.0)
        found = error_per_group(weight, kind, clip.clip_optimizer(kind)).nan_to_num(0.0)
        assert (found <= own).all()


def test_either_axis_gives_the_same() -> None:
    weight = heavy((16, 64), torch.float32)
    rows = clip.ClipAffine()(weight, qtypes["qint4"], 0)
    columns = clip.ClipAffine()(weight.t().contiguous(), qtypes["qint4"], -1)
    for a, b in zip(rows, columns, strict=True):
        assert torch.allclose(a.flatten(), b.flatten(), rtol=1e-4)


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = heavy((24, 256), torch.float32)
    whole = clip.ClipAffine()(weight, qtypes["qint2"], 0, 128)
    monkeypatch.setattr(clip, "CHUNK", 300)
    for a, b in zip(whole, clip.ClipAffine()(weight, qtypes["qint2"], 0, 128), strict=True):
        assert torch.equal(a, b)


def test_quanto_takes_it_as_an_optimizer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 32), nn.Linear(32, 32))
    floats = [layer.weight.detach().clone() for layer in model]
    quantize(model, weights=qtypes["qint2"], optimizer=clip.ClipAffine())
    freeze(model)
    for layer, weight in zip(model, floats, strict=True):
        assert isinstance(layer, QLinear)
        made: Any = layer.weight
        assert (made.dequantize() - weight).square().mean() < 0.13 * weight.square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["qint2", "qint4"])
def test_weights_on_a_grid_get_their_own_codes_again(kind: str, dtype: torch.dtype) -> None:
    """Rounded weights pass through quanto's rounding when their layer is frozen."""
    weight, bits = heavy((64, 256), dtype), qtypes[kind].bits
    weight += 0.05  # a shift that is large beside the scale
    sides = clip.sides_of(weight, clip.ClipAffine(), qtypes[kind], 128)
    rows = weight.reshape(-1, 128)
    wanted = clip.codes(rows.float(), sides[0].float(), sides[1].float(), bits)
    on_grid = (wanted * sides[0].float() - sides[1].float()).to(dtype)
    assert torch.equal(clip.codes(on_grid, sides[0], sides[1], bits).float(), wanted)
