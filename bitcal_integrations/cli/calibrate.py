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
    Parser,
    Signals,
    Task,
)
from bitcal_integrations.cli._options import Device, Dtype, Model, Weights, weights_of
from bitcal_integrations.cli._server import Api, Budgeted, InFlight, Served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bitcal_integrations.profile import Profile

LONGEST = 512
MaxTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N", help=f"At most this many tokens.  [default: {LONGEST}, or as in PROFILE]"
    ),
]


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
    signals: Signals = None,
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
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="PROFILE",
            help="Start from this profile, of another model: a few labels are enough then.",
        ),
    ] = None,
    no_labels: Annotated[
        bool, typer.Option("--no-labels", help="With --from: use the prompts alone.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="With --no-labels: answers of the measured model to these prompts."
        ),
    ] = None,
    max_new_tokens: MaxTokens = None,
    answers: Answers = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 0,
    served: Served = None,
    api: Api = None,
    in_flight: InFlight = None,
    budget: Budgeted = None,
) -> None:
    """Measure a model, or a server's (http://HOST/v1), on labelled examples; write its profile.

    With --from, a profile is carried over to this model by a few labels, all of which go into an
    offset, or by prompts alone; it certifies nothing.
    """
    from bitcal_integrations.cli._labelled import features_of, writable
    from bitcal_integrations.cli._measured import draw
    from bitcal_integrations.cli._server import server_arguments
    from bitcal_integrations.cli._show import console, progress
    from bitcal_integrations.model import load

    remote = server_arguments(model, served, api, in_flight, budget)
    _check_budget(budget, answers)
    _check_teacher(teacher, bool(remote))
    path = writable(out or _beside(model))
    given: dict[str, Any] = {
        "grader": grader, "task": task, "answers": answers, "parser": parser,
        "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    labels = {"group_id": group_id, "seed": seed}
    fitting = {
        "group_by": group_by, "method": method, "max_errors": max_error, "delta": delta,
        "teacher": teacher, "features": features_of(signals),
    }  # fmt: skip
    _check(from_, no_labels, source, {**fitting, **labels})
    _check_numbers(path, fitting)
    with progress() as report:
        given["progress"] = report
        loaded = load(
            model, weights=weights_of(weights), dtype=dtype, device=device, profile=None,
            progress=report, **remote,
        )  # fmt: skip
        with loaded:
            if from_ is None:
                profile = _fitted(loaded, data, model, {**given, **labels}, fitting)
            else:
                more = {"source": source} if no_labels else labels
                profile = _carried(loaded, data, from_, no_labels, {**given, **more})
    task = task if task in profile.tasks else profile.default
    profile, written = _joined(path, profile)
    profile.save(path)
    draw(console(), profile, task)
    console().print(written, soft_wrap=True)


# Options that --from passes over, and how they are when nobody gives them.
USUAL = {
    "group_by": None, "features": None, "method": "auto", "max_errors": None, "delta": 0.1,
    "teacher": None,
}  # fmt: skip
SPELT = {"max_errors": "max-error", "features": "signals"}  # what is not spelt like its option
USUAL_UNLABELLED = {**USUAL, "group_id": None}


def _check(from_: str | None, no_labels: bool, source: str | None, given: Any) -> None:
    """Refuse options that would be passed over."""
    from bitcal_integrations.errors import BadRequest

    if from_ is None and (no_labels or source):
        raise BadRequest("--no-labels and --source belong to --from PROFILE")
    if source and not no_labels:
        raise BadRequest("--source belongs to --no-labels: labels need no other model's answers")
    if from_ is None:
        return
    for name, value in (USUAL_UNLABELLED if no_labels else USUAL).items():
        if given[name] != value:
            option = SPELT.get(name, name.replace("_", "-"))
            why = "no label is used" if name == "group_id" else "nothing is fitted anew"
            raise BadRequest(f"--{option} is not allowed here: with --from {why}")


def _check_budget(budget: str | None, answers: str | None) -> None:
    """Refuse to spend a budget on answers that are kept nowhere."""
    from bitcal_integrations.errors import BadRequest

    if budget is not None and answers is None:
        raise BadRequest(
            "--budget needs --answers FILE, where the answers are kept: the run goes on from it"
        )


def _check_teacher(teacher: str | None, served: bool) -> None:
    """Refuse a teacher that is the model itself: it agrees with itself in everything."""
    from bitcal_integrations.errors import BadRequest

    if served and teacher == "same":
        raise BadRequest(
            "--teacher same is not allowed for a server: its unquantized model is not known here",
            "Name the teacher: a folder, a hub id, or another server, http://...",
        )


def _check_numbers(path: Path, fitting: Mapping[str, Any]) -> None:
    """Refuse now what would else be noticed when every example is answered."""
    from bitcal_integrations.fitted import MAX_ERRORS, FitOptions
    from bitcal_integrations.profile import Profile

    if path.exists():
        Profile.load(path)
    targets = tuple(fitting["max_errors"] or MAX_ERRORS)
    FitOptions(fitting["method"], max_errors=targets, delta=fitting["delta"])


def _fitted(loaded: Any, data: str, model: str, given: Any, fitting: Any) -> Profile:
    from bitcal_integrations.fit import MAX_ERRORS, fit_profile

    taught = _teacher(fitting["teacher"], model, given["progress"])
    given = {"max_new_tokens": LONGEST, **given}
    given |= {**fitting, "max_errors": fitting["max_errors"] or MAX_ERRORS, "teacher": taught}
    try:
        return fit_profile(
            loaded, data, **{**given, "group_by": fitting["group_by"] or ()},
            gold="teacher" if taught else "labels",
        )  # fmt: skip
    finally:
        if taught is not None:
            taught.close()


def _carried(loaded: Any, data: str, start: str, no_labels: bool, given: Any) -> Profile:
    from bitcal_integrations.profile import Profile
    from bitcal_integrations.recalibrate import adapt_profile, transfer_profile

    carry = transfer_profile if no_labels else adapt_profile
    return carry(Profile.load(start), loaded, data, **given)


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


def _joined(path: Path, profile: Profile) -> tuple[Profile, str]:
    """With the other tasks of a profile of the same model that is there already; and what to say.

    A profile of another model makes room: it is kept beside.
    """
    from bitcal_integrations.errors import ProfileError
    from bitcal_integrations.profile import Profile, differing

    written = f"written to {path}"
    if not path.exists():
        return profile, written
    old = Profile.load(path)
    try:
        return old.with_tasks(profile), written
    except ProfileError:
        beside = path.with_name(f"{path.stem}-{old.fingerprint[:8]}{path.suffix}")
        path.replace(beside)
        why = differing(profile.parts, old.parts)
        moved = f"the profile that was there is of another model ({why}): now {beside}"
        return profile, f"{written}\n{moved}"
