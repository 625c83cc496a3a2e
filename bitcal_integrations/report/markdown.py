"""A report as Markdown: the same tables and sentences as the page, without its charts."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bitcal_integrations.report import tables
from bitcal_integrations.report.evaluation import Evaluation
from bitcal_integrations.report.words import (
    claims,
    count,
    findings,
    fixed,
    interval,
    overview,
    percent,
    promise,
    saving,
    wording,
)

# What could start a tag, a link, emphasis, code or a table cell.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&$])")


def draw_markdown(evaluation: Evaluation) -> str:
    """The whole text."""
    e = evaluation
    parts = [f"# {plain(e.title)}", plain(overview(e)), *_headline(e), *_promises(e)]
    parts += [*_reliability(e), *_stops(e), *_breakdowns(e), *_wrong(e), *_unknown(e)]
    parts += _claims(e)
    if e.profile:
        parts += ["## The profile", _bullets([f"{k}: {v}" for k, v in e.profile.items()])]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> plain("a|b <i>\nc")
    'a\\|b \\<i\\> c'
    """
    readable = text.encode("utf-8", "replace").decode()
    return _SPECIAL.sub(r"\\\1", " ".join(readable.split()))


def _table(head: Sequence[str], rows: Sequence[Sequence[tables.Cell]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    table = [
        "| " + " | ".join(plain(c) for c in lines[0]) + " |",
        "| " + " | ".join(lines[1]) + " |",
    ]
    return "\n".join(table + ["| " + " | ".join(map(_cell, row)) + " |" for row in rows])


def _cell(cell: tables.Cell) -> str:
    return plain(cell if isinstance(cell, str) else " ".join(part for part in cell if part))


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {plain(item)}" for item in items)


def _headline(e: Evaluation) -> list[str]:
    words = wording(e.claim)
    share = f"{words.accuracy.capitalize()}: {percent(e.accuracy.value)} "
    lines = [(share + interval(e.accuracy, share=True)).strip(), *findings(e)]
    return ["## How good is the confidence?", _bullets(lines), _table(*tables.scores(e)),
            plain(tables.scores_note(e))]  # fmt: skip


def _promises(e: Evaluation) -> list[str]:
    said = [plain(" ".join(promise(p))) for p in e.promises]
    return ["## What is promised", *said] if said else []


def _reliability(e: Evaluation) -> list[str]:
    parts = []
    for view in e.views:
        rows = [
            (f"{fixed(b.low)} to {fixed(b.high)}", count(b.n), fixed(b.confidence),
             (percent(b.accuracy), f"[{percent(b.accuracy_low)}, {percent(b.accuracy_high)}]"))
            for b in view.bins
        ]  # fmt: skip
        share = f"share {wording(e.claim).right}"
        parts += [f"### {view.name.capitalize()}",
                  _table(("confidence", "answers", "mean", share), rows)]  # fmt: skip
    return ["## Does the confidence come true?", *parts] if parts else []


def _stops(e: Evaluation) -> list[str]:
    if e.stops is None:
        return []
    said = [plain(text) for text in saving(e.stops)]
    return ["## What was saved by ending early?", *said, _table(*tables.stops(e.stops, e))]


def _breakdowns(e: Evaluation) -> list[str]:
    parts = []
    for breakdown in e.breakdowns:
        parts += [f"### By {plain(breakdown.by)}", _table(*tables.slices(breakdown, e))]
    return ["## Where does it hold?", *parts, tables.slices_note()] if parts else []


def _wrong(e: Evaluation) -> list[str]:
    title = f"## The most confident {wording(e.claim).wrong} answers"
    items = []
    for number, w in enumerate(e.wrong, 1):
        shown = tables.wrong_answer(w)
        lines = [f"{number}. {plain(': '.join(shown[0]))}"]
        items.append("\n".join(lines + [f"    - {plain(': '.join(pair))}" for pair in shown[1:]]))
    return [title, "\n".join(items)] if items else []


def _unknown(e: Evaluation) -> list[str]:
    if not e.finishes:
        return []
    parts = ["## What is not known?", _table(*tables.finishes(e))]
    if e.reasons:
        parts.append(_table(*tables.reasons(e)))
    if e.shifted:
        parts.append(tables.shifted(e))
    return parts


def _claims(e: Evaluation) -> list[str]:
    claimed, refused = claims(e)
    return ["## What is claimed, and what is not", "Claimed:", _bullets(claimed),
            "Not claimed:", _bullets(refused)]  # fmt: skip
