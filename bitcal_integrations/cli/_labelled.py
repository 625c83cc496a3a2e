"""Options and tables of the commands that work on labelled examples. Knows no model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

Data = Annotated[
    str,
    typer.Option(metavar="FILE", help="JSON lines with prompt and gold (or question, answer)."),
]
Parser = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the answer is: gsm8k, choice, first_line, last_number, json:FIELD, "
        "regex:PATTERN or tiny.",
    ),
]
Grader = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="exact, normalised, numeric, numeric:TOLERANCE, choice, contains, tiny.",
    ),
]
GroupId = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="Rows with one value of this key share a question."),
]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Break results down by this key; may be repeated."),
]
Answers = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Keep every answer here as it comes; a cut run goes on from it."
    ),
]
Signals = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="What the confidence is made of, with commas; default stands for the free ones, "
        "hidden_probe adds a probe of hidden states.  [default: default]",
    ),
]
MaxNewTokens = Annotated[int, typer.Option(metavar="N", help="At most this many tokens.")]
Task = Annotated[str, typer.Option(metavar="NAME", help="Name of the task in the profile.")]


def features_of(signals: str | None) -> tuple[str, ...] | None:
    """The features that --signals names; None where it names none.

    >>> features_of("confidence, length"), len(features_of("default,hidden_probe"))
    (('confidence', 'length'), 9)
    """
    from bitcal_integrations.features import DEFAULT_FEATURES, make_schema

    if signals is None:
        return None
    names: list[str] = []
    for name in (part.strip() for part in signals.split(",")):
        names += DEFAULT_FEATURES if name == "default" else (name,)
    return make_schema(names).names


def score_table(scores: Mapping[str, Mapping[str, Any]]) -> Any:
    """Base rate, raw score and calibrated confidence side by side, as a table for a console."""
    from rich.table import Table

    titles = {"base": "base rate", "raw": "raw score", "calibrated": "calibrated"}
    table = Table(box=None, pad_edge=False)
    for title in ("", "n", "Brier", "NLL", "ECE", "ECE floor", "AUROC", "AURC"):
        table.add_column(title, justify="left" if not title else "right")
    keys = ("brier", "nll", "ece", "ece_floor", "auroc", "aurc")
    for name, title in titles.items():
        if name in scores:
            row = scores[name]
            table.add_row(title, str(row["n"]), *(number(row.get(key)) for key in keys))
    return table


def number(value: float | None) -> str:
    """Four digits, or a dash where there is none.

    >>> number(0.12345), number(None)
    ('0.1235', '-')
    """
    return "-" if value is None else f"{value:.4f}"


def writable(path: str | Path) -> Path:
    """The path, or an error now instead of at the end of a long run."""
    from bitcal_integrations.errors import BadRequest

    path = Path(path)
    if path.is_dir():
        raise BadRequest(f"{str(path)!r} is a folder, so no file can be written there")
    if not path.parent.is_dir():
        raise BadRequest(
            f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}"
        )
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadRequest(f"{str(path)!r} cannot be written: permission denied")
    return path


def write(path: str, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
