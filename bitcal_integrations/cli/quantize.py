"""`bitcal quantize`: load a model with small weights, check it, and write it to a folder.

Knows nothing of how; it shows progress, what memory was saved and what to type next.
"""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from bitcal_integrations.cli._options import Device, Dtype, Model, Weights, weights_of


def quantize(
    model: Model,
    out: Annotated[str, typer.Option(metavar="DIR", help="The folder to write.")],
    weights: Weights = "qint4",
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Layers to leave as they are; may be repeated.  [default: *lm_head]",
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    repair: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="data-free, for better qint4 and qint2 weights, or none. A cut run goes on where "
            "it was: what is done is kept in DIR.repair until the end.",
        ),
    ] = "none",
) -> None:
    """Quantize a model and write it to a folder."""
    from bitcal_integrations.cli._memory import draw_memory, rows
    from bitcal_integrations.cli._show import console, progress
    from bitcal_integrations.model import load
    from bitcal_integrations.repair import forget, kept_beside, summary

    with progress() as report:
        loaded = load(
            model,
            weights=weights_of(weights),
            exclude=exclude or "*lm_head",
            dtype=dtype,
            device=device,
            progress=report,
            repair=None if repair == "none" else kept_beside(out, repair),
        )
    with loaded:
        loaded.save(out)
        if repair != "none":
            forget(out)
        memory, about = loaded.memory_report(), loaded.report()
    screen = console()
    draw_memory(screen, rows(memory, about["dtype"]), about["dtype"])
    for line in summary(about["repaired"]):
        screen.print(line, highlight=False)
    screen.print(f"written to {out}", soft_wrap=True)
    screen.print(f'use it     bitcal ask {shlex.quote(out)} "Why is the sky blue?"', soft_wrap=True)
