"""`bitcal report`: kept answers as one HTML page that needs no network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._labelled import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcal_integrations.kept import Kept
    from bitcal_integrations.profile import Profile
    from bitcal_integrations.types import Labelled


def report(
    answers: Annotated[
        str, typer.Argument(metavar="ANSWERS", help="What evaluate or calibrate kept: --answers.")
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The page to write.  [default: ANSWERS with .html]"),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Judge the answers by this profile; show its promises."),
    ] = None,
    task: Task = "default",
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title of the page.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown instead of writing a page.")
    ] = False,
) -> None:
    """Turn kept answers into a report: reliability, risk and coverage, worst errors."""
    from bitcal_integrations.answered import read_kept
    from bitcal_integrations.cli._labelled import writable
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.errors import CalibrationError
    from bitcal_integrations.profile import Profile

    kept = read_kept(answers)
    rows = list(kept.rows.values())
    if not rows:
        raise CalibrationError(f"there are no answers in {answers!r}")
    measured = Profile.load(profile) if profile else None
    if measured is not None:
        rows = judged_by(measured, task, kept)
    if markdown:
        from bitcal_integrations.report import draw_markdown

        print(draw_markdown(prepared(rows, measured, title or Path(answers).stem)))
        return
    path = str(writable(out or Path(answers).with_suffix(".html")))
    page(rows, measured, path, title or Path(answers).stem)
    console().print(f"report written to {path}", soft_wrap=True)


def judged_by(profile: Profile, task: str, kept: Kept) -> list[Labelled]:
    """Kept rows with what a profile says of them, and the part that each was in."""
    from bitcal_integrations.answered import judged_again
    from bitcal_integrations.assess import Assessor
    from bitcal_integrations.types import make_request

    one = profile.task(task)
    assessor = Assessor(profile, kept.header["model"])
    request = make_request("", **{**kept.header["options"], "task": task})
    return [
        replace(
            row, task=task, part=one.part_of(row.prompt),
            confidence=judged_again(assessor, request, row.confidence),
        )
        for row in kept.rows.values()
    ]  # fmt: skip


def prepared(rows: Sequence[Labelled], profile: Any, title: str) -> Any:
    """The numbers of the report."""
    from bitcal_integrations.report import prepare_evaluation

    task = profile.task(rows[0].task) if profile is not None else None
    return prepare_evaluation(
        rows,
        certificates=[c.to_dict() for c in task.certificates] if task else (),
        profile=_summary(profile, task) if task else None,
        title=title,
    )


def _summary(profile: Any, task: Any) -> dict[str, Any]:
    return {
        "fingerprint": profile.fingerprint,
        "method": task.calibrator.method,
        "label_source": task.label_source,
        "counts": dict(task.counts),
    }


def page(rows: Sequence[Labelled], profile: Any, path: str, title: str) -> None:
    """Write the report as one HTML file."""
    from bitcal_integrations.cli._labelled import write
    from bitcal_integrations.report import draw_html

    write(path, draw_html(prepared(rows, profile, title)))
