"""`bitcal label`: shows answers that nobody has judged, one by one, and keeps the verdicts.

Answers are kept in a file, or in a store of records, of which those are shown that were picked.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from bitcal_integrations.cli._stored import is_store

if TYPE_CHECKING:
    from bitcal_integrations.monitor._rows import StoredRecord
    from bitcal_integrations.types import Prompt

KEYS = {"r": True, "w": False}
REVIEW = "review"  # the source of these labels: not users, who report what they like


def label(
    answers: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What evaluate or calibrate kept (--answers), or a store of records.",
        ),
    ],
    again: Annotated[
        bool, typer.Option("--again", help="Also show those that have a verdict.")
    ] = False,
    pick: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of a store: first pick about N more of its answers."),
    ] = None,
) -> None:
    """Judge answers in the terminal: right, wrong, skip."""
    if is_store(answers):
        _of_store(answers, pick, again)
        return
    if pick is not None:
        from bitcal_integrations.errors import BadRequest

        raise BadRequest(f"--pick is for a store of records, and {answers!r} is none")
    _of_file(answers, again)


def _of_file(answers: str, again: bool) -> None:
    from bitcal_integrations.answered import add_verdicts
    from bitcal_integrations.cli._show import console

    screen = console()
    with add_verdicts(answers) as (kept, keep):
        rows = list(kept.rows.values())
        open_rows = [r for r in rows if again or r.correct is None]
        shown = [Shown(r.prompt, r.answer or r.text, r.gold) for r in open_rows]
        judged = 0
        for index, verdict in _judged(screen, shown, sys.stdin.readline):
            keep(replace(open_rows[index], correct=verdict))
            judged += 1
    _tell(screen, judged, len(shown), answers, f"all {len(rows)} answers have a verdict")
    screen.print(after(answers, kept.header), soft_wrap=True)


def _of_store(url: str, pick: int | None, again: bool) -> None:
    from bitcal_integrations.cli._show import console
    from bitcal_integrations.errors import BadRequest
    from bitcal_integrations.monitor.labels import open_picks, pick_labels
    from bitcal_integrations.monitor.store import Store

    screen = console()
    with Store(url) as store:
        if not store.text:
            raise BadRequest(
                f"{url!r} keeps no text, so there is nothing to show",
                "Say what is right where the texts are: monitor.feedback(record_id, correct=...).",
            )
        if pick is not None:
            pick_labels(store, pick)
        picked = [r for r in (store.records() if again else open_picks(store)) if r.pick]
        judged = 0
        for index, verdict in _judged(screen, [*map(_shown, picked)], sys.stdin.readline):
            store.label(picked[index].id, verdict, source=REVIEW)
            judged += 1
    none = "no picked answer lacks a verdict; --pick N picks more"
    _tell(screen, judged, len(picked), url, none)


class Shown(NamedTuple):
    """What is looked at: a question, its answer and what is right, where that is known."""

    prompt: Prompt
    answer: str
    gold: Any = None


def _shown(row: StoredRecord) -> Shown:
    answer = row.record.generation.answer
    gold = row.label.gold if row.label else None
    return Shown(row.record.request.prompt, answer.text if answer else row.record.text, gold)


def _tell(screen: Any, judged: int, shown: int, where: str, none: str) -> None:
    if shown:
        screen.print(f"{judged} judged, {shown - judged} left; kept in {where}", soft_wrap=True)
    else:
        screen.print(f"nothing to judge: {none}", soft_wrap=True)


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


def _judged(
    screen: Any, rows: Sequence[Shown], ask: Callable[[], str]
) -> Iterator[tuple[int, bool]]:
    """(index, verdict) as they are given; ends at q or at the end of the input."""
    for index, row in enumerate(rows):
        draw(screen, row, index + 1, len(rows))
        while True:
            screen.print("right, wrong, skip or quit? [r/w/s/q] ", end="")
            line = ask()
            key = line.strip().lower()[:1]
            if not line or key == "q":
                screen.print()
                return
            if key in KEYS:
                yield index, KEYS[key]
                break
            if key == "s":
                break
            screen.print(f"{line.strip()!r} is none of r, w, s, q")


def draw(screen: Any, row: Shown, number: int, total: int) -> None:
    """One question with its answer."""
    prompt = row.prompt if isinstance(row.prompt, str) else str(row.prompt[-1]["content"])
    screen.print(f"\n{number} of {total}", style="bold")
    screen.print(prompt, soft_wrap=True)
    screen.print(f"answer  {row.answer}", style="cyan", soft_wrap=True)
    if row.gold is not None:
        screen.print(f"gold    {row.gold}", soft_wrap=True)
