"""`bitcal quantize`: load a model with small weights, check it, and write it to a folder.

Knows nothing of how; it shows progress, what memory was saved and what to type next.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from bitcal_integrations.cli._labelled import Grader, Parser
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
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Choose a type for each layer under a budget: 0.35 of the bytes of the linear "
            "layers, '3 bits' per weight, or '200 MiB'. What is measured is kept in DIR.bits.json "
            "until the end.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --budget: JSON lines with prompts, whose answers shall stay as they are; 64 "
            "are drawn, 512 for brier.  [default: texts that the model writes]",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --budget: kl, from the unquantized answers, or brier, for data with right "
            "answers.  [default: kl]",
        ),
    ] = None,
    recover: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines with prompt and gold: train norm gains on what the unquantized model "
            "says to a quarter of them, and keep the new ones if another quarter comes out better. "
            "What is done is kept in DIR.recover until the end.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --recover: the unquantized model to learn from.  [default: what MODEL was "
            "quantized from]",
        ),
    ] = None,
    parser: Parser = None,
    grader: Grader = None,
) -> None:
    """Quantize a model and write it to a folder."""
    from bitcal_integrations.cli import _bits, _recover
    from bitcal_integrations.cli._out import claimed
    from bitcal_integrations.cli._show import console, progress
    from bitcal_integrations.model import load
    from bitcal_integrations.repair import forget, kept_beside

    taught = ("teacher",) if recover is None else _recover.GIVEN
    given = {
        "data": data, "objective": objective, "parser": parser, "grader": grader,
        "teacher": teacher,
    }  # fmt: skip
    _bits.check(budget, weights, {k: v for k, v in given.items() if k not in taught})
    _recover.check(recover, given, quantizes=weights != "none" or budget is not None)
    steps = None if repair == "none" else kept_beside(out, repair)
    with claimed(out):
        with progress() as report:
            loading: dict[str, Any] = {
                "exclude": exclude or "*lm_head", "dtype": dtype, "device": device,
                "progress": report, "repair": steps,
            }  # fmt: skip
            found = None if budget is None else _bits.chosen(model, budget, out, given, loading)
            loaded = load(model, weights=found.plan if found else weights_of(weights), **loading)
        with loaded:
            gained = _recover.recovered(loaded, recover, out, given)
            loaded.save(out)
            if steps:
                forget(out)
            if gained:
                _recover.forget(out)
            if found:
                _bits.kept_beside(out).unlink(missing_ok=True)
            memory, about = loaded.memory_report(), loaded.report()
    if found:
        _bits.draw(console(), found, objective or "kl")
    _draw(memory, about, [str(gained)] if gained else [], out)


def _draw(memory: Any, about: Any, said: list[str], out: str) -> None:
    """What was saved, what was done, and what to type next."""
    from bitcal_integrations.cli._memory import draw_memory, rows
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.repair import summary

    screen = console()
    draw_memory(screen, rows(memory, about["dtype"]), about["dtype"])
    for line in summary(about["repaired"]):
        screen.print(line, highlight=False)
    for line in (*said, f"written to {out}"):
        screen.print(line, soft_wrap=True)
    screen.print(f'use it     bitcal ask {shlex.quote(out)} "Why is the sky blue?"', soft_wrap=True)
