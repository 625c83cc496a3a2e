"""Answers of a model in memory to questions, through the package's own engine.

Knows questions and how long an answer may get; how tokens come is the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitcal_integrations.model import load
from bitcal_integrations.tiny.tasks import Question
from bitcal_integrations.types import Record

MAX_NEW_TOKENS = 160
PARSER = "tiny"


def answers(model: Any, tokenizer: Any, asked: Sequence[Question], batch: int = 64) -> list[Record]:
    """One Record per question, in order, greedy."""
    with load(model, tokenizer=tokenizer, profile=None, max_batch=batch) as served:
        records: list[Record] = served.ask(
            [q.messages for q in asked], parser=PARSER, max_new_tokens=MAX_NEW_TOKENS
        )
    return records
