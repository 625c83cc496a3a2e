"""Labelled prompts -> answers -> Profile, with the parts kept honest.

The calibrator is fitted on one part of the examples, thresholds are certified on a second and the
numbers in the profile come from a third; a group is never in two. Knows no framework.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from bitcal_integrations import metrics
from bitcal_integrations.answered import Asking, Progress, answer_all, name_of
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.canary import CANARIES, Canary
from bitcal_integrations.dataset import Example, read_examples, split
from bitcal_integrations.decide import Certificate, certify_threshold
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.features import Schema, make_schema
from bitcal_integrations.profile import Profile, TaskProfile, decoding_of
from bitcal_integrations.types import Labelled

MAX_ERRORS = (0.05, 0.1, 0.2)
FLIP_EXAMPLES, FLIP_BATCH = 64, 16
PACKAGES = ("bitcal-integrations", "torch", "transformers", "optimum-quanto", "scikit-learn")


@dataclass(frozen=True)
class FitOptions:
    """How rows become a calibrator and certificates."""

    method: str = "auto"
    objective: Literal["nll", "brier"] = "nll"
    max_errors: tuple[float, ...] = MAX_ERRORS
    delta: float = 0.1
    label_source: str = "labels"
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """What came of the rows of one task."""

    calibrator: Any
    certificates: tuple[Certificate, ...]
    counts: dict[str, int]
    scores: dict[str, Any]


def fit_profile(
    model: Any,
    examples: Any,
    *,
    parser: str | Callable[..., Any] | None = None,
    grader: Any = "normalised",
    task: str = "default",
    group_id: str | Callable[[Mapping[str, Any]], Any] | None = None,
    group_by: str | Sequence[str] = (),
    features: Schema | Sequence[str] | None = None,
    method: str = "auto",
    objective: Literal["nll", "brier"] = "nll",
    parts: Sequence[float] = (0.5, 0.25, 0.25),
    max_errors: Sequence[float] = MAX_ERRORS,
    delta: float = 0.1,
    gold: str = "labels",
    teacher: Any = None,
    answers: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Profile:
    """Ask, grade, fit, certify and report: the Profile of one task of one model.

    `examples` is a path to JSONL, a data set or a list of {"prompt", "gold"}; `answers` a file
    that keeps every answer as it comes, so that a cut run goes on; `parts` the shares of fit,
    certify and report. With `gold="teacher"` the answers of the model `teacher` stand in for
    right ones, and the profile then says "agrees with". `options` are those of `ask`.
    """
    if gold not in ("labels", "teacher") or (gold == "teacher") != (teacher is not None):
        raise BadRequest(
            f"gold={gold!r} with teacher={teacher!r:.60} is not allowed: use gold='labels', or "
            "gold='teacher' and teacher=<a model>"
        )
    if {"features", "return_errors"} & set(options):
        raise BadRequest("return_errors is not an option of fit_profile")
    schema = features if isinstance(features, Schema) else make_schema(features)
    asked = read_examples(examples, group_id=group_id, group_by=group_by, need_gold=teacher is None)
    options |= {"parser": parser} if parser is not None else {}
    asking = Asking(grader, schema, "default", options, progress)
    bare = _bare(model)
    if teacher is not None:
        asked = taught(teacher, asked, asking, answers)
    place = split(asked, parts, seed)
    rows = [replace(r, part=place[r.id]) for r in answer_all(bare, asked, asking, answers)]
    source = "labels" if teacher is None else f"teacher: {teacher.name}"
    how = FitOptions(method, objective, tuple(max_errors), delta, source, seed)
    return profile_of(bare, rows, schema, asking, how, task)


def _bare(model: Any) -> Any:
    """The model without its profile: what it measures must not depend on an older one."""
    return model.without_profile() if model.profile is not None else model


def taught(
    teacher: Any, examples: Sequence[Example], asking: Asking, answers: Any
) -> list[Example]:
    """The examples with the teacher's answers as gold; those it did not answer are left out."""
    keep = None if answers is None else f"{os.fspath(answers)}.teacher"
    bare = [replace(e, gold=None) for e in examples]
    said = answer_all(teacher, bare, replace(asking, schema=None), keep)
    known = {r.id: r.answer or r.text.strip() for r in said if r.answer or r.text.strip()}
    return [replace(e, gold=known[e.id]) for e in examples if e.id in known]


def profile_of(
    model: Any,
    rows: Sequence[Labelled],
    schema: Schema,
    asking: Asking,
    how: FitOptions,
    task: str = "default",
) -> Profile:
    """The profile that answered rows give; the model is asked a few of them again for flips."""
    fitted = fit_rows(rows, schema, how)
    options = dict(asking.options or {})
    request = model.request_of("", **options)
    parser = request.parser
    one = TaskProfile(
        parser=name_of(parser) if callable(parser) else parser,
        grader=asking.grader if isinstance(asking.grader, str) else name_of(asking.grader),
        decoding=decoding_of(request),
        schema=schema,
        calibrator=fitted.calibrator,
        certificates=fitted.certificates,
        label_source=how.label_source,
        counts=fitted.counts,
        scores=fitted.scores,
        flips=flips(model, rows, schema, fitted, asking),
    )
    return Profile(
        parts=model.fingerprint_parts,
        tasks={task: one},
        default=task,
        canaries=canaries_of(rows, task, request.max_new_tokens),
        made_with=_versions(),
    )


