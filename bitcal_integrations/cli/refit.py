"""`bitcal refit`: a better calibrator from the labels in a store, or the reason why not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._labelled import Task

if TYPE_CHECKING:
    from bitcal_integrations.monitor.refit import Refit
    from bitcal_integrations.profile import Profile


def refit(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Records: a file, or a database's URL.")
    ],
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="The profile they were answered with.")
    ],
    out: Annotated[
        str, typer.Option(metavar="FILE", help="The new profile to write; PROFILE is kept.")
    ],
    task: Task = "default",
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A calibrator, adapt, or auto.  [default: auto]"),
    ] = None,
    history: Annotated[
        bool,
        typer.Option("--history", help="Write a history model of all tasks in the store instead."),
    ] = False,
    days: Annotated[
        float | None, typer.Option(metavar="N", help="Only answers of the last N days.")
    ] = None,
    all_labels: Annotated[
        bool,
        typer.Option("--all-labels", help="Also labels that users gave of their own accord."),
    ] = False,
) -> None:
    """Fit a profile's calibrator anew on labels, if that is clearly better."""
    from bitcal_integrations.cli._labelled import writable
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.errors import CalibrationError
    from bitcal_integrations.monitor.store import Store
    from bitcal_integrations.profile import Profile

    old = Profile.load(profile)
    path = writable(out)
    _check(path, profile, days, history, task)
    given: dict[str, Any] = {"all_labels": all_labels, "since": _since(days)}
    given |= {"method": method} if method else {}
    with Store(store) as opened:
        found = _found(opened, old, task, history, given)
    screen = console()
    draw(screen, found)
    new = found.history if history else found.profile
    if new is None:
        raise CalibrationError(f"nothing is written: {found.reason}")
    new.save(path)
    screen.print(after(old, task, history), soft_wrap=True)
    screen.print(f"written to {path}; {profile} is as it was", soft_wrap=True)


def _check(path: Path, profile: str, days: float | None, history: bool, task: str) -> None:
    from bitcal_integrations.errors import BadRequest

    if path.exists() and path.samefile(profile):
        raise BadRequest(
            f"--out {str(path)!r} is the old profile, which is kept: name another file"
        )
    if days is not None and not days > 0:
        raise BadRequest(f"--days {days:g} is not allowed: it is a number above 0")
    if history and task != "default":
        raise BadRequest("--task is not allowed here: a history model is of all tasks")


def _since(days: float | None) -> float | None:
    return None if days is None else time.time() - 86400 * days


def _found(store: Any, old: Profile, task: str, history: bool, given: dict[str, Any]) -> Refit:
    if history:
        from bitcal_integrations.monitor.relearn import refit_history

        return refit_history(store, old, **given)
    from bitcal_integrations.monitor.refit import refit_profile

    return refit_profile(store, old, task, **given)


def draw(screen: Any, found: Refit) -> None:
    """The labels, and both Brier scores on the held-out ones."""
    screen.print(f"{found.n} labels of {found.questions} questions; tried: {found.method}")
    for why, n in found.left_out.items():
        screen.print(f"left out: {n} {why}", soft_wrap=True)
    screen.print(
        f"Brier score on held-out labels: old {found.old:.4f}, new {found.new:.4f}, change "
        f"{found.change:+.4f} [{found.low:+.4f}, {found.high:+.4f}]",
        soft_wrap=True,
    )


def after(old: Profile, task: str, history: bool) -> str:
    """What is void now, and what it takes to have it again."""
    if history:
        return (
            "certificates and early stops of the profile do not hold for it; use it with "
            "HistoryModel.load(FILE).attach(model)"
        )
    void = len(old.task(task).certificates)
    certificates = f"{void} certificates" if void != 1 else "1 certificate"
    return (
        f"{certificates} of the old calibrator, and its early stops, are void: certify again on "
        "labels that were not used here"
    )
