"""Checks that the parts of this folder share: shares, labels, and one row for each group.

It refuses what nothing can be decided on, with an error that quotes it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from bitcal_integrations.calibrators._check import is_number
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.metrics import group_numbers
from bitcal_integrations.metrics import numbers as as_numbers

__all__ = ["as_labels", "as_numbers", "as_share", "is_number", "one_per_group"]

Array: TypeAlias = np.ndarray


def as_share(name: str, value: Any) -> float:
    """A number strictly between 0 and 1."""
    if not is_number(value) or not 0 < value < 1:
        raise BadRequest(f"{name}={value!r} is not allowed: it must be a number between 0 and 1")
    return float(value)


def as_labels(name: str, values: Any) -> Array:
    """Labels of 0 (wrong) and 1 (right) as integers."""
    labels = as_numbers(name, values)
    bad = ~np.isin(labels, (0, 1))
    if labels.ndim != 1 or bad.any():
        found = labels.shape if labels.ndim != 1 else float(labels[bad][0])
        raise CalibrationError(f"{name} holds {found}; it must be a list of 0 (wrong) or 1 (right)")
    return labels.astype(int)


def one_per_group(groups: Any, n: int, seed: int) -> Array:
    """One row of each group at random, in order: rows of a group are not independent."""
    if groups is None:
        return np.arange(n)
    mixed = np.random.default_rng(seed).permutation(n)
    _, first = np.unique(group_numbers(groups, n)[mixed], return_index=True)
    return np.sort(mixed[first])
