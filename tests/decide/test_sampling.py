"""VoteTally: the leader, how sure the vote is, and when to stop drawing."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from bitcal_integrations.decide.sampling import VoteTally, refuse_greedy
from bitcal_integrations.errors import BadRequest


def tally(*answers: str | None, **options: Any) -> VoteTally:
    made = VoteTally(**options)
    for answer in answers:
        made.add(answer)
    return made


@pytest.mark.parametrize("a", [0, 1, 3, 7])
@pytest.mark.parametrize("b", [0, 1, 2, 3])
def test_the_posterior_is_scipys_beta(a: int, b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    votes = ["x"] * a + ["y"] * b
    if not votes:
        assert tally().posterior is None
        return
    first, second = max(a, b), min(a, b)
    expected = stats.beta(first + 1, second + 1).sf(0.5)
    assert tally(*votes, max_samples=20).posterior == pytest.approx(expected, abs=1e-12)


def test_the_posterior_by_hand() -> None:
    # P(Beta(a + 1, 1) > 1/2) = 1 - 2^-(a + 1); P(Beta(3, 2) > 1/2) = 11/16
    assert [tally(*"x" * a).posterior for a in (1, 2, 3)] == pytest.approx([0.75, 0.875, 0.9375])
    assert tally("x", "x", "y").posterior == pytest.approx(11 / 16)
    assert tally("x", "y").posterior == pytest.approx(0.5)
    assert tally("x", "y", "z", "x").posterior == pytest.approx(11 / 16)  # only the first two


def test_it_stops_once_the_leader_is_clear() -> None:
    made = tally("x", "x", "x")
    assert not made.done
    made.add("x")
    assert made.done
    assert not tally("x", "x", "x", "y", "x").done
    assert tally("x", "x", "x", "y", "x", stop_at=0.8).done
    assert tally("x", "x", "x", "x", stop_at=0.96875).done  # reached is enough


def test_at_most_and_at_least() -> None:
    assert tally(*"xyxyxyxy").done
    assert not tally(*"xyxyxyx").done
    assert not tally("x", stop_at=0.6).done
    assert tally("x", stop_at=0.6, min_samples=1).done
    assert not tally(*"xxxxxxx", stop_at=1.0).done
    assert (tally(max_samples=1).min_samples, tally().min_samples) == (1, 2)
    assert tally("x", max_samples=1).done


def test_an_answer_that_was_not_found_has_no_vote() -> None:
    made = tally(None, None, max_samples=3)
    assert (made.leader, made.posterior, made.counts, made.done) == (None, None, {}, False)
    made.add("x")
    assert (made.leader, made.counts, made.done) == ("x", {"x": 1.0}, True)


def test_of_equals_the_first_leads() -> None:
    assert tally("b", "a", "a", "b").leader == "b"
    assert list(tally("b", "a").counts) == ["b", "a"]


def test_weights_count_as_votes() -> None:
    stats = pytest.importorskip("scipy.stats")
    made = VoteTally()
    for answer, weight in (("x", 0.9), ("y", 0.3), ("x", 0.7)):
        made.add(answer, weight)
    assert made.counts == pytest.approx({"x": 1.6, "y": 0.3})
    assert made.posterior == pytest.approx(stats.beta(2.6, 1.3).sf(0.5), abs=1e-12)


def test_counts_are_a_copy() -> None:
    made = tally("x")
    made.counts["x"] = 9.0
    assert made.counts == {"x": 1.0}


def test_it_saves_samples_and_keeps_the_majority() -> None:
    """Of models that answer right with probability .8, the vote stops early with that answer."""
    rng = random.Random(0)
    drawn, right = [], 0
    for _ in range(400):
        made = VoteTally(max_samples=20)
        while not made.done:
            made.add("right" if rng.random() < 0.8 else rng.choice("abc"))
        drawn.append(made.n)
        right += made.leader == "right"
    assert sum(drawn) / 400 < 8
    assert right / 400 > 0.97


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"max_samples": 0}, "max_samples=0"),
        ({"max_samples": 2.0}, "max_samples=2.0"),
        ({"min_samples": True}, "min_samples=True"),
        ({"min_samples": 9}, "min_samples=9 is above max_samples=8"),
        ({"stop_at": 0}, "stop_at=0"),
        ({"stop_at": 1.1}, "stop_at=1.1"),
        ({"stop_at": "0.9"}, "stop_at='0.9'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], quoted: str) -> None:
    with pytest.raises(BadRequest, match=quoted):
        VoteTally(**options)


def test_a_bad_vote_is_quoted() -> None:
    with pytest.raises(BadRequest, match="answer 42"):
        VoteTally().add(42)  # type: ignore[arg-type]
    for weight in (-1.0, math.nan, math.inf, True):
        with pytest.raises(BadRequest, match="weight="):
            VoteTally().add("x", weight)


def test_greedy_samples_are_refused() -> None:
    refuse_greedy(0.7)
    for temperature in (0, 0.0, None, -1, math.nan):
        with pytest.raises(BadRequest, match="every one is the same answer"):
            refuse_greedy(temperature)
