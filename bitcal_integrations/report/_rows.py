"""Labelled rows as arrays, and what is read from one row: its group, score and shortened texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitcal_integrations.report.evaluation import WrongAnswer
from bitcal_integrations.types import Labelled

WORST, PROMPT_LENGTH, ANSWER_LENGTH, FACT_LENGTH = 10, 400, 200, 120


def number(value: float | None) -> float | None:
    """A plain float, or None where it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)


def known(row: Labelled) -> bool:
    return number(row.confidence.value) is not None


def group_of(row: Labelled) -> str:
    return row.group or row.id


@dataclass(frozen=True)
class Scored:
    """The judged rows that have every score that any judged row has, as arrays of one length.

    Raw and calibrated are compared on the same rows only. A score that no row has is None.
    """

    rows: Sequence[Labelled]
    y: np.ndarray
    groups: np.ndarray
    raw: np.ndarray | None
    value: np.ndarray | None

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def base(self) -> np.ndarray:
        """The share right of these very rows, said of every row."""
        return np.full(self.n, self.y.mean() if self.n else math.nan)

    def where(self, task: str | None, weights: str | None) -> np.ndarray:
        """Which rows are of this task and weight type; None means any."""
        fits = [
            (task is None or r.task == task) and (weights is None or r.weights == weights)
            for r in self.rows
        ]
        return np.array(fits, dtype=bool)


def scored(rows: Sequence[Labelled]) -> Scored:
    judged = [row for row in rows if row.correct is not None]
    table = {
        "raw": [number(row.confidence.raw) for row in judged],
        "value": [number(row.confidence.value) for row in judged],
    }
    there = {name: column for name, column in table.items() if any(v is not None for v in column)}
    full = [
        bool(there) and all(c[i] is not None for c in there.values()) for i in range(len(judged))
    ]
    keep = [i for i, whole in enumerate(full) if whole]
    columns = {name: np.array([c[i] for i in keep], dtype=float) for name, c in there.items()}
    return Scored(
        rows=[judged[i] for i in keep],
        y=np.array([judged[i].correct for i in keep], dtype=float),
        groups=np.array([group_of(judged[i]) for i in keep]),
        raw=columns.get("raw"),
        value=columns.get("value"),
    )


def most_confident_wrong(rows: Sequence[Labelled]) -> tuple[WrongAnswer, ...]:
    """By confidence, then by raw score, then by id, so that the order is always the same."""

    def rank(row: Labelled) -> tuple[float, float, str]:
        value, raw = number(row.confidence.value), number(row.confidence.raw)
        return (
            -(-1 if value is None else value),
            -(-1 if raw is None else raw),
            row.id,
        )

    has_score = [r for r in rows if known(r) or number(r.confidence.raw) is not None]
    wrong = sorted((r for r in has_score if r.correct is False), key=rank)
    return tuple(_wrong_answer(row) for row in wrong[:WORST])


def _wrong_answer(row: Labelled) -> WrongAnswer:
    prompt = row.prompt
    if not isinstance(prompt, str):
        prompt = "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    return WrongAnswer(
        id=row.id,
        prompt=shorten(prompt, PROMPT_LENGTH),
        answer=shorten(row.text if row.answer is None else row.answer, ANSWER_LENGTH),
        gold=shorten(str(row.gold), ANSWER_LENGTH),
        confidence=number(row.confidence.value),
        raw=number(row.confidence.raw),
        task=row.task,
        weights=row.weights,
    )


def shorten(text: str, most: int) -> str:
    """The beginning and the end: a question often stands after a long context.

    >>> shorten("abcdefghij", 7)
    'abc … j'
    """
    text = text.strip()
    if len(text) <= most:
        return text
    tail = (most - 3) // 3
    return f"{text[: most - 3 - tail].rstrip()} … {text[len(text) - tail :].lstrip()}"


def facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """A profile's summary as short texts."""
    return {str(key): shorten(_fact(value), FACT_LENGTH) for key, value in summary.items()}


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_fact(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
