"""The gate in numbers: what passes, what does not, and how often luck passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from bitcal_integrations.gate import FEWEST, clustered_error, judge
from bitcal_integrations.types import Confidence, Labelled


def rows(
    raw: Sequence[float | None], right: Sequence[bool | None], groups: Sequence[str] | None = None
) -> list[Labelled]:
    return [
        Labelled(
            id=str(n), group=groups[n] if groups else str(n), prompt="q", gold="a", text="a",
            answer="a", finish="stop", correct=right[n], confidence=Confidence(raw=raw[n]),
        )
        for n in range(len(raw))
    ]  # fmt: skip


RIGHT = [n % 4 != 0 for n in range(200)]


def test_a_clear_gain_passes_with_its_numbers() -> None:
    """By hand: .25 for one half everywhere; .0625 where .75 is right, and .5625 where it is not."""
    found = judge(rows([0.5] * 200, RIGHT), rows([0.75] * 200, RIGHT))
    assert found["kept"]
    assert found["brier"].before == pytest.approx(0.25)
    assert found["brier"].after == pytest.approx(0.75 * 0.0625 + 0.25 * 0.5625)
    assert found["ece"] == (pytest.approx(0.25), pytest.approx(0))
    assert found["auroc"] == (0.5, 0.5)
    assert found["accuracy"].difference == 0
    assert (found["accuracy"].n, found["accuracy"].groups) == (200, 200)
    assert found["unknown"] == (0, 0)


def test_a_gain_of_confidence_does_not_pay_for_wrong_answers() -> None:
    fewer = [right and n % 40 != 1 for n, right in enumerate(RIGHT)]
    after = rows([0.99 if right else 0.01 for right in fewer], fewer)
    found = judge(rows([0.5] * 200, RIGHT), after)
    assert not found["kept"]
    assert found["brier"].difference < -0.2
    assert found["why"] == "the share of right answers fell from 0.7500 to 0.7250"


@pytest.mark.parametrize(("lost", "kept"), [(0, True), (1, False), (2, False)])
def test_no_right_answer_may_be_lost(lost: int, kept: bool) -> None:
    fewer = [right and n not in [1, 2][:lost] for n, right in enumerate(RIGHT)]
    after = rows([0.99 if right else 0.01 for right in fewer], fewer)
    error = math.sqrt(lost * (1 - lost / 200) / 199 / 200)
    found = judge(rows([0.5] * 200, RIGHT), after)
    assert found["accuracy"].error == pytest.approx(error)
    assert found["kept"] is kept


def test_a_small_gain_is_refused_and_none_too() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(0.7 + 0.2 * rng.standard_normal(200), 0, 1).tolist()
    found = judge(rows([0.7] * 200, RIGHT), rows(noisy, RIGHT))
    assert not found["kept"]
    assert "standard errors" in found["why"]
    assert not judge(rows([0.7] * 200, RIGHT), rows([0.7] * 200, RIGHT))["kept"]


def test_luck_passes_as_rarely_as_it_should() -> None:
    """Nothing but noise: two standard errors are passed on one side about once in 44 times."""
    rng = np.random.default_rng(1)
    passed = 0
    for _ in range(400):
        right = (rng.random(150) < 0.7).tolist()
        one, two = (np.clip(0.7 + 0.1 * rng.standard_normal(150), 0, 1).tolist() for _ in "ab")
        passed += judge(rows(one, right), rows(two, right))["kept"]
    assert passed / 400 < 0.0228 + 3 * math.sqrt(0.0228 * 0.9772 / 400)


def test_rows_of_one_group_count_once() -> None:
    """Each row ten times over: the same error as of the rows alone."""
    rng = np.random.default_rng(2)
    off = rng.standard_normal(40)
    groups = [str(n) for n in range(40)]
    alone = clustered_error(off, groups)
    assert alone == pytest.approx(float(np.std(off, ddof=1)) / math.sqrt(40))
    assert clustered_error(np.repeat(off, 10), [g for g in groups for _ in range(10)]) == (
        pytest.approx(alone)
    )
    assert clustered_error(off, ["one"] * 40) == math.inf


def test_the_unknown_are_counted_and_not_scored() -> None:
    before = rows([None, *[0.5] * 199], RIGHT)
    after = rows([*[0.9] * 198, None, None], [*RIGHT[:198], None, RIGHT[199]])
    found = judge(before, after)
    assert found["unknown"] == (1, 2)
    assert (found["brier"].n, found["accuracy"].n) == (197, 199)


def test_answers_that_lose_their_confidence_are_no_gain() -> None:
    """All wrong answers become empty texts: what is left looks better."""
    silent: list[float | None] = [0.9 if right else None for right in RIGHT]
    found = judge(rows([0.5] * 200, RIGHT), rows(silent, RIGHT))
    assert found["brier"].difference < -0.2
    assert not found["kept"]
    assert found["why"] == "50 of 200 answers have no confidence, and before 0 had none"


def test_too_few_known_answers_are_no_ground() -> None:
    few = FEWEST - 1
    raw = [0.5] * few + [None] * (200 - few)
    found = judge(rows(raw, RIGHT), rows([0.9] * 200, RIGHT))
    assert not found["kept"]
    assert found["why"].startswith("29 groups of held-out questions have a confidence")
    none = judge(rows([None] * 200, RIGHT), rows([0.9] * 200, RIGHT))
    assert not none["kept"]
    assert none["auroc"] == (None, None)
