"""The loop detector by hand, and on real texts of real models (skipped where they are absent)."""

from __future__ import annotations

import random

import pytest
from released import RELEASED, qwen_encode, released_records

from bitcal_integrations.decode.loops import EVERY, LONGEST_BLOCK, REPEATS, TOKENS, repeated_tail


@pytest.mark.parametrize("block", [1, 2, 7, LONGEST_BLOCK])
def test_a_loop_needs_repeats_and_tokens(block: int) -> None:
    words = list(range(100, 100 + block))
    needed = max(TOKENS, REPEATS * block)
    tokens = [1, 2, 3, *(words * needed)]
    assert repeated_tail(tokens[: 3 + needed + block]) is not None
    assert repeated_tail(tokens[: 3 + needed - 1]) is None


def test_a_block_that_changes_is_no_loop() -> None:
    assert repeated_tail([t for i in range(60) for t in (5, 6, 7, 100 + i)]) is None


def test_random_tokens_are_no_loop() -> None:
    rng = random.Random(0)
    assert all(repeated_tail([rng.randrange(3) for _ in range(400)]) is None for _ in range(200))


def first_loop(tokens: list[int]) -> int | None:
    """The token count at which decoding would have stopped."""
    cuts = range(EVERY, len(tokens) + 1, EVERY)
    return next((cut for cut in cuts if repeated_tail(tokens[:cut])), None)


@pytest.mark.skipif(not RELEASED.exists(), reason="the released runs are not here")
def test_false_stops_on_released_runs() -> None:
    """No loop stop comes before the answer in any of the right runs of the released records.

    A right run that is stopped before its answer would be lost: that is a false stop.
    """
    records = released_records()
    stops = [(r, first_loop(qwen_encode(r["generated_text"]))) for r in records]
    answered = [(r, at) for r, at in stops if r["correct_lenient"] and r["tok_answer_lenient"]]
    false = [r for r, at in answered if at is not None and at < r["tok_answer_lenient"]]
    assert len(answered) > 800
    assert false == []
    assert sum(at is not None for _, at in stops) > 0
