"""Labelled rows for the tests of reports: single ones, and some that look like a real run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest

from bitcal_integrations.types import Confidence, Labelled

Row = Callable[..., Labelled]


def labelled(number: int, value: float | None, correct: bool | None, **fields: Any) -> Labelled:
    raw, reason = fields.pop("raw", value), fields.pop("reason", "")
    given = {
        "id": f"row-{number}", "group": f"group-{number}", "prompt": "How many?", "gold": "4",
        "text": "It is 5", "answer": "5", "finish": "answer", "correct": correct,
        "confidence": Confidence(value, value is not None, raw=raw, reason=reason),
    }  # fmt: skip
    return Labelled(**{**given, **fields})


@pytest.fixture
def row() -> Row:
    """row(value, correct, raw=..., any field of Labelled) with a fresh id each time."""
    numbers = count()
    return lambda value, correct, **fields: labelled(next(numbers), value, correct, **fields)


@pytest.fixture
def four(row: Row) -> list[Labelled]:
    """Four rows whose scores are worked out by hand in the tests."""
    return [
        row(0.91, True, raw=0.95),
        row(0.81, False, raw=0.90),
        row(0.61, True, raw=0.70),
        row(0.31, False, raw=0.50),
    ]


@pytest.fixture(scope="session")
def many() -> list[Labelled]:
    """400 rows: 3 tasks, 4 weight types, 100 groups, overconfident raw score."""
    rng = np.random.default_rng(11)
    rows = []
    for i in range(400):
        p = float(rng.beta(3, 2))
        cut = i % 17 == 0
        rows.append(
            labelled(
                i,
                None if cut else p,
                None if i % 29 == 0 else bool(rng.random() < p),
                raw=p**0.5,
                reason="no_answer: the text was cut at max_new_tokens" if cut else "",
                finish="length" if cut else "answer",
                group=f"q{i // 4}",
                task=("arithmetic", "capitals", "reading")[i // 4 % 3],
                weights=("none", "qint8", "qint4", "qint2")[i % 4],
                by={"level": "easy" if i % 2 else "hard"},
            )
        )
    return rows
