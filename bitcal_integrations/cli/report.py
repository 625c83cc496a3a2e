"""`bitcal report`: kept answers as one HTML page that needs no network."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._stored import is_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcal_integrations.kept import Kept
    from bitcal_integrations.profile import Profile
    from bitcal_integrations.types import Labelled


def report(
    answers: Annotated[
        str,
        typer.Argument(
            metavar="ANSWERS",
            help="What evaluate or calibrate kept (--answers), or a store of records.",
        ),
    ],
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The page to write.  [default: ANSWERS with .html]"),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Judge the answers by this profile; show its promises."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the task.  [default: default; all of a store]"),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Title of the page.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown instead of writing a page.")
    ] = False,
    days: Annotated[
        float | None, typer.Option(metavar="N", help="Of a store: only the last N days.")
    ] = None,
) -> None:
    """Turn kept answers into a report: reliability, risk and coverage, worst errors.

    Of a store of records it is a report over time: drift, labels, hand-overs, cost.
    """
    if is_store(answers):
        _over_time(answers, out, profile, task, title, markdown, days)
        return
    if days is not None:
        from bitcal_integrations.errors import BadRequest

        raise BadRequest(f"--days is for a store of records, and {answers!r} is none")
    _kept(answers, out, profile, task or "default", title, markdown)


def _over_time(
    store: str,
    out: str | None,
    profile: str | None,
    task: str | None,
    title: str | None,
    markdown: bool,
    days: float | None,
) -> None:
    from bitcal_integrations.cli._labelled import writable, write
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.errors import BadRequest
    from bitcal_integrations.monitor.store import Store
    from bitcal_integrations.monitor.timeline import prepare_timeline
    from bitcal_integrations.profile import Profile
    from bitcal_integrations.report.timeline import draw_timeline_html
    from bitcal_integrations.report.timeline_text import draw_timeline_markdown

    if days is not None and not days > 0:
        raise BadRequest(f"--days {days:g} is not allowed: it is a number above 0")
    plain = store.rpartition("/")[2].partition("?")[0] if "://" in store else store
    name = Path(plain).stem
    path = None if markdown else str(writable(out or Path(plain).with_suffix(".html")))
    measured = Profile.load(profile) if profile else None
    since = None if days is None else time.time() - 86400 * days
    with Store(store) as opened:
        found = prepare_timeline(opened, measured, task, since=since, title=title or name)
    if path is None:
        print(draw_timeline_markdown(found))
        return
    write(path, draw_timeline_html(found))
    console().print(f"report written to {path}", soft_wrap=True)


def _kept(
    answers: str, out: str | None, profile: str | None, task: str, title: str | None, markdown: bool
) -> None:
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
            confidence=judged_again(assessor, request, row),
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
