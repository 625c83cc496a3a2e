"""A smooth function of all signals: squares and products, splines, and splines of two signals.

Each signal has a linear spline on knots at its quantiles, penalised for its curvature; the primary
signal's spline is multiplied with that of every other one. What the labels do not speak for is
shrunk away by evidence, block by block (see _newton). No trees; once fitted it is a polynomial
plus small tables that are read by interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from bitcal_integrations.calibrators import _newton, _terms
from bitcal_integrations.calibrators._columns import sigmoid

COLUMNS = "all"
INTERVAL = _newton.KIND
KNOTS = 10
MOST_SHAPES, PRODUCTS = 5, 64  # shapes of a spline that enter products; products in all


def fit(z: np.ndarray, y: np.ndarray, objective: str) -> dict[str, Any]:
    knots = [np.unique(np.quantile(c, np.linspace(0, 1, KNOTS))) for c in z.T]
    made, scale = _terms.polynomial(z), _terms.Scale.of(_terms.polynomial(z))
    alone, pairs = _splines(z, knots)
    x = np.hstack([scale.apply(made), alone, pairs])
    d = z.shape[1]
    sizes = (d, made.shape[1] - d, alone.shape[1], pairs.shape[1])
    sizes = tuple(n for n in sizes if n)
    blocks = np.repeat(np.arange(len(sizes)), sizes)
    found = _newton.fit(x, y, blocks.tolist(), objective, scale.width)
    return {
        **_newton.params_of(found),
        **scale.to_dict(),
        "knots": np.concatenate(knots).tolist(),
        "knots_per_column": [k.size for k in knots],
    }


@cache
def shapes(knots: int) -> np.ndarray:
    """A straight line and the bends of a spline at its knots, smoothest first, as columns.

    A column's size is its standard deviation under a prior that penalises second differences.
    """
    line = np.linspace(-1.7, 1.7, knots)[:, None]
    if knots < 3:
        return _fixed(line[:, : knots - 1])
    bend = np.diff(np.eye(knots), 2, axis=0)
    strength, bends = np.linalg.eigh(bend.T @ bend)
    bends = bends[:, 2:] / np.sqrt(strength[2:])
    return _fixed(np.hstack([line, bends / np.sqrt((bends[:, 0] ** 2).mean())]))


def _fixed(table: np.ndarray) -> np.ndarray:
    """The table as one that nobody can change, because it is computed once for all."""
    table.setflags(write=False)
    return table


def place(column: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The knot at or before each value, and how far it lies towards the next."""
    if knots.size < 2:
        return np.zeros(len(column), dtype=int), np.zeros(len(column))
    at = np.interp(column, knots, np.arange(float(knots.size)))
    before = np.minimum(at.astype(int), knots.size - 2)
    return before, at - before


def _entering(columns: int) -> int:
    """How many shapes of each spline, from the smoothest on, enter products."""
    return max(2, min(MOST_SHAPES, int((PRODUCTS / max(1, columns - 1)) ** 0.5)))


def _splines(z: np.ndarray, knots: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The bends of every column, and the products of the first column's shapes with the others'."""
    shaped, k = [], _entering(len(knots))
    for column, own in zip(z.T, knots, strict=True):
        table = shapes(own.size)
        before, part = place(column, own)
        after = np.minimum(before + 1, own.size - 1)
        shaped.append(table[before] * (1 - part[:, None]) + table[after] * part[:, None])
    first = shaped[0][:, :k]
    pairs = [(first[:, :, None] * s[:, None, :k]).reshape(len(z), -1) for s in shaped[1:]]
    return np.hstack([s[:, 1:] for s in shaped]), np.hstack([np.empty((len(z), 0)), *pairs])


def _knots(params: Mapping[str, Any]) -> list[np.ndarray]:
    ends = np.cumsum(np.asarray(params["knots_per_column"], dtype=int))
    return np.split(np.asarray(params["knots"], dtype=np.float64), ends[:-1])


def predict(params: Mapping[str, Any], z: np.ndarray) -> np.ndarray:
    knots, scale = _knots(params), _terms.Scale.from_dict(params)
    beta = np.asarray(params["beta"])
    poly, splines = np.split(beta[1:], [scale.width])
    value = _terms.Quadratic.of(beta[0], poly, scale, len(knots))
    grids = _grids(splines, knots)
    return _terms.in_chunks(z, lambda part: sigmoid(value.at(part) + _read(part, knots, grids)))


def _grids(beta: np.ndarray, knots: list[np.ndarray]) -> list[np.ndarray]:
    """Coefficients of the splines as one table of values for the first column with each other.

    Every other column's own bends are put into its table, the first column's into the first.
    """
    tables, k = [shapes(own.size) for own in knots], _entering(len(knots))
    ends = np.cumsum([t.shape[1] - min(1, t.shape[1]) for t in tables])
    own = np.split(beta[: ends[-1]], ends[:-1])
    curves = [t[:, 1:] @ weights for t, weights in zip(tables, own, strict=True)]
    if len(knots) == 1:
        return [curves[0][:, None]]
    grids, at, first = [], int(ends[-1]), tables[0][:, :k]
    for table, curve in zip(tables[1:], curves[1:], strict=True):
        shape = first.shape[1], min(k, table.shape[1])
        weights = beta[at : at + shape[0] * shape[1]].reshape(shape)
        grids.append(first @ weights @ table[:, :k].T + curve)
        at += weights.size
    return [grids[0] + curves[0][:, None], *grids[1:]]


def _read(z: np.ndarray, knots: list[np.ndarray], grids: list[np.ndarray]) -> np.ndarray:
    """The sum of all tables at each row."""
    row, down = place(z[:, 0], knots[0])
    if len(knots) == 1:
        return _bilinear(grids[0], row, down, np.zeros_like(row), np.zeros_like(down))
    out = np.zeros(len(z))
    for grid, column, own in zip(grids, z.T[1:], knots[1:], strict=True):
        out += _bilinear(grid, row, down, *place(column, own))
    return out


def _bilinear(
    grid: np.ndarray, row: np.ndarray, down: np.ndarray, column: np.ndarray, along: np.ndarray
) -> np.ndarray:
    """Values of a table between its entries."""
    height, width = grid.shape
    flat, at = grid.ravel(), row * width + column
    right, below = min(1, width - 1), width if height > 1 else 0
    a, b, c = flat.take(at), flat.take(at + right), flat.take(at + below)
    d = flat.take(at + (below + right)) - c
    top: np.ndarray = a + (b - a) * along
    return top + (c + d * along - top) * down


def interval(params: Mapping[str, Any], z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scale, knots = _terms.Scale.from_dict(params), _knots(params)
    x = np.hstack([scale.apply(_terms.polynomial(z)), *_splines(z, knots)])
    return _newton.interval(params, x)
