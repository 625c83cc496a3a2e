"""A fitted calibrator: features in, probabilities of being right out, with their interval.

It wraps the parameters of one method with the scales of its columns, the scores it was fitted on,
and the corrections for another model (see _transfer). It knows no signal by name: names are
labels. Frozen; `to_dict` gives plain JSON that `from_dict` reads back to an equal object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from bitcal_integrations import registry
from bitcal_integrations.calibrators._check import refuse_part
from bitcal_integrations.calibrators._columns import Columns, as_table, logit, sigmoid
from bitcal_integrations.calibrators._shift import Reference, ShiftReport
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.metrics import Z95

VERSION = 1


@dataclass(frozen=True)
class Calibrator:
    """P(right) from features, and what it rests on.

    `n` labels (groups, where rows belong together) of which the share `base_rate` was right;
    `design_effect` is how much more the rows vary for being in groups than as many that are not;
    `reason` says why this method was taken.
    `maps` holds, per column, quantiles of another model's scores and those of the scores fitted on;
    `offset` is added on the logit, known to `offset_sd`, from `adapted` labels; `disagreement` is
    the share of answers in which that model differs from the one fitted on.
    """

    method: str
    names: tuple[str, ...]
    n: int
    base_rate: float
    reason: str
    objective: str
    columns: Columns
    params: Mapping[str, Any]
    reference: Reference
    maps: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    transferred: bool = False
    disagreement: float | None = None
    offset: float = 0.0
    offset_sd: float = 0.0
    adapted: int = 0
    design_effect: float = 1.0

    def __call__(self, features: Any) -> np.ndarray:
        """One probability per row; a row with a missing feature gives NaN."""
        z, known = self._rows(features)
        out = np.full(len(known), np.nan)
        out[known] = self._predict(z)
        return out

    def interval(self, features: Any) -> np.ndarray:
        """Low and high per row, of the kind that `interval_kind` names.

        It is for the probability that is meant by the kind, not for one answer, which is right or
        wrong. After a transfer without a known disagreement it is 0 to 1: nothing is known.
        """
        z, known = self._rows(features)
        p = self._predict(z)
        if self._unknown:
            return np.where(known[:, None], [0.0, 1.0], np.nan)
        low, high = self._module.interval(self._arrays, seen(self._module, z))
        if self.design_effect > 1:
            own = self._own(z)
            low, high = (_stretched(v, own, self.design_effect**0.5) for v in (low, high))
        if self.adapted:
            middle = logit(p)
            low, high = (_shifted(v, middle, self.offset, self.offset_sd) for v in (low, high))
        spread = self.disagreement or 0.0
        out = np.full((len(known), 2), np.nan)
        out[known, 0] = np.maximum(0.0, np.minimum(low, p) - spread)
        out[known, 1] = np.minimum(1.0, np.maximum(high, p) + spread)
        return out

    @property
    def interval_kind(self) -> str:
        """What `interval` is: of the method, and what it was widened by."""
        if self._unknown:
            return "none: transferred, disagreement unknown"
        adapted = " with the offset's" if self.adapted else ""
        spread = f" widened by {self.disagreement:.3g} disagreement" if self.disagreement else ""
        return f"{self._module.INTERVAL}{adapted}{spread}{', transferred' * self.transferred}"

    @property
    def _unknown(self) -> bool:
        """Whether how often the model it is for is right may be anything."""
        return self.transferred and self.disagreement is None

    def shift(self, features: Any) -> ShiftReport:
        """Whether these scores are like those it was fitted on; incomplete rows are left out."""
        x = as_table(features, len(self.names))
        return self.reference.compare(self.columns.scaled(x[np.isfinite(x).all(axis=1)]))

    def to_dict(self) -> dict[str, Any]:
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            "version": VERSION,
            **out,
            "names": list(self.names),
            "columns": self.columns.to_dict(),
            "params": dict(self.params),
            "reference": self.reference.to_dict(),
            "maps": [[list(side) for side in pair] for pair in self.maps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibrator:
        if data.get("version") != VERSION:
            raise CalibrationError(
                f"this calibrator has the version {data.get('version')!r}; {VERSION} can be read"
            )
        needed = (f.name for f in fields(cls) if f.default is MISSING)
        refuse_part(data, needed, "calibrator")
        values = {k: v for k, v in data.items() if k != "version"}
        registry.resolve("calibrators", values["method"])
        values["names"] = tuple(values["names"])
        values["columns"] = Columns.from_dict(values["columns"])
        values["reference"] = Reference.from_dict(values["reference"])
        values["maps"] = tuple((tuple(theirs), tuple(ours)) for theirs, ours in values["maps"])
        return cls(**values)

    @cached_property
    def _module(self) -> ModuleType:
        return registry.resolve("calibrators", self.method)

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        return {k: np.asarray(v) if isinstance(v, list) else v for k, v in self.params.items()}

    def _rows(self, features: Any) -> tuple[np.ndarray, np.ndarray]:
        """The complete rows, scaled, mapped and clamped, and which rows these are."""
        x = as_table(features, len(self.names))
        known = ~np.isnan(x).any(axis=1)
        z = self.columns.scaled(x[known])
        for i, (theirs, ours) in enumerate(self.maps):
            z[:, i] = np.interp(z[:, i], theirs, ours)
        return self.columns.clamped(z), known

    def _predict(self, z: np.ndarray) -> np.ndarray:
        p = self._own(z)
        return self._bounded(sigmoid(logit(p) + self.offset)) if self.adapted else p

    def _own(self, z: np.ndarray) -> np.ndarray:
        """Before the offset."""
        p: np.ndarray = self._module.predict(self._arrays, seen(self._module, z))
        return self._bounded(p)

    def _bounded(self, p: np.ndarray) -> np.ndarray:
        # Labels that are all right above some score do not make certain: n of them cannot speak
        # for what happens less than once in n + 2.
        return np.clip(p, 1 / (self.n + 2), 1 - 1 / (self.n + 2))


def seen(module: ModuleType, z: np.ndarray) -> np.ndarray:
    """The columns that a method reads: the primary score alone, or all."""
    return z[:, :1] if module.COLUMNS in ("one", "probability") else z


def _stretched(bound: np.ndarray, middle: np.ndarray, times: float) -> np.ndarray:
    """A bound so many times as far away on the logit."""
    center = logit(middle)
    return sigmoid(center + times * (logit(bound) - center))


def _shifted(bound: np.ndarray, middle: np.ndarray, offset: float, sd: float) -> np.ndarray:
    """A bound moved by the offset, its distance from `middle` joined with the offset's own."""
    away = logit(bound) + offset - middle
    return sigmoid(middle + np.sign(away) * np.hypot(away, Z95 * sd))
