"""The answer-complete stop against the released GSM8K runs of 4-bit Qwen models.

`tok_answer_lenient` counts the tokens until the first marked number is complete. It was found with
the whole text in view; while a text grows, a dot after a number needs one more token to show that
no decimals follow (6 of the 1,711 texts). Two texts answer with a fraction, 44/75, of which the
count took the 44 and we take the whole.
"""

from __future__ import annotations

from collections import Counter

import pytest
from released import RELEASED, qwen_encode, qwen_pieces, released_records

from bitcal_integrations.grading import gsm8k, numeric

pytestmark = pytest.mark.skipif(not RELEASED.exists(), reason="the released runs are not here")


def stop_token(text: str) -> int | None:
    """Tokens until the parser calls the growing text complete, as the decode loop asks it."""
    if "####" not in text:
        return None
    so_far = b""
    for index, piece in enumerate(qwen_pieces(text), start=1):
        so_far += piece
        shown = so_far.decode("utf-8", "ignore")
        if "####" in shown and gsm8k(shown, ended=False):
            return index
    return len(qwen_encode(text)) if gsm8k(text) else None


def test_the_stop_is_where_the_release_counts_it() -> None:
    records = released_records()
    assert all(len(qwen_encode(r["generated_text"])) == r["n_tok_retokenised"] for r in records)
    late: Counter[int | None] = Counter()
    for record in records:
        expected, got = record["tok_answer_lenient"], stop_token(record["generated_text"])
        late[None if (expected is None) != (got is None) else (got or 0) - (expected or 0)] += 1
    assert late == {0: 1703, 1: 6, 3: 2}


def test_stopping_there_loses_no_right_answer() -> None:
    for record in released_records():
        at = stop_token(record["generated_text"])
        if at is None:
            continue
        whole = gsm8k(record["generated_text"])
        stopped = b"".join(qwen_pieces(record["generated_text"])[:at]).decode("utf-8", "ignore")
        early = gsm8k(stopped)
        assert whole is not None
        assert early is not None
        assert numeric(early.text, whole.text) or early.text == whole.text
