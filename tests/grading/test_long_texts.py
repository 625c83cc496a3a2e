"""What reads a text takes a time that grows with its length, whatever a model may repeat in it."""

from __future__ import annotations

import time

import pytest

from bitcal_integrations.grading import PARSERS, as_parser
from bitcal_integrations.grading._code import program
from bitcal_integrations.grading._judge import verdict
from bitcal_integrations.signals._variants import lettered, without_last_passage

READERS = {
    **{name: as_parser(name) for name in PARSERS},
    "program": program,
    "verdict": verdict,
    "lettered": lettered,
    "without_last_passage": without_last_passage,
}
REPEATED = [
    *("#", "#### ", "\n", " ", "answer *", "answer is ", " is", "A. x\n", "1,000", "-"),
    *("```\n", "<context>", "context: ", "-----\n", "verdict ", "<think>", "\n\na"),
]


@pytest.mark.parametrize("name", READERS)
def test_no_repetition_takes_long(name: str) -> None:
    """34 texts of 24,000 characters: seconds at most, where a quadratic pattern takes minutes."""
    began = time.process_time()
    for piece in REPEATED:
        text = piece * (24_000 // len(piece))
        READERS[name](text)
        READERS[name](f"context:{text}x")
    assert time.process_time() - began < 5
