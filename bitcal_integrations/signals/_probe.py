"""A probe: what the hidden state of an answer adds to its confidence, as one linear reading.

It knows numbers, not where they come from or how the weights were found. States are written as
text where answers are kept, with their layer, so that a probe of another layer never reads them.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Probe:
    """`bias` plus the product of `weights` and a state; `reason` says what that was worth.

    >>> Probe((1.0, -2.0), 0.5)(np.array([3.0, 1.0]))
    1.5
    """

    weights: tuple[float, ...]
    bias: float
    reason: str = ""

    def __call__(self, state: np.ndarray) -> float:
        """NaN for a state of another width, which is another model's."""
        if np.shape(state) != self._array.shape:
            return math.nan
        return float(np.asarray(state, dtype=np.float64) @ self._array + self.bias)

    @cached_property
    def _array(self) -> np.ndarray:
        return np.asarray(self.weights, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Probe:
        return cls(**{**data, "weights": tuple(map(float, data["weights"]))})


def written(state: np.ndarray | None, layer: int | None) -> dict[str, Any] | None:
    """A state as it is kept, 4 bytes a number in base 64; None where there is none."""
    if state is None or layer is None:
        return None
    raw = np.asarray(state, dtype="<f4").tobytes()
    return {"layer": layer, "state": b64encode(raw).decode()}


def read(kept: Mapping[str, Any] | None, layer: int | None) -> np.ndarray | None:
    """The state that was written, if it is of this layer.

    >>> read(written(np.array([0.5, -2.0]), 4), 4)
    array([ 0.5, -2. ], dtype=float32)
    """
    if kept is None or kept["layer"] != layer:
        return None
    return np.frombuffer(b64decode(kept["state"]), dtype="<f4")
