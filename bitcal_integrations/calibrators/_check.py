"""Checks that the parts of this folder share: numbers, and dicts that are whole.

It refuses what nothing can be fitted on, with an error that quotes it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bitcal_integrations.errors import BadRequest, CalibrationError

LARGEST = 1e150  # of a feature: its square must be a number


def is_number(value: Any) -> bool:
    """A real number that is not NaN; a truth value is none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
    return real and not math.isnan(value)


def refuse_huge(x: np.ndarray) -> None:
    """A finite feature beyond LARGEST cannot be fitted on."""
    huge = np.isfinite(x) & (np.abs(x) > LARGEST)
    if huge.any():
        row, column = (int(i[0]) for i in np.nonzero(huge))
        raise CalibrationError(
            f"feature {column} of row {row} is {x[row, column]:g}; it must lie within "
            f"-{LARGEST:g} and {LARGEST:g}, or be missing"
        )


def refuse_part(data: Mapping[str, Any], needed: Iterable[str], what: str) -> None:
    """A saved dict without all of its keys is not what it says."""
    missing = [key for key in needed if key not in data]
    if missing:
        raise BadRequest(f"{dict(data)!r:.80} is not a whole {what}: no {missing[0]!r}")
