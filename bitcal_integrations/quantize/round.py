"""Rounds the value and the output layer of an attention module for each other.

What an answer feels of the two is their product. So one is rounded first, and the other is aimed
at what makes up for it and rounded column by column, each error moved on to the columns that are
still free (the recursion of GPTQ, with the other layer's Gram matrix); then the roles change. The
best pair that was seen is kept. Knows weights and their grids: no data, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from bitcal_integrations.quantize.clip import on_grid

Grid = Callable[[torch.Tensor, int], torch.Tensor]  # a column of weights and its number -> rounded
ROUNDS, DAMP = 4, 0.01
BLOCK = 128  # columns


def grid(sides: Sequence[torch.Tensor], bits: int) -> Grid:
    """Rounding to quanto's codes; `sides` are scale and shift in the shape of the weights."""
    scale, shift = sides

    def rounded(column: torch.Tensor, at: int) -> torch.Tensor:
        return on_grid(column, scale[..., at], shift[..., at], bits)

    return rounded


def compensate(target: torch.Tensor, gram: torch.Tensor, rounded: Grid) -> torch.Tensor:
    """Weights on the grid with a small (target - found) gram (target - found)^T.

    `target` is (..., rows, columns), `gram` (..., columns, columns) and positive definite; leading
    dimensions are solved by themselves.

    >>> nearest = lambda column, at: column.round()
    >>> gram = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    >>> compensate(torch.tensor([[0.4, 0.4]]), gram, nearest).tolist()  # 0.8 together
    [[0.0, 1.0]]
    """
    left, found = target.clone(), torch.empty_like(target)
    upper = _inverse_factor(gram).to(target.dtype)
    for start in range(0, target.shape[-1], BLOCK):
        end = min(start + BLOCK, target.shape[-1])
        errors = torch.zeros_like(left[..., start:end])
        for at in range(start, end):
            found[..., at] = rounded(left[..., at], at)
            error = (left[..., at] - found[..., at]) / upper[..., at, at, None]
            errors[..., at - start] = error
            left[..., at + 1 : end] -= error[..., None] * upper[..., at, None, at + 1 : end]
        left[..., end:] -= errors @ upper[..., start:end, end:]  # all at once: less memory moved
    return found


def cost(target: torch.Tensor, found: torch.Tensor, gram: torch.Tensor) -> float:
    """The trace of (target - found) gram (target - found)^T."""
    off = (target - found).double()
    return float(((off @ gram.double()) * off).sum())


def damped(gram: torch.Tensor) -> torch.Tensor:
    """The matrix in double precision, made safely invertible."""
    gram = gram.double()
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return gram + (DAMP * size + 1e-30) * eye


def _inverse_factor(gram: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram.double()))
    return torch.linalg.cholesky((inverse + inverse.mT) / 2).mT


def product_error(
    v: torch.Tensor, o: torch.Tensor, v_found: torch.Tensor, o_found: torch.Tensor
) -> float:
    """The squared error of the products of all heads, relative to the products.

    `v` is (head, number, input), `o` (head, repeat, output, number).
    """

    def inner(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> float:
        outputs, values = a.double().mT @ c.double(), b.double() @ d.double().mT
        return float((outputs * values[:, None]).sum())

    whole = inner(o, v, o, v)
    error = whole - 2 * inner(o, v, o_found, v_found) + inner(o_found, v_found, o_found, v_found)
    return max(0.0, error) / whole if whole else 0.0


def paired_round(
    v: torch.Tensor, o: torch.Tensor, v_grid: Grid, o_grid: Grid, rounds: int = ROUNDS
) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """The best rounded pair, and the error before and after each step.

    Shapes as in `product_error`; `v_grid` gets columns of `v` turned: (head, input, number).
    """
    columns = range(v.shape[-2])
    v_found = torch.stack([v_grid(v[..., at, :], at) for at in columns], -2)
    o_found = torch.stack([o_grid(o[..., at], at) for at in columns], -1)
    errors = [product_error(v, o, v_found, o_found)]
    best = (v_found, o_found)
    for step in range(2 * rounds):
        if step % 2 == 0:
            o_found = _round_outputs(v, o, v_found, o_grid)
        else:
            v_found = _round_values(v, o, o_found, v_grid)
        errors.append(product_error(v, o, v_found, o_found))
        if errors[-1] <= min(errors[:-1]):
            best = (v_found, o_found)
    return (*best, errors)


def _round_outputs(
    v: torch.Tensor, o: torch.Tensor, v_found: torch.Tensor, o_grid: Grid
) -> torch.Tensor:
    gram = damped(v_found @ v_found.mT)[:, None]
    cross = (v.double() @ v_found.double().mT)[:, None]
    target = torch.linalg.solve(gram, cross.mT @ o.double().mT).mT
    return compensate(target.to(o.dtype), gram.expand(*o.shape[:2], -1, -1), o_grid)


def _round_values(
    v: torch.Tensor, o: torch.Tensor, o_found: torch.Tensor, v_grid: Grid
) -> torch.Tensor:
    gram = damped((o_found.mT @ o_found).sum(1))
    cross = (o_found.double().mT @ o.double()).sum(1)
    target = torch.linalg.solve(gram, cross @ v.double())
    return compensate(target.mT.to(v.dtype), gram, v_grid).mT
