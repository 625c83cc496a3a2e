"""Labelled prompts -> answers -> Profile, with the parts kept honest.

The calibrator is fitted on one part of the examples, thresholds are certified on a second and the
numbers in the profile come from a third; a group is never in two. Knows no framework.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np

from bitcal_integrations.answered import Asking, Progress, answer_all, comparable
from bitcal_integrations.canary import CANARIES, Canary
from bitcal_integrations.dataset import Example, read_examples, split
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.features import Schema, make_schema, parts_for
from bitcal_integrations.fitted import (
    MAX_ERRORS,
    FitOptions,
    Fitted,
    answered,
    fit_rows,
    fit_rows_together,
)
from bitcal_integrations.kept import judged_ids
from bitcal_integrations.profile import Profile, TaskProfile, decoding_of, differing
from bitcal_integrations.seen import marked
from bitcal_integrations.types import Labelled

FLIP_EXAMPLES, FLIP_BATCH = 64, 16
PACKAGES = ("bitcal-integrations", "torch", "transformers", "optimum-quanto", "scikit-learn")


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
    certify and report. What `bitcal label` judged in that file needs no right answer. With
    `gold="teacher"` the answers of the model `teacher` stand in for right ones, and the profile
    then says "agrees with". `options` are those of `ask`.
    """
    if gold not in ("labels", "teacher") or (gold == "teacher") != (teacher is not None):
        raise BadRequest(
            f"gold={gold!r} with teacher={teacher!r:.60} is not allowed: use gold='labels', or "
            "gold='teacher' and teacher=<a model>"
        )
    if refused := {"features", "return_errors", "early_stop"} & set(options):
        raise BadRequest(f"{min(refused)} is not an option of fit_profile")
    schema = schema_of(features, model)
    source = "labels" if teacher is None else f"teacher: {teacher.name}"
    how = FitOptions(method, objective, tuple(max_errors), delta, source, seed)
    split((), parts)  # shares that are none are refused before anything is asked
    asked = read_examples(
        examples, group_id=group_id, group_by=group_by, need_gold=teacher is None,
        judged=judged_ids(answers), any_gold=callable(grader),
    )  # fmt: skip
    options |= {"early_stop": None, **({"parser": parser} if parser is not None else {})}
    asking = Asking(grader, schema, "default", options, progress)
    bare = unprofiled(model)
    if teacher is not None:
        asked = taught(teacher, asked, asking, answers)
    place = split(asked, parts, seed)
    rows = [replace(r, part=place[r.id]) for r in answer_all(bare, asked, asking, answers)]
    return profile_of(bare, rows, schema, asking, how, task)


def fit_profiles(
    models: Mapping[str, Any],
    examples: Any,
    *,
    parser: Any = None,
    grader: Any = "normalised",
    task: str = "default",
    group_id: Any = None,
    features: Schema | Sequence[str] | None = None,
    method: str = "auto",
    parts: Sequence[float] = (0.5, 0.25, 0.25),
    max_errors: Sequence[float] = MAX_ERRORS,
    delta: float = 0.1,
    answers: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Profile]:
    """A profile per weight type of one model, fitted together: {name: model} -> {name: Profile}.

    All share the shape of the calibrator, and each has an offset, shrunk to how far the types lie
    apart. Certificates hold for all of them at once, so that the best may be taken. Options are
    those of `fit_profile`; answers are kept in `answers`.NAME.
    """
    if not models:
        raise BadRequest("models={} is not allowed: it maps each name to a loaded model")
    schema = schema_of(features, next(iter(models.values())))
    asked = read_examples(examples, group_id=group_id)
    place = split(asked, parts, seed)
    options |= {"early_stop": None, **({"parser": parser} if parser is not None else {})}
    asking = Asking(grader, schema, "default", options, progress)
    bare = {name: unprofiled(model) for name, model in models.items()}
    rows = {
        name: [
            replace(r, part=place[r.id])
            for r in answer_all(one, asked, asking, answers and f"{os.fspath(answers)}.{name}")
        ]
        for name, one in bare.items()
    }
    how = FitOptions(method, "nll", tuple(max_errors), delta, "labels", seed, len(models))
    fitted = fit_rows_together(rows, schema, how)
    return {
        name: profile_of(bare[name], rows[name], schema, asking, how, task, fitted[name])
        for name in models
    }


