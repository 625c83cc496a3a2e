"""Answered rows -> what was fitted on them: calibrator, certificates and scores.

Each comes from a part of its own: fit, certify, report. Knows rows and numbers; asks no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.calibrators import fit_bits, fit_calibrator
from bitcal_integrations.calibrators._fit import OBJECTIVES
from bitcal_integrations.dataset import PARTS
from bitcal_integrations.decide import Certificate, certify_threshold
from bitcal_integrations.decide._check import as_share
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.features import PROBE, Schema, with_probe
from bitcal_integrations.quantize.probe import fit_probe, held_out_confidence
from bitcal_integrations.registry import resolve
from bitcal_integrations.signals._probe import read
from bitcal_integrations.types import Labelled

MAX_ERRORS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class FitOptions:
    """How rows become a calibrator and certificates; of `compared` profiles one will be chosen."""

    method: str = "auto"
    objective: Literal["nll", "brier"] = "nll"
    max_errors: tuple[float, ...] = MAX_ERRORS
    delta: float = 0.1
    label_source: str = "labels"
    seed: int = 0
    compared: int = 1

    def __post_init__(self) -> None:
        """Refuse now what could else be noticed only when every example is answered."""
        if self.method != "auto":
            resolve("calibrators", self.method)
        if self.objective not in OBJECTIVES:
            raise CalibrationError(f"objective={self.objective!r} must be one of {OBJECTIVES}")
        for name, value in (("delta", self.delta), *(("max_error", e) for e in self.max_errors)):
            as_share(name, value)


@dataclass(frozen=True)
class Fitted:
    """What came of the rows of one task; `schema` with the probe, where one was fitted."""

    calibrator: Any
    certificates: tuple[Certificate, ...]
    counts: dict[str, int]
    scores: dict[str, Any]
    schema: Schema | None = None


def fit_rows(rows: Sequence[Labelled], schema: Schema, how: FitOptions) -> Fitted:
    """Fit on the fit part, certify on the certify part, measure on the report part."""
    rows, schema = probed(rows, schema, how)
    parts = parts_of(rows, schema)
    fit = parts["fit"]
    calibrator = fit_calibrator(
        fit.x, fit.y, names=schema.names, method=how.method, objective=how.objective,
        groups=fit.groups,
    )  # fmt: skip
    return replace(measured(calibrator, rows, parts, how), schema=schema)


def fit_rows_together(
    rows: Mapping[str, Sequence[Labelled]], schema: Schema, how: FitOptions
) -> dict[str, Fitted]:
    """The same for several weight types of one model, with one shape and an offset for each."""
    ready = {name: probed(mine, schema, how) for name, mine in rows.items()}
    found = {name: parts_of(mine, own) for name, (mine, own) in ready.items()}
    calibrators = fit_bits(
        {name: (parts["fit"].x, parts["fit"].y) for name, parts in found.items()},
        schema.names, how.method, {name: parts["fit"].groups for name, parts in found.items()},
        objective=how.objective,
    )  # fmt: skip
    return {
        name: replace(measured(calibrators[name], mine, found[name], how), schema=own)
        for name, (mine, own) in ready.items()
    }


def probed(
    rows: Sequence[Labelled], schema: Schema, how: FitOptions
) -> tuple[Sequence[Labelled], Schema]:
    """Rows with the scores of a probe that is fitted on the fit part, and the schema with it.

    In the fit part each score is of a probe that has not seen the question, since the calibrator is
    fitted on them; the other parts get what every later answer will get.
    """
    if PROBE not in schema.names:
        return rows, schema
    bare = replace(schema, probe=None)
    others = [name for name in schema.names if name != PROBE]
    usual = {r.id: [r.confidence.signals.get(n, np.nan) for n in others] for r in rows}
    states = {r.id: read(r.hidden, schema.layer) for r in rows}
    fit = [
        r for r in rows
        if r.part == "fit" and r.correct is not None and answered(r)
        and states[r.id] is not None and np.isfinite(usual[r.id]).all()
    ]  # fmt: skip
    if not fit:
        return rows, bare
    y, groups = np.array([r.correct for r in fit], dtype=float), [r.group for r in fit]
    x = np.array([usual[r.id] for r in fit]).reshape(len(fit), len(others))
    confidence = held_out_confidence(x, y, groups, how.objective)
    found = fit_probe([states[r.id] for r in fit], y, confidence, groups)
    held_out = dict(zip((r.id for r in fit), found.scores.tolist(), strict=True))
    schema = replace(schema, probe=found.probe)
    return [_scored(r, schema, held_out.get(r.id)) for r in rows], schema


def _scored(row: Labelled, schema: Schema, held_out: float | None) -> Labelled:
    """A row with what its probe says of it, or the fold's probe that had not seen it."""
    signals = dict(with_probe(row.confidence.signals, row.hidden, schema))
    if held_out is not None:
        signals[PROBE] = held_out
    return replace(row, confidence=replace(row.confidence, signals=signals))


