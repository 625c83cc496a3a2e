"""`bitcal evaluate`: ask and grade examples with a model as it is, and show how far to trust it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitcal_integrations.cli._labelled import (
    Answers,
    Data,
    Grader,
    GroupBy,
    GroupId,
    MaxNewTokens,
    Parser,
    Task,
)
from bitcal_integrations.cli._options import Device, Dtype, Model, Weights, weights_of
from bitcal_integrations.cli._server import Api, Served, server_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitcal_integrations.types import Labelled


def evaluate(
    model: Model,
    data: Data,
    weights: Weights = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    served: Served = None,
    api: Api = None,
    profile: Annotated[
        str, typer.Option(metavar="FILE", help="A profile, none, or auto: beside the weights.")
    ] = "auto",
    parser: Parser = None,
    grader: Grader = None,
    task: Task = "default",
    group_id: GroupId = None,
    group_by: GroupBy = None,
    max_new_tokens: MaxNewTokens = 512,
    early_stop: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="End answers early as the profile is certified: conservative, balanced or fast.",
        ),
    ] = None,
    answers: Answers = None,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also write the report, as HTML.")
    ] = None,
) -> None:
    """Answer and grade examples; show accuracy and calibration."""
    from bitcal_integrations.cli._labelled import writable
    from bitcal_integrations.cli._show import console, dim, progress
    from bitcal_integrations.fit import evaluate as run
    from bitcal_integrations.model import load

    remote = server_arguments(model, served, api, None, None)
    if report:
        writable(report)
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens}
    options |= {"parser": parser} if parser else {}
    options |= {"early_stop": early_stop} if early_stop else {}
    with progress() as shown:
        loaded = load(
            model, weights=weights_of(weights), dtype=dtype, device=device,
            profile=None if profile == "none" else profile, progress=shown, **remote,
        )  # fmt: skip
        with loaded:
            rows = run(
                loaded, data, grader=grader, task=task, group_id=group_id,
                group_by=group_by or (), answers=answers, progress=shown, **options,
            )  # fmt: skip
            measured = loaded.profile
    draw(console(), rows)
    if all(row.correct is None for row in rows):
        how = f"bitcal label {answers}" if answers else "--answers FILE and bitcal label FILE"
        dim(f"no verdicts: no example has a right answer (gold); judge them with {how}")
    if early_stop and not any(row.stop for row in rows):
        dim(f"--early-stop {early_stop}: no certificate holds here, so no answer could end early")
    if report:
        from bitcal_integrations.cli.report import page

        page(rows, measured, report, f"{model}, {rows[0].weights} weights")
        console().print(f"report written to {report}", soft_wrap=True)


def draw(screen: Any, rows: Sequence[Labelled]) -> None:
    """How many were right, and the scores of both confidences."""
    from bitcal_integrations.cli._labelled import score_table

    made_on = Counter(r.part for r in rows if r.part in ("fit", "certify"))
    if made_on:
        which = " and ".join(f"{n} to {part}" for part, n in sorted(made_on.items(), reverse=True))
        screen.print(
            f"left out: {sum(made_on.values())} of {len(rows)} examples, because this profile was "
            f"made on them ({which}): a score looks better on the rows that made it",
            soft_wrap=True,
        )
    rows = [r for r in rows if r.part not in made_on]
    if not rows:
        screen.print("nothing is left to measure: evaluate on other examples")
        return
    judged = [r for r in rows if r.correct is not None]
    right = sum(bool(r.correct) for r in judged)
    screen.print(
        f"{len(rows)} examples, {len(judged)} judged: {right} right"
        + (f" ({right / len(judged):.1%})" if judged else "")
        + f"; {unknown(rows)}",
        soft_wrap=True,
    )
    if judged:
        screen.print(score_table(scores(judged)))
    for text in stopped(rows):
        screen.print(text, soft_wrap=True)


def stopped(rows: Sequence[Labelled]) -> list[str]:
    """What ending early has cost and saved; nothing where no answer could."""
    from bitcal_integrations.report._stops import stops
    from bitcal_integrations.report.words import saving

    found = stops(rows)
    return saving(found) if found else []


def unknown(rows: Sequence[Labelled]) -> str:
    """How many answers have no confidence, and the most frequent reason."""
    reasons = Counter(r.confidence.reason for r in rows if r.confidence.value is None)
    text = f"confidence unknown for {reasons.total()}"
    if not reasons:
        return text
    reason, n = reasons.most_common(1)[0]
    often = "" if n == reasons.total() else f"most often, {n} times, "
    return f"{text} ({often}{reason})"


def scores(rows: Sequence[Labelled]) -> dict[str, Any]:
    """Metrics of the raw and of the calibrated score, each over the rows that have it."""
    import numpy as np

    from bitcal_integrations import metrics

    found: dict[str, Any] = {}
    y = np.array([bool(r.correct) for r in rows], dtype=float)
    groups = np.array([r.group for r in rows], dtype=object)
    found["base"] = metrics.summary(np.full(len(y), y.mean()), y, groups=groups)
    for name, values in (
        ("raw", [r.confidence.raw for r in rows]),
        ("calibrated", [r.confidence.value for r in rows]),
    ):
        known = np.array([v is not None for v in values])
        if known.any():
            p = np.array([v for v in values if v is not None], dtype=float)
            found[name] = metrics.summary(p, y[known], groups=groups[known])
    return found
