"""Options that several commands share, and what they mean to `load`. Knows no model."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(metavar="MODEL", help="bitcal-tiny, a hub id, or a folder.")]
Weights = Annotated[
    str,
    typer.Option(
        metavar="TYPE", help="qint8, qint4, qint2, qfloat8, none, or auto: as it was saved."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(metavar="TYPE", help="Of all else: auto, bfloat16, float16 or float32."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:1, mps ...")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


def weights_of(name: str) -> str | None:
    """What `load` takes for the name on the command line.

    >>> weights_of("qint4"), weights_of("none")
    ('qint4', None)
    """
    return None if name.lower() == "none" else name
