"""`bitcal label`: shows kept answers that nobody has judged, one by one, and keeps the verdicts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bitcal_integrations.types import Labelled

KEYS = {"r": True, "w": False}


def label(
    answers: Annotated[
        str, typer.Argument(metavar="FILE", help="What evaluate or calibrate kept: --answers.")
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Also show those that have a verdict.")
    ] = False,
) -> None:
    """Judge answers in the terminal: right, wrong, skip."""
    from bitcal_integrations.answered import add_verdicts
    from bitcal_integrations.cli._show import console

    screen = console()
    judged = 0
    with add_verdicts(answers) as (kept, keep):
        rows = list(kept.rows.values())
        open_rows = [r for r in rows if again or r.correct is None]
        for row in _judged(screen, open_rows, sys.stdin.readline):
            keep(row)
            judged += 1
    if open_rows:
        screen.print(f"{judged} judged, {len(open_rows) - judged} left; kept in {answers}")
    else:
        screen.print(f"nothing to judge: all {len(rows)} answers have a verdict")
    screen.print(after(answers, kept.header), soft_wrap=True)


def after(answers: str, header: Mapping[str, Any]) -> str:
    """What to run next: the same model, prompts and options as those of the answers."""
    options = [(name.replace("_", "-"), value) for name, value in header["options"].items()]
    options += [("grader", header["grader"])] if header["grader"] != "normalised" else []
    said = shlex.join(
        word for name, value in options for word in (f"--{name}", str(value))
        if name in ("parser", "max-new-tokens", "grader")
    )  # fmt: skip
    return (
        "next, with the MODEL, --weights and --data of evaluate: "
        f"bitcal calibrate MODEL --data FILE --answers {shlex.quote(answers)} {said}"
    ).rstrip()


def _judged(screen: Any, rows: list[Labelled], ask: Callable[[], str]) -> Any:
    """Rows with a verdict, as they are given; ends at q or at the end of the input."""
    for number, row in enumerate(rows, 1):
        draw(screen, row, number, len(rows))
        while True:
            screen.print("right, wrong, skip or quit? [r/w/s/q] ", end="")
            line = ask()
            key = line.strip().lower()[:1]
            if not line or key == "q":
                screen.print()
                return
            if key in KEYS:
                yield replace(row, correct=KEYS[key])
                break
            if key == "s":
                break
            screen.print(f"{line.strip()!r} is none of r, w, s, q")


def draw(screen: Any, row: Labelled, number: int, total: int) -> None:
    """One question with its answer."""
    prompt = row.prompt if isinstance(row.prompt, str) else str(row.prompt[-1]["content"])
    screen.print(f"\n{number} of {total}", style="bold")
    screen.print(prompt, soft_wrap=True)
    screen.print(f"answer  {row.answer or row.text}", style="cyan", soft_wrap=True)
    if row.gold is not None:
        screen.print(f"gold    {row.gold}", soft_wrap=True)
