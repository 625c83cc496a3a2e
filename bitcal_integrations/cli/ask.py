"""`bitcal ask`: one prompt, the answer as it comes, then its confidence.

The answer alone goes to stdout, so that it can be piped; everything about it goes to stderr.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._options import Device, Dtype, Json, Model, Weights, weights_of
from bitcal_integrations.cli._server import Api, Served, server_arguments

if TYPE_CHECKING:
    from bitcal_integrations.types import Record


def ask(
    model: Model,
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The prompt; - reads it from stdin.")
    ],
    weights: Weights = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    served: Served = None,
    api: Api = None,
    profile: Annotated[
        str, typer.Option(metavar="FILE", help="A profile, none, or auto: beside the weights.")
    ] = "auto",
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", help="At most this many tokens.")
    ] = 512,
    temperature: Annotated[float, typer.Option(metavar="T", help="0 is greedy.")] = 0.0,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", help="Sample from this share of the probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the sampling.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="End before this text; may be repeated."),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")] = None,
    parser: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="tiny, gsm8k, first_line, last_number or regex:PATTERN: score the answer "
            "alone, and stop when it is complete.",
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Complete the text as it is: no chat template.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a model: answer on stdout, confidence on stderr."""
    remote = server_arguments(model, served, api, None, None)
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt

    from bitcal_integrations.cli._show import print_json, progress
    from bitcal_integrations.model import load

    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "stop": tuple(stop or ()),
        "parser": parser,
        "chat": False if raw else None,
    }
    with progress() as report:
        loaded = load(
            model,
            weights=weights_of(weights),
            dtype=dtype,
            device=device,
            system=system,
            profile=None if profile == "none" else profile,
            progress=report,
            **remote,
        )
    with loaded:
        if as_json:
            print_json(loaded.ask(text, **options).to_dict())
        else:
            _stream(loaded.stream(text, **options))


def _stream(items: Any) -> None:
    """Write the steps as they come and the summary of the Record that ends them."""
    from bitcal_integrations.cli._show import dim
    from bitcal_integrations.types import Record

    try:
        for item in items:
            if isinstance(item, Record):
                print(flush=True)
                dim(summary(item))
            elif not item.reasoning:
                print(item.text, end="", flush=True)
    finally:
        items.close()


def summary(record: Record) -> str:
    """One line: confidence or why it is unknown, raw score, finish, tokens and speed."""
    confidence, generation = record.confidence, record.generation
    parts = [f"confidence unknown: {confidence.reason}"]
    if confidence.value is not None:
        parts = [f"confidence {confidence.value:.2f}"]
        if confidence.low is not None and confidence.high is not None:
            parts[0] += f" ({confidence.low:.2f} to {confidence.high:.2f})"
    if confidence.raw is not None:
        parts.append(f"raw score {confidence.raw:.2f}")
    parts += [f"finish {generation.finish}", f"{generation.n_tokens} tokens"]
    if record.timing.total > 0:
        parts.append(f"{generation.n_tokens / record.timing.total:.1f} tokens/s")
    return " | ".join(parts)
