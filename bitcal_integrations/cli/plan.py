"""`bitcal plan`: how many labelled examples a promise needs, before any is labelled."""

from __future__ import annotations

from typing import Annotated

import typer

from bitcal_integrations.cli._options import Json


def plan(
    max_error: Annotated[
        float, typer.Option(metavar="E", help="Error rate to promise among accepted answers.")
    ] = 0.1,
    delta: Annotated[
        float, typer.Option(metavar="D", help="Chance that the promise may be wrong.")
    ] = 0.1,
    expected_error: Annotated[
        float | None,
        typer.Option(
            metavar="E", help="Error rate you expect there.  [default: half of --max-error]"
        ),
    ] = None,
    coverage: Annotated[
        float, typer.Option(metavar="C", help="Share of answers you expect to accept.")
    ] = 0.5,
    targets: Annotated[
        int,
        typer.Option(metavar="N", help="Error rates that calibrate will certify, this one among."),
    ] = 3,
    as_json: Json = False,
) -> None:
    """Say how many labels a certificate needs."""
    from bitcal_integrations.cli._show import console, print_json
    from bitcal_integrations.decide import labels_needed
    from bitcal_integrations.decide._path import CHANCE

    expected = max_error / 2 if expected_error is None else expected_error
    least = labels_needed(max_error, delta, expected_error=0.0, simultaneous=targets)
    certify, unranked = (
        labels_needed(
            max_error, delta, expected_error=expected, coverage=coverage, simultaneous=targets,
            ranked=ranked,
        )
        for ranked in (True, False)
    )  # fmt: skip
    found = {
        "at_least": least, "certify": certify, "certify_unranked": unranked, "total": 4 * certify,
        "total_unranked": 4 * unranked,
    }  # fmt: skip
    if as_json:
        print_json(found)
        return
    one_of = f", one of {targets} promises made together" if targets > 1 else ""
    for line in (
        f"to promise at most {max_error:.3g} errors among accepted answers, with a chance of "
        f"{delta:.3g} to be wrong{one_of}:",
        f"  {least} labels if every answer is accepted and right: fewer can never do",
        f"  {certify} labels to certify, with a chance of {CHANCE:.0%}, if {coverage:.0%} are "
        f"accepted, {expected:.3g} of those are wrong, and errors get rarer towards the surest",
        f"  {unranked} if the confidence does not tell right from wrong among the accepted",
        f"  {4 * certify} to {4 * unranked} labels in all, as calibrate uses a quarter to certify",
    ):
        console().print(line, soft_wrap=True)
