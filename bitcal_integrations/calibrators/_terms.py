"""Columns made of columns: squares, products, and the scale they are brought to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

CHUNK = 8192  # rows at a time: the made columns stay in the cache


def polynomial(z: np.ndarray) -> np.ndarray:
    """The columns, then their squares and products.

    >>> polynomial(np.array([[2.0, 3.0]])).tolist()
    [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    rows, columns = np.triu_indices(z.shape[1])
    return np.hstack([z, z[:, rows] * z[:, columns]])


class Scale(NamedTuple):
    """Mean and standard deviation per made column; a constant one becomes 0."""

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, made: np.ndarray) -> Scale:
        sd = made.std(axis=0)
        return cls(made.mean(axis=0), np.where(sd > 1e-9, sd, np.inf))

    @property
    def width(self) -> int:
        return int(self.mean.size)

    def apply(self, made: np.ndarray) -> np.ndarray:
        return (made - self.mean) / self.sd

    def to_dict(self) -> dict[str, Any]:
        # JSON has no infinity: a constant column is written as 0.
        return {
            "mean": self.mean.tolist(),
            "sd": np.where(np.isinf(self.sd), 0.0, self.sd).tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Scale:
        sd = np.asarray(data["sd"], dtype=np.float64)
        return cls(np.asarray(data["mean"], dtype=np.float64), np.where(sd > 0, sd, np.inf))


class Quadratic(NamedTuple):
    """constant + linear . z + z . form . z: what coefficients of scaled polynomial columns say."""

    constant: float
    linear: np.ndarray
    form: np.ndarray

    @classmethod
    def of(cls, intercept: float, weights: np.ndarray, scale: Scale, width: int) -> Quadratic:
        weights = weights / scale.sd
        form = np.zeros((width, width))
        form[np.triu_indices(width)] = weights[width:]
        return cls(float(intercept - weights @ scale.mean), weights[:width], form)

    def at(self, z: np.ndarray) -> np.ndarray:
        linear: np.ndarray = z @ self.linear
        return self.constant + linear + np.einsum("ij,ij->i", z @ self.form, z)


def in_chunks(z: np.ndarray, of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """of(z), a bounded number of rows at a time."""
    out = np.empty(len(z))
    for start in range(0, len(z), CHUNK):
        out[start : start + CHUNK] = of(z[start : start + CHUNK])
    return out
