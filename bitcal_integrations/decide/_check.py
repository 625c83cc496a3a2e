"""Checks that the parts of this folder share: shares, labels, and one row for each group.

It refuses what nothing can be decided on, with an error that quotes it.
"""

from __future__ import annotations

import math
import numbers
from typing import Any, TypeAlias

import numpy as np

from bitcal_integrations.errors import BadRequest, CalibrationError

Array: TypeAlias = np.ndarray


def as_share(name: str, value: Any) -> float:
    """A number strictly between 0 and 1."""
    if not is_number(value) or not 0 < value < 1:
        raise BadRequest(f"{name}={value!r} is not allowed: it must be a number between 0 and 1")
    return float(value)


def is_number(value: Any) -> bool:
    """A real number that is not NaN; a truth value is none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    return real and not math.isnan(value)


def as_labels(name: str, values: Any) -> Array:
    """Labels of 0 (wrong) and 1 (right) as integers."""
    labels = np.asarray(values, dtype=np.float64)
    bad = ~np.isin(labels, (0, 1))
    if labels.ndim != 1 or bad.any():
        found = labels.shape if labels.ndim != 1 else float(labels[bad][0])
        raise CalibrationError(f"{name} holds {found}; it must be a list of 0 (wrong) or 1 (right)")
    return labels.astype(int)


def one_per_group(groups: Any, n: int, seed: int) -> Array:
    """One row of each group at random, in order: rows of a group are not independent."""
    if groups is None:
        return np.arange(n)
    groups = np.asarray(groups)
    if groups.shape != (n,):
        raise CalibrationError(f"groups has the shape {groups.shape}; one per row is ({n},)")
    mixed = np.random.default_rng(seed).permutation(n)
    _, first = np.unique(groups[mixed], return_index=True)
    return np.sort(mixed[first])
