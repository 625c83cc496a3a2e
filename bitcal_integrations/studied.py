"""What a study found: the numbers of each variant, from its answers, before and after calibration.

The calibrator sees the rows of the fit part, the numbers come from those of the report part. Knows
rows; asks no model and draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.errors import CalibrationError, UnknownName
from bitcal_integrations.features import Schema
from bitcal_integrations.fitted import Part, answered, usable
from bitcal_integrations.paired import FEW, Columns, Difference, compare
from bitcal_integrations.types import Labelled


@dataclass(frozen=True, eq=False)
class Score:
    """One score of one variant: every metric of `metrics.summary`, and its reliability curve."""

    numbers: Mapping[str, Any]
    bins: tuple[metrics.Bin, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured of one variant, or in `error` why nothing was.

    `bytes` are those of all weights; `speed` is in tokens per second and `loading` in seconds, both
    of this run on this machine; `entropy` is the mean over answers of an answer's mean, in nats a
    token. `unknown` counts measured questions without a score, `failed` those of them that ended in
    an error and have no verdict either, `fit` those that its calibrator saw; `calibrator` is its
    method, or "none" and why. `differences` are against the study's reference; `front`: no other
    has both fewer bytes and a lower calibrated Brier score.
    """

    name: str
    error: str = ""
    accuracy: float | None = None
    unknown: int = 0
    failed: int = 0
    fit: int = 0
    bytes: int | None = None
    speed: float | None = None
    loading: float | None = None
    entropy: float | None = None
    calibrator: str = ""
    raw: Score | None = None
    calibrated: Score | None = None
    columns: Columns | None = None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    front: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """All variants in their order; `reference` names the one that the others are compared with.

    Of `questions`, in whole groups, `fit` went to the calibrators and `measured` to the numbers.
    """

    title: str
    results: tuple[Result, ...]
    reference: str
    questions: int
    fit: int
    measured: int
    groups: int
    seed: int

    def result(self, name: str) -> Result:
        """The variant of this name."""
        found = {r.name: r for r in self.results}
        if name not in found:
            raise UnknownName(f"{name!r} is no variant of this study: {', '.join(found)}")
        return found[name]

    def compare(self, name: str, other: str) -> dict[str, Difference]:
        """Differences of one variant to any other; empty where one could not be measured."""
        mine, base = self.result(name).columns, self.result(other).columns
        return {} if mine is None or base is None else compare(mine, base, seed=self.seed)

    def compared(self) -> Study:
        """With the differences of every variant to the reference."""
        others = [
            replace(r, differences=self.compare(r.name, self.reference))
            if r.name != self.reference
            else r
            for r in self.results
        ]
        return replace(self, results=tuple(others))


def numbers_of(result: Result, rows: Sequence[Labelled], schema: Schema, method: str) -> Result:
    """With the numbers of the report part, by a calibrator of the fit part."""
    if result.error:
        return result
    fit = usable(rows, schema, "fit")
    calibrator, said = _calibrator(fit, schema, method)
    mine = [r for r in rows if r.part == "report"]
    columns = _columns(mine, schema, calibrator)
    judged = columns.right[columns.known()]
    entropy = [v for r in mine if (v := r.confidence.signals.get("mean_entropy")) is not None]
    return replace(
        result,
        accuracy=float(judged.mean()) if judged.size else None,
        unknown=int(np.isnan(columns.raw).sum()),
        failed=sum(r.finish == "error" for r in mine),
        fit=fit.y.size,
        entropy=float(np.mean(entropy)) if entropy else None,
        calibrator=said,
        raw=_score(columns, "raw"),
        calibrated=_score(columns, "calibrated"),
        columns=columns,
    )


def _calibrator(fit: Part, schema: Schema, method: str) -> tuple[Any, str]:
    """A calibrator and its method, or None and why there is none."""
    if not fit.y.size:
        return None, "none: no question of its part was answered and judged"
    try:
        found = fit_calibrator(fit.x, fit.y, names=schema.names, method=method, groups=fit.groups)
    except CalibrationError as error:
        return None, f"none: {error.message}"
    return found, found.method


def _columns(rows: Sequence[Labelled], schema: Schema, calibrator: Any) -> Columns:
    """Both scores are known for the same rows: those that were answered and measured whole."""
    right = [np.nan if r.correct is None else float(r.correct) for r in rows]
    x = np.array([schema.vector(r.confidence.signals) for r in rows]).reshape(
        len(rows), len(schema.names)
    )
    raw = np.array([np.nan if r.confidence.raw is None else r.confidence.raw for r in rows])
    whole = np.array([answered(r) for r in rows], dtype=bool) & np.isfinite(x).all(axis=1)
    raw = np.where(whole, raw, np.nan)
    calibrated = np.full(len(rows), np.nan)
    known = np.isfinite(raw)
    if calibrator is not None and known.any():
        calibrated[known] = calibrator(x[known])
    groups = np.array([r.group for r in rows], dtype=object)
    return Columns(np.array(right), raw, calibrated, groups)


def _score(columns: Columns, which: str) -> Score | None:
    known = columns.known(which)
    if not known.any():
        return None
    p, y = getattr(columns, which)[known], columns.right[known]
    bins = min(15, max(1, p.size // 10))
    numbers = metrics.summary(p, y, columns.groups[known])
    if len(set(columns.groups[known])) < FEW:
        numbers |= {"brier_low": None, "brier_high": None}
    return Score(numbers, metrics.reliability_curve(p, y, bins))


def on_front(results: Sequence[Result]) -> list[Result]:
    """With the mark of those that no other beats in bytes and in calibrated Brier score."""
    points = {
        r.name: (r.bytes, r.calibrated.numbers["brier"])
        for r in results
        if r.bytes is not None and r.calibrated is not None
    }
    return [
        replace(
            r,
            front=r.name in points
            and not any(_beats(p, points[r.name]) for n, p in points.items() if n != r.name),
        )
        for r in results
    ]


def _beats(one: tuple[int, float], other: tuple[int, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]