def fit_rows(rows: Sequence[Labelled], schema: Schema, how: FitOptions) -> Fitted:
    """Fit on the fit part, certify on the certify part, measure on the report part."""
    usable = {part: _usable(rows, schema, part) for part in ("fit", "certify", "report")}
    fit, certify, report = usable["fit"], usable["certify"], usable["report"]
    if not len(fit.y):
        raise CalibrationError(
            f"none of the {len(rows)} examples gave an answer with a verdict to fit on",
            "Check the parser and the grader on a few answers.",
        )
    calibrator = fit_calibrator(
        fit.x, fit.y, names=schema.names, method=how.method, objective=how.objective,
        groups=fit.groups,
    )  # fmt: skip
    certificates = tuple(
        certify_threshold(
            calibrator(certify.x), certify.y, max_error=e, delta=how.delta,
            groups=certify.groups, label_source=how.label_source,
            simultaneous=len(how.max_errors),
        )
        for e in (how.max_errors if len(certify.y) else ())
    )  # fmt: skip
    return Fitted(calibrator, certificates, _counts(rows, usable), _scores(calibrator, fit, report))


@dataclass(frozen=True)
class _Part:
    """The rows of one part that have a verdict and every feature."""

    x: np.ndarray
    y: np.ndarray
    raw: np.ndarray
    groups: np.ndarray


def _usable(rows: Sequence[Labelled], schema: Schema, part: str) -> _Part:
    mine = [r for r in rows if r.part == part and r.correct is not None and answered(r)]
    pairs = [(r, schema.vector(r.confidence.signals)) for r in mine]
    pairs = [(r, v) for r, v in pairs if np.isfinite(v).all() and r.confidence.raw is not None]
    return _Part(
        np.array([v for _, v in pairs]).reshape(len(pairs), len(schema.names)),
        np.array([r.correct for r, _ in pairs], dtype=float),
        np.array([r.confidence.raw for r, _ in pairs], dtype=float),
        np.array([r.group for r, _ in pairs], dtype=object),
    )


def answered(row: Labelled) -> bool:
    """Whether a row holds an answer; what has none is unknown, and nothing is fitted on it."""
    return row.finish != "error" and not row.confidence.reason.startswith("no_answer")


def _counts(rows: Sequence[Labelled], usable: Mapping[str, _Part]) -> dict[str, int]:
    return {
        **{part: len(found.y) for part, found in usable.items()},
        "examples": len(rows),
        "unanswered": sum(not answered(r) for r in rows),
        "unjudged": sum(r.correct is None for r in rows if answered(r)),
    }


def _scores(calibrator: Any, fit: _Part, report: _Part) -> dict[str, Any]:
    """Metrics of the report part for the base rate, the raw score and the calibrated one."""
    if not len(report.y):
        return {}
    base = np.full(len(report.y), float(np.mean(fit.y)))
    scores = {"base": base, "raw": report.raw, "calibrated": calibrator(report.x)}
    return {name: metrics.summary(p, report.y, groups=report.groups) for name, p in scores.items()}


def flips(
    model: Any, rows: Sequence[Labelled], schema: Schema, fitted: Fitted, asking: Asking
) -> dict[str, Any]:
    """How many accept decisions change between batch 1 and batch 16, at the middle threshold."""
    certified = [c.threshold for c in fitted.certificates if c.threshold is not None]
    threshold = certified[len(certified) // 2] if certified else 0.5
    some = [r for r in rows if r.part == "report" and answered(r)][:FLIP_EXAMPLES]
    options = {**(asking.options or {}), "features": schema}
    prompts = [r.prompt for r in some]
    one = [model.ask([p], **options)[0] for p in prompts]
    many = [
        record
        for at in range(0, len(prompts), FLIP_BATCH)
        for record in model.ask(prompts[at : at + FLIP_BATCH], **options)
    ]

    def accepted(records: list[Any]) -> np.ndarray:
        x = np.array([schema.vector(r.confidence.signals) for r in records])
        return fitted.calibrator(x.reshape(len(records), len(schema.names))) >= threshold

    changed = int((accepted(one) != accepted(many)).sum()) if some else 0
    return {"threshold": threshold, "n": len(some), "changed": changed, "batch": FLIP_BATCH}


def canaries_of(rows: Sequence[Labelled], task: str, max_new_tokens: int) -> tuple[Canary, ...]:
    """Answered rows of the fit part, evenly over the range of their raw scores."""
    usable = [r for r in rows if r.part == "fit" and answered(r) and r.confidence.raw is not None]
    usable.sort(key=lambda r: (r.confidence.raw, r.id))
    where = np.linspace(0, len(usable) - 1, min(CANARIES, len(usable))).round().astype(int)
    return tuple(
        Canary(r.prompt, task, max_new_tokens, r.answer or r.text.strip(), r.confidence.raw or 0.0)
        for r in (usable[i] for i in where)
    )


def evaluate(
    model: Any,
    examples: Any,
    *,
    grader: Any = None,
    task: str = "default",
    group_id: Any = None,
    group_by: str | Sequence[str] = (),
    answers: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> list[Labelled]:
    """Answer and grade examples with the model as it is, for a report; nothing is fitted.

    Without a grader it is the one of the model's profile, else "normalised".
    """
    profile = model.profile
    if grader is None:
        grader = profile.task(task).grader if profile is not None else "normalised"
    asked = read_examples(examples, group_id=group_id, group_by=group_by, need_gold=False)
    # Without a profile the features are those that fit_profile measures: it can go on from here.
    schema = make_schema(None) if profile is None else None
    asking = Asking(grader, schema, task, options, progress)
    return [replace(r, part="report") for r in answer_all(model, asked, asking, answers)]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


__all__ = ["FitOptions", "answered", "evaluate", "fit_profile", "fit_rows"]
