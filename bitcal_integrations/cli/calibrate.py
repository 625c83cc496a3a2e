"""`bitcal calibrate`: from labelled examples to a profile by the model, and what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._labelled import (
    Answers,
    Data,
    Grader,
    GroupBy,
    GroupId,
    MaxNewTokens,
    Parser,
    Task,
)
from bitcal_integrations.cli._options import Device, Dtype, Model, Weights, weights_of

if TYPE_CHECKING:
    from bitcal_integrations.profile import Profile


def calibrate(
    model: Model,
    data: Data,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="The profile to write; a task of another name in it is kept.  "
            "[default: beside the weights]",
        ),
    ] = None,
    weights: Weights = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    parser: Parser = None,
    grader: Grader = None,
    task: Task = "default",
    group_id: GroupId = None,
    group_by: GroupBy = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="The calibrator; auto chooses and says why.")
    ] = "auto",
    max_error: Annotated[
        list[float] | None,
        typer.Option(
            metavar="E", help="Certify this error rate; may be repeated.  [default: .05 .1 .2]"
        ),
    ] = None,
    delta: Annotated[
        float, typer.Option(metavar="D", help="Chance that a certificate may be wrong.")
    ] = 0.1,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="No labels: agree with this model (the same for unquantized)."
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 512,
    answers: Answers = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 0,
) -> None:
    """Measure a model on labelled examples and write its profile."""
    from bitcal_integrations.cli._show import console, progress
    from bitcal_integrations.fit import MAX_ERRORS, fit_profile
    from bitcal_integrations.model import load

    path = Path(out) if out else _beside(model)
    with progress() as report:
        loaded = load(
            model, weights=weights_of(weights), dtype=dtype, device=device, profile=None,
            progress=report,
        )  # fmt: skip
        with loaded:
            taught = _teacher(teacher, model, report)
            try:
                profile = fit_profile(
                    loaded, data, parser=parser, grader=grader or "normalised", task=task,
                    group_id=group_id, group_by=group_by or (), method=method,
                    max_errors=tuple(max_error or MAX_ERRORS), delta=delta,
                    gold="teacher" if taught else "labels", teacher=taught, answers=answers,
                    seed=seed, progress=report, max_new_tokens=max_new_tokens,
                )  # fmt: skip
            finally:
                if taught is not None:
                    taught.close()
    profile = _joined(path, profile)
    profile.save(path)
    draw(console(), profile, task)
    console().print(f"written to {path}", soft_wrap=True)


def _beside(model: str) -> Path:
    from bitcal_integrations.errors import BadRequest
    from bitcal_integrations.profile import FILE_NAME

    if Path(model).is_dir():
        return Path(model) / FILE_NAME
    raise BadRequest(f"{model!r} is not a folder, so say with --out where to write the profile")


def _teacher(teacher: str | None, model: str, report: Any) -> Any:
    from bitcal_integrations.model import load

    if teacher is None:
        return None
    same = teacher == "same"
    return load(model if same else teacher, weights=None if same else "auto", progress=report)


def _joined(path: Path, profile: Profile) -> Profile:
    """With the other tasks of a profile of the same model that is there already."""
    from bitcal_integrations.profile import Profile

    if not path.exists():
        return profile
    old = Profile.load(path)
    return old.with_tasks(profile) if old.fingerprint == profile.fingerprint else profile


def draw(screen: Any, profile: Profile, task: str) -> None:
    """What was measured and what is promised."""
    from bitcal_integrations.cli._labelled import score_table

    one = profile.task(task)
    counts = one.counts
    screen.print(
        f"{counts['examples']} examples: {counts['fit']} to fit, {counts['certify']} to certify, "
        f"{counts['report']} to report; {counts['unanswered']} without an answer, "
        f"{counts['unjudged']} without a verdict",
        soft_wrap=True,
    )
    screen.print(f"calibrator {one.calibrator.method}: {one.calibrator.reason}", soft_wrap=True)
    if one.scores:
        screen.print(score_table(one.scores))
    for certificate in one.certificates:
        screen.print(str(certificate), soft_wrap=True)
    flips = one.flips
    screen.print(
        f"{flips['changed']} of {flips['n']} decisions at {flips['threshold']:.2f} changed between "
        f"batch 1 and batch {flips['batch']}",
        soft_wrap=True,
    )
