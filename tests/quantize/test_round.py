"""Rounding that makes up for its own errors: by hand, against brute force, and in pairs."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from optimum.quanto import qtypes

from bitcal_integrations.quantize import clip
from bitcal_integrations.quantize.round import compensate, grid, paired_round, product_error


def cost(target: torch.Tensor, found: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    off = target - found
    return (off @ gram * off).sum(-1)


def nearest(column: torch.Tensor, at: int) -> torch.Tensor:
    return column.round()


def test_a_case_by_hand() -> None:
    """0.4 rounds to 0; with correlation .5 the second column must now carry 0.4 + 0.5 * 0.4."""
    gram = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    found = compensate(torch.tensor([[0.4, 0.4], [0.4, 0.2]]), gram, nearest)
    assert found.tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_with_independent_columns_it_is_plain_rounding() -> None:
    target = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)) * 3
    assert torch.equal(compensate(target, torch.eye(6), nearest), target.round())


def test_it_is_near_the_best_of_all_roundings() -> None:
    source = torch.Generator().manual_seed(0)
    data = torch.randn(40, 4, generator=source) + 2 * torch.randn(40, 1, generator=source)
    gram, target = data.T @ data, torch.rand(30, 4, generator=source)
    every = torch.tensor(list(product((0.0, 1.0), repeat=4)))
    best = torch.stack([cost(target, each.expand(30, -1), gram) for each in every]).amin(0)
    rounded = cost(target, target.round(), gram)
    found = cost(target, compensate(target, gram, lambda c, _: c.round().clamp(0, 1)), gram)
    assert (found >= best - 1e-4).all()
    assert (found - best).mean() < 0.25 * (rounded - best).mean()


def test_leading_dimensions_are_solved_by_themselves() -> None:
    source = torch.Generator().manual_seed(0)
    data = torch.randn(3, 20, 5, generator=source)
    gram, target = data.mT @ data, torch.randn(3, 7, 5, generator=source)
    together = compensate(target, gram, nearest)
    for one in range(3):
        assert torch.equal(together[one], compensate(target[one], gram[one], nearest))


def heads(seed: int, bits: int) -> tuple[torch.Tensor, ...]:
    """Values (2 heads, 16, 64) and outputs (2, 3 repeats, 48, 16) with their clipped grids."""
    source = torch.Generator().manual_seed(seed)
    v = torch.randn(2, 16, 64, generator=source)
    o = torch.randn(2, 3, 48, 16, generator=source)
    kind = qtypes[f"qint{bits}"]
    v_sides = clip.sides_of(v.flatten(0, 1), clip.ClipAffine(), kind, None)
    o_sides = clip.sides_of(o.flatten(0, 2), clip.ClipAffine(), kind, None)
    v_wide = [side.reshape(2, 16, 1).expand(v.shape).mT for side in v_sides]
    o_wide = [side.reshape(2, 3, 48, 1).expand(o.shape) for side in o_sides]
    return v, o, grid(v_wide, bits), grid(o_wide, bits)  # type: ignore[return-value]


def long_way(v: torch.Tensor, o: torch.Tensor, v2: torch.Tensor, o2: torch.Tensor) -> float:
    """The products of all heads written out."""
    whole, found = o @ v[:, None], o2 @ v2[:, None]
    return float((whole - found).square().sum() / whole.square().sum())


@pytest.mark.parametrize("bits", [2, 4])
def test_pairs_lose_less_of_their_product(bits: int) -> None:
    v, o, v_grid, o_grid = heads(0, bits)
    v2, o2, errors = paired_round(v, o, v_grid, o_grid)
    assert errors[0] == pytest.approx(
        long_way(v, o, v_grid_all(v, v_grid), o_grid_all(o, o_grid)), rel=1e-4
    )
    assert long_way(v, o, v2, o2) == pytest.approx(min(errors), rel=1e-4)
    assert min(errors) < 0.85 * errors[0]


def v_grid_all(v: torch.Tensor, v_grid) -> torch.Tensor:
    return torch.stack([v_grid(v[..., i, :], i) for i in range(v.shape[-2])], -2)


def o_grid_all(o: torch.Tensor, o_grid) -> torch.Tensor:
    return torch.stack([o_grid(o[..., i], i) for i in range(o.shape[-1])], -1)


def test_found_weights_lie_on_their_grids() -> None:
    v, o, v_grid, o_grid = heads(1, 2)
    v2, o2, _ = paired_round(v, o, v_grid, o_grid)
    assert torch.allclose(v_grid_all(v2, v_grid), v2, atol=1e-5)
    assert torch.allclose(o_grid_all(o2, o_grid), o2, atol=1e-5)


def test_the_best_is_kept_and_the_start_counts() -> None:
    """Weights that lie on their grids already cannot be bettered, and are not touched."""
    v, o, v_grid, o_grid = heads(2, 2)
    v, o = v_grid_all(v, v_grid), o_grid_all(o, o_grid)
    v2, o2, errors = paired_round(v, o, v_grid, o_grid)
    assert errors[0] == pytest.approx(0.0, abs=1e-9)
    assert torch.allclose(v2, v, atol=1e-5)
    assert torch.allclose(o2, o, atol=1e-5)


def test_product_error_by_hand() -> None:
    """One head, one number: 2 * 3 = 6 became 2 * 2 = 4, so (6 - 4)^2 / 36."""
    v, o = torch.tensor([[[3.0]]]), torch.tensor([[[[2.0]]]])
    assert product_error(v, o, torch.tensor([[[2.0]]]), o) == pytest.approx(4 / 36)
