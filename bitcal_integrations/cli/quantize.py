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
) -> None:
    """Quantize a model and write it to a folder."""
    from bitcal_integrations.cli._memory import draw_memory, rows
    from bitcal_integrations.cli._show import console, progress
    from bitcal_integrations.model import load

    with progress() as report:
        loaded = load(
            model,
            weights=weights_of(weights),
            exclude=exclude or "*lm_head",
            dtype=dtype,
            device=device,
            progress=report,
        )
    with loaded:
        loaded.save(out)
        memory, number_type = loaded.memory_report(), loaded.report()["dtype"]
    screen = console()
    draw_memory(screen, rows(memory, number_type), number_type)
    screen.print(f"written to {out}", soft_wrap=True)
    screen.print(f'use it     bitcal ask {shlex.quote(out)} "Why is the sky blue?"', soft_wrap=True)
