"""`bitcal study`: one model at several weight types on labelled examples, as a table and a page.

`study.py` of the package computes, the report draws; this file joins them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitcal_integrations.cli._labelled import Data, Grader, GroupId, MaxNewTokens, Parser
from bitcal_integrations.cli._options import Device, Dtype, Model, weights_of

if TYPE_CHECKING:
    from bitcal_integrations.studied import Study

PAGE, TABLE, ANSWERS = "study.html", "study.csv", "answers"


def study(
    model: Model,
    data: Data,
    weights: Annotated[
        str, typer.Option(metavar="TYPES", help="Weight types to compare, joined by commas.")
    ] = "none,qint8,qint4,qint2",
    repair: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Repairs of each: none, data-free, or none,data-free."),
    ] = "none",
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help=f"Write {PAGE} and {TABLE} here, and keep every answer; a cut study goes on.",
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    parser: Parser = None,
    grader: Grader = "normalised",
    group_id: GroupId = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="The calibrator; auto chooses for each variant.")
    ] = "auto",
    fit_share: Annotated[
        float, typer.Option(metavar="S", help="Share of the questions that only fits calibrators.")
    ] = 0.5,
    max_new_tokens: MaxNewTokens = 512,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the split.")] = 0,
) -> None:
    """Compare weight types of a model: size, speed, accuracy and calibration.

    Each variant is loaded, asked every example, and compared with the unquantized model on the
    same questions, before and after calibration.
    """
    from bitcal_integrations.cli._show import progress
    from bitcal_integrations.study import study as run

    new = out is not None and not Path(out).exists()
    folder = None if out is None else _folder(out)
    kinds = [weights_of(name) for name in names_of("weights", weights)]
    repairs = [weights_of(name) for name in names_of("repair", repair)]
    try:
        with progress() as shown:
            found = run(
                model, data, kinds, repairs, parser=parser, grader=grader, group_id=group_id,
                method=method, fit_share=fit_share, folder=folder and folder / ANSWERS, dtype=dtype,
                device=device, seed=seed, progress=shown, max_new_tokens=max_new_tokens,
            )  # fmt: skip
    except BaseException:
        with suppress(OSError):  # what holds anything stays
            if folder:
                (folder / ANSWERS).rmdir()
        with suppress(OSError):
            if folder and new:
                folder.rmdir()
        raise
    draw(found)
    if folder is not None:
        _write(found, folder)


def names_of(option: str, text: str) -> list[str]:
    """The names in a list joined by commas, each once.

    >>> names_of("weights", "none, qint4,qint4")
    ['none', 'qint4']
    """
    from bitcal_integrations.errors import BadRequest

    found = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if "" in found:
        raise BadRequest(f"--{option} {text!r} is not allowed: names joined by commas")
    return found


def _folder(out: str) -> Path:
    """The folder, or an error now instead of at the end of a long run."""
    from bitcal_integrations.cli._labelled import writable
    from bitcal_integrations.errors import BadRequest

    path = Path(out)
    if path.exists() and not path.is_dir():
        raise BadRequest(f"--out {out!r} is a file; it must be a folder")
    path.mkdir(parents=True, exist_ok=True)
    for name in (PAGE, TABLE):
        writable(path / name)
    return path


def draw(found: Study) -> None:
    """The tables, what they say, and what they cannot."""
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.report import study_text as text
    from bitcal_integrations.report._study_limits import warnings

    screen = console()
    width = min(screen.width, text.WIDTH) if screen.is_terminal else text.WIDTH
    said = [*text.findings(found), *warnings(found)]
    head = f"{found.title}: {text.overview(found)}"
    for line in (head, "", *text.lines(found, width), "", text.legend(found), "", *said):
        screen.print(line, soft_wrap=True)


def _write(found: Study, folder: Path) -> None:
    from bitcal_integrations.cli._labelled import write
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.report.study import draw_study_html
    from bitcal_integrations.report.study_text import as_csv

    write(str(folder / PAGE), draw_study_html(found))
    write(str(folder / TABLE), as_csv(found))
    console().print(f"written to {folder / PAGE} and {folder / TABLE}", soft_wrap=True)