def measured(
    calibrator: Any, rows: Sequence[Labelled], parts: Mapping[str, Part], how: FitOptions
) -> Fitted:
    """What a calibrator promises on the certify part, and how it does on the report part."""
    certify = parts["certify"]
    # What has no answer is never accepted, but asked: it counts in the share that is accepted.
    lost = len(certify.lost)
    p = np.append(calibrator(certify.x), np.full(lost, np.nan))
    certificates = tuple(
        certify_threshold(
            p, np.append(certify.y, np.zeros(lost)), max_error=e, delta=how.delta,
            groups=np.append(certify.groups, certify.lost), label_source=how.label_source,
            simultaneous=len(how.max_errors) * how.compared,
        )
        for e in (how.max_errors if len(certify.y) else ())
    )  # fmt: skip
    scores = _scores(calibrator, parts["fit"], parts["report"])
    return Fitted(calibrator, certificates, _counts(rows, parts), scores)


@dataclass(frozen=True)
class Part:
    """The rows of one part that have a verdict and every feature.

    `lost` holds the groups of those whose confidence is unknown: no answer, or a feature missing.
    """

    x: np.ndarray
    y: np.ndarray
    raw: np.ndarray
    groups: np.ndarray
    lost: np.ndarray


def parts_of(rows: Sequence[Labelled], schema: Schema) -> dict[str, Part]:
    """The usable rows of each part; an error where there is none to fit on."""
    parts = {part: usable(rows, schema, part) for part in PARTS}
    if not len(parts["fit"].y):
        raise CalibrationError(
            f"none of the {len(rows)} examples gave an answer with a verdict to fit on",
            "Check the parser and the grader on a few answers.",
        )
    return parts


def usable(rows: Sequence[Labelled], schema: Schema, part: str) -> Part:
    """The rows of a part that were answered, judged and measured whole."""
    mine = [r for r in rows if r.part == part and r.correct is not None and answered(r)]
    pairs = [(r, schema.vector(r.confidence.signals)) for r in mine]
    unknown = [r for r in rows if r.part == part and not answered(r)]
    whole = [bool(np.isfinite(v).all()) and r.confidence.raw is not None for r, v in pairs]
    unknown += [r for (r, _), known in zip(pairs, whole, strict=True) if not known]
    pairs = [pair for pair, known in zip(pairs, whole, strict=True) if known]
    return Part(
        np.array([v for _, v in pairs]).reshape(len(pairs), len(schema.names)),
        np.array([r.correct for r, _ in pairs], dtype=float),
        np.array([r.confidence.raw for r, _ in pairs], dtype=float),
        np.array([r.group for r, _ in pairs], dtype=object),
        np.array([r.group for r in unknown], dtype=object),
    )


def answered(row: Labelled) -> bool:
    """Whether a row holds an answer; what has none is unknown, and nothing is fitted on it."""
    return row.finish != "error" and not row.confidence.reason.startswith("no_answer")


def _counts(rows: Sequence[Labelled], parts: Mapping[str, Part]) -> dict[str, int]:
    return {
        **{part: len(found.y) for part, found in parts.items()},
        "examples": len(rows),
        "unanswered": sum(not answered(r) for r in rows),
        "unjudged": sum(r.correct is None for r in rows if answered(r)),
    }


def _scores(calibrator: Any, fit: Part, report: Part) -> dict[str, Any]:
    """Metrics of the report part for the base rate, the raw score and the calibrated one."""
    if not len(report.y):
        return {}
    base = np.full(len(report.y), float(np.mean(fit.y)))
    scores = {"base": base, "raw": report.raw, "calibrated": calibrator(report.x)}
    return {name: metrics.summary(p, report.y, groups=report.groups) for name, p in scores.items()}
