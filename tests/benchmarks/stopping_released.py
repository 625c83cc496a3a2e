"""Text rules on the released runs of 4-bit Qwen2.5 models: what a complete answer saves.

    python tests/benchmarks/stopping_released.py [--budget 512]

The records hold texts and no scores, so only rules that read text can be replayed. All rules of a
model and budget see the same questions. `fixed` is the whole run, `adaptive` and `bitcal_tts` are
that controller as it was released; `L0` stops the whole run where the answer is complete, by our
parser or by the strict pattern of the release. Accuracy is of the text that each rule keeps, read
by our parser, or as its last number where that finds none (as the release does), with a Wilson
interval; the other intervals are of 10,000 paired bootstrap draws. Tokens are Qwen's.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from released import RELEASED, qwen_encode, qwen_pieces, released_records

from bitcal_integrations.bench.stops.numbers import Figure, Resample, share
from bitcal_integrations.grading import gsm8k, last_number, numeric

CELLS = (
    ("7B", "run10", 256), ("7B", "run10", 512), ("7B", "run10", 1024),
    ("14B", "run9", 512), ("14B", "run9", 1024),
    ("3B", "run6", 256), ("3B", "run6", 512), ("3B", "run6", 1024),
)  # fmt: skip
RULES = ("fixed", "adaptive", "bitcal_tts", "L0 strict pattern", "L0")
DRAWS = 10_000


class Line(NamedTuple):
    """A rule in one cell: shares in [0, 1], tokens a question; the last three against others."""

    size: str
    budget: int
    rule: str
    n: int
    released_accuracy: float | None
    accuracy: Figure
    tokens: Figure
    saved: Figure
    against_l0: Figure
    lost: Figure


def complete_at(text: str) -> int | None:
    """Tokens until our parser calls the growing text complete; None where it never does."""
    if "####" not in text:
        return None
    so_far = b""
    for index, piece in enumerate(qwen_pieces(text), start=1):
        so_far += piece
        shown = so_far.decode("utf-8", "ignore")
        if "####" in shown and gsm8k(shown, ended=False):
            return index
    return len(qwen_encode(text)) if gsm8k(text) else None


def kept(record: dict[str, Any], rule: str) -> tuple[str, int]:
    """The text that a rule keeps of a run, and how many tokens that took."""
    text, tokens = record["generated_text"], record["tokens_used"]
    if not rule.startswith("L0"):
        return text, tokens
    at = complete_at(text) if rule == "L0" else record["tok_answer_strict"]
    if at is None or at >= tokens:
        return text, tokens
    return b"".join(qwen_pieces(text)[:at]).decode("utf-8", "ignore"), at


def right(text: str, gold: str) -> bool:
    answer = gsm8k(text) or last_number(text)
    return answer is not None and numeric(answer.text, gold)


def cell(records: list[dict[str, Any]], size: str, run: str, budget: int) -> list[Line]:
    """One line per rule, over the questions that every method answered."""
    rows = {
        method: {
            r["task_id"]: r
            for r in records
            if (r["size"], r["run"], r["budget"], r["method"]) == (size, run, budget, method)
        }
        for method in RULES[:3]
    }
    tasks = sorted(set.intersection(*(set(found) for found in rows.values())))
    texts: dict[str, list[tuple[str, int]]] = {}
    for rule in RULES:
        found = rows[rule if rule in rows else "fixed"]
        texts[rule] = [kept(found[task], rule) for task in tasks]
    gold = [rows["fixed"][task]["gold_answer"] for task in tasks]
    good = {
        k: np.array([right(t, g) for (t, _), g in zip(v, gold, strict=True)])
        for k, v in texts.items()
    }
    took = {k: np.array([tokens for _, tokens in v]) for k, v in texts.items()}
    again = Resample(tasks, DRAWS)
    released = {k: np.mean([rows[k][t]["correct"] for t in tasks]) for k in rows}
    return [
        Line(
            size, budget, rule, len(tasks), released.get(rule), share(good[rule]),
            again.mean(took[rule]), again.saved(took[rule], took["fixed"]),
            again.saved(took[rule], took["L0"]), again.mean(good["fixed"] & ~good[rule]),
        )
        for rule in RULES
    ]  # fmt: skip


def lines(cells: tuple[tuple[str, str, int], ...] = CELLS) -> list[Line]:
    records = released_records()
    return [line for one in cells for line in cell(records, *one)]


def table(found: list[Line]) -> str:
    """Markdown."""
    head = (
        "| model, budget (n) | rule | accuracy as released | accuracy | tokens "
        "| saved against fixed | saved against L0 | fixed right, rule wrong |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *map(_row, found)])


def _row(line: Line) -> str:
    released = "" if line.released_accuracy is None else f"{line.released_accuracy:.3f}"
    accuracy = f"{line.accuracy.value:.3f} ({line.accuracy.low:.2f} to {line.accuracy.high:.2f})"
    tokens = f"{line.tokens.value:.1f} ({line.tokens.low:.0f} to {line.tokens.high:.0f})"
    saved, against = (
        f"{f.value:.1%} ({f.low:.1%} to {f.high:.1%})" for f in (line.saved, line.against_l0)
    )
    name = f"{line.size} at {line.budget} ({line.n})"
    cells = (
        name, line.rule, released, accuracy, tokens, saved, against, f"{line.lost.value:.1%}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--budget", type=int, choices=(256, 512, 1024), help="only this one")
    given = options.parse_args()
    if not RELEASED.exists():
        raise SystemExit(f"the released records are not here: {RELEASED}")
    wanted = tuple(c for c in CELLS if given.budget in (None, c[2]))
    print(table(lines(wanted)))


if __name__ == "__main__":
    main()
