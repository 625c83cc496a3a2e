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
    as_json: Json = False,
) -> None:
    """Say how many labels a certificate needs."""
    from bitcal_integrations.cli._show import console, print_json
    from bitcal_integrations.decide import labels_needed

    expected = max_error / 2 if expected_error is None else expected_error
    least = labels_needed(max_error, delta, expected_error=0.0, coverage=1.0)
    certify = labels_needed(max_error, delta, expected_error=expected, coverage=coverage)
    found = {"at_least": least, "certify": certify, "total": 4 * certify}
    if as_json:
        print_json(found)
        return
    for line in (
        f"to promise at most {max_error:.3g} errors among accepted answers, with a chance of "
        f"{delta:.3g} to be wrong:",
        f"  {least} labels if every answer is accepted and right: fewer can never do",
        f"  {certify} labels to certify if {coverage:.0%} are accepted and {expected:.3g} of those "
        "are wrong",
        f"  {4 * certify} labels in all, as calibrate uses a quarter to certify",
    ):
        console().print(line, soft_wrap=True)