def schema_of(features: Schema | Sequence[str] | None, model: Any) -> Schema:
    """A schema, or these features, with what the model's entropies are over and its layer."""
    if not isinstance(features, Schema):
        features = make_schema(features, scores=getattr(model, "scores", "full"))
    if not features.hidden:
        return features
    request = unprofiled(model).request_of("", hidden_layer=features.layer or 0)
    return replace(features, layer=request.hidden_layer, probe=None)


def unprofiled(model: Any) -> Any:
    """The model without its profile: what it measures must not depend on an older one."""
    return model.without_profile() if model.profile is not None else model


def taught(
    teacher: Any, examples: Sequence[Example], asking: Asking, answers: Any
) -> list[Example]:
    """The examples with the teacher's answers as gold.

    Those it did not answer, or not in a form that the grader compares, are left out.
    """
    keep = None if answers is None else f"{os.fspath(answers)}.teacher"
    bare = [replace(e, gold=None) for e in examples]
    said = answer_all(teacher, bare, replace(asking, schema=None), keep)
    known = {r.id: r.answer or r.text.strip() for r in said if r.answer or r.text.strip()}
    found = [replace(e, gold=known[e.id]) for e in examples if e.id in known]
    return [e for e in found if comparable(e.gold, asking.grader)]


def profile_of(
    model: Any,
    rows: Sequence[Labelled],
    schema: Schema,
    asking: Asking,
    how: FitOptions,
    task: str = "default",
    fitted: Fitted | None = None,
) -> Profile:
    """The profile that answered rows give; the model is asked a few of them again for flips.

    `fitted` is what came of the rows, where that is known already.
    """
    fitted = fitted or fit_rows(rows, schema, how)
    schema = fitted.schema or schema
    options = dict(asking.options or {})
    request = model.request_of("", **options)
    one = TaskProfile(
        parser=request.parser,
        grader=asking.grader,
        decoding=decoding_of(request),
        schema=schema,
        calibrator=fitted.calibrator,
        certificates=fitted.certificates,
        label_source=how.label_source,
        counts=fitted.counts,
        scores=fitted.scores,
        flips=flips(model, rows, schema, fitted, asking),
        seen=marked((r.part, r.prompt) for r in rows if r.correct is not None),
    )
    return Profile(
        parts=parts_for(model.fingerprint_parts, schema),
        tasks={task: one},
        default=task,
        canaries=canaries_of(rows, task, request.max_new_tokens),
        made_with=_versions(),
    )


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

    Without a grader it is the one of the model's profile, else "normalised". Rows that the profile
    was fitted or certified on have that `part`, and a report leaves them out.
    """
    profile = model.profile
    if grader is None:
        grader = profile.task(task).grader if profile is not None else "normalised"
    asked = read_examples(
        examples, group_id=group_id, group_by=group_by, need_gold=False, any_gold=callable(grader)
    )
    # The features are those that fit_profile measures: it can go on from these answers.
    asking = Asking(grader, make_schema(None), task, options, progress)
    rows = answer_all(model, asked, asking, answers)
    if profile is None or differing(profile.parts, model.fingerprint_parts):
        return [replace(r, part="report") for r in rows]
    return [replace(r, part=profile.task(task).part_of(r.prompt)) for r in rows]


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


__all__ = [
    "MAX_ERRORS",
    "FitOptions",
    "answered",
    "evaluate",
    "fit_profile",
    "fit_profiles",
    "fit_rows",
]
