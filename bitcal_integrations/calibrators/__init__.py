"""From signals to the probability that an answer is right, one file per way of fitting it.

A calibrator file has COLUMNS (what it reads: "none", "probability" for the primary score as a
probability, "one" for the primary score, "all"), INTERVAL (the kind of its interval),
fit(z, y, objective) -> plain JSON parameters, predict(params, z) -> p and interval(params, z)
-> (low, high). `Calibrator` wraps one with its column scales, shift reference and corrections.
scikit-learn and scipy are imported inside fit functions only; predicting needs numpy.

An interval is about the probability that is said, not about one answer. That of a fitted curve
takes its shape for right: 95% of the fits hold the truth then, fewer where the shape is wrong.

What is claimed is marginal: among answers with confidence p about a share p is right, over
questions like the labelled ones. Nothing is promised for one single question or one subgroup.

>>> cal = fit_calibrator([0.9, 0.8, 0.7, 0.4] * 25, [1, 1, 0, 0] * 25)
>>> low, high = cal([0.4, 0.9])
>>> bool(low < 0.5 < high)
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitcal_integrations.calibrators._base import Calibrator
from bitcal_integrations.calibrators._bits import fit_bits
from bitcal_integrations.calibrators._fit import fit_calibrator
from bitcal_integrations.calibrators._shift import ShiftReport
from bitcal_integrations.calibrators._transfer import adapt, transfer

__all__ = [
    "Calibrator",
    "ShiftReport",
    "adapt",
    "fit_bits",
    "fit_calibrator",
    "from_dict",
    "transfer",
]


def from_dict(data: Mapping[str, Any]) -> Calibrator:
    """The calibrator that `to_dict` wrote."""
    return Calibrator.from_dict(data)
