"""Options for a model behind a server, and what they mean to `load`. Talks to no server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.errors import BadRequest

if TYPE_CHECKING:
    from bitcal_integrations.engines.remote import Budget

IN_FLIGHT = 256  # as many as the longest wave of questions

Served = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="With an http:// MODEL: the name that it serves.  [default: its only one]",
    ),
]
Api = Annotated[
    str | None,
    typer.Option(
        metavar="KIND", help="With an http:// MODEL: chat, completions, or auto.  [default: auto]"
    ),
]
InFlight = Annotated[
    int | None,
    typer.Option(
        metavar="N", help=f"With an http:// MODEL: requests at once.  [default: {IN_FLIGHT}]"
    ),
]
Budgeted = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="N",
        help="With an http:// MODEL and --answers: stop after N requests, or '50000 tokens'.",
    ),
]


def server_arguments(
    model: str,
    served: str | None,
    api: str | None,
    in_flight: int | None = None,
    budget: str | None = None,
) -> dict[str, Any]:
    """What `load` takes for these options; they mean nothing without a server."""
    from bitcal_integrations.engines.remote import is_url

    given = {"--model": served, "--api": api, "--in-flight": in_flight, "--budget": budget}
    if not is_url(model):
        for option, value in given.items():
            if value is not None:
                raise BadRequest(f"{option} belongs to a server, http://..., and not to {model!r}")
        return {}
    return {
        "model": served,
        "api": api or "auto",
        "max_in_flight": IN_FLIGHT if in_flight is None else in_flight,
        "budget": None if budget is None else budget_of(budget),
    }


def budget_of(text: str) -> Budget:
    """A number of requests, or of tokens where that word follows; both after a comma.

    >>> budget_of("500").requests, budget_of("500 requests, 20000 tokens").tokens
    (500, 20000)
    """
    from bitcal_integrations.engines.remote import Budget

    found: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)\s*(requests|tokens)?\s*", part)
        kind = (match.group(2) or "requests") if match else ""
        if match is None or kind in found:
            raise BadRequest(
                f"--budget {text!r} is not allowed: use '500', '5000 tokens', or '500, 5000 tokens'"
            )
        found[kind] = int(match.group(1))
    return Budget(**found)
