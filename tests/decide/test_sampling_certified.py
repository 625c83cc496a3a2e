"""The certified rule: its evidence by hand, its error rate, and what it refuses."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from bitcal_integrations.decide._sampling_bets import Bet, Bets
from bitcal_integrations.decide.sampling import VoteTally, lowest_group, weak_below
from bitcal_integrations.errors import BadRequest


def certified(*answers: str | None, **options: Any) -> VoteTally:
    made = VoteTally(**{"max_samples": 40, **options}, rule="certified")
    for answer in answers:
        made.add(answer)
    return made


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (3, 0), (0, 2), (4, 1), (2, 5), (11, 3)])
def test_the_capital_is_the_mean_over_its_stakes(won: int, lost: int) -> None:
    """Half on t = 1, half uniform on [1/2, 1], integrated by the midpoint rule."""
    steps = 5_000
    places = [0.5 + (i + 0.5) / (2 * steps) for i in range(steps)]
    uniform = sum((2 * t) ** won * (2 - 2 * t) ** lost for t in places) / steps
    sure = 2.0**won if lost == 0 else 0.0
    assert Bet(won, lost).capital == pytest.approx((uniform + sure) / 2, rel=1e-5)


def test_small_cases_by_hand() -> None:
    # Uniform part: 2 * the integral of (2t)^n over [1/2, 1] = (2^(n+1) - 1) / (n + 1).
    # The first vote has no leader to bet on, so that n votes are n - 1 wins.
    for votes in range(1, 8):
        wins = votes - 1
        expected = 2**wins / 2 + (2 ** (wins + 1) - 1) / (wins + 1) / 2
        assert certified(*"x" * votes).e_value == pytest.approx(expected)
    # x, then y: lost once, and half of it had bet on t = 1. 2 * integral of (2 - 2t) = 1/2
    assert certified("x", "y").e_value == pytest.approx(1 / 4)
    assert certified().e_value is None
    assert certified(None).e_value is None


def test_the_bets_are_placed_before_the_vote() -> None:
    """x, y, y: the last bet against x backs y (won), that against y backs x (lost twice)."""
    bets = Bets()
    for answer in "xyy":
        bets.add(answer)
    assert (bets._seen["x"], bets._seen["y"]) == (Bet(1, 0), Bet(0, 2))
    assert bets._unseen == Bet(0, 0)  # of what never came: x led both times, and y came
    assert bets.against("y") == min(Bet(1, 0).capital, Bet(0, 0).capital) == 1.0


def test_an_answer_that_comes_late_takes_over_the_bets_against_the_unseen() -> None:
    bets = Bets()
    for answer in "xxxz":
        bets.add(answer)
    assert bets._seen["z"] == Bet(2, 1)
    assert bets._unseen == Bet(2, 0)
    assert bets.against("x") == Bet(2, 1).capital


def test_when_it_stops() -> None:
    assert not certified(*"xxxxx").done
    made = certified(*"xxxxxx")
    assert (made.done, made.clear, made.leader) == (True, True, "x")
    assert made.e_value == pytest.approx(21.25)
    assert not certified(*"xxxxxx", stop_at=0.96).done  # 1 / .04 is 25
    assert certified(*"xxxxxxx", stop_at=0.96).done
    assert not certified(*"x" * 39, stop_at=1.0).done  # no evidence is enough for certainty
    spent = certified(*"xyxyxy", max_samples=6)
    assert (spent.done, spent.clear) == (True, False)
    assert certified(*"xxx", None, None, *"xxx").clear  # a sample without an answer bets on nothing


def _rates(chances: list[float], delta: float, draws: int) -> tuple[float, float]:
    """(share of runs that certify, share that certify an answer that is not a most likely one)."""
    rng = random.Random(7)
    names = "abcd"[: len(chances)]
    best = {n for n, p in zip(names, chances, strict=True) if p == max(chances)}
    made = wrong = 0
    for _ in range(draws):
        tally = VoteTally(40, 1 - delta, rule="certified")
        while not tally.done:
            tally.add(rng.choices(names, chances)[0])
        made += tally.clear
        wrong += tally.clear and tally.leader not in best
    return made / draws, wrong / draws


@pytest.mark.parametrize("chances", [[0.4, 0.35, 0.25], [0.51, 0.49], [0.26, 0.25, 0.25, 0.24]])
def test_wrong_certificates_are_rarer_than_delta(chances: list[float]) -> None:
    delta, draws = 0.2, 250
    _, wrong = _rates(chances, delta, draws)
    assert wrong <= delta + 3 * math.sqrt(delta * (1 - delta) / draws)


def test_of_two_equally_likely_answers_either_may_lead() -> None:
    """Both are modes, so no certificate is wrong; each is certified in at most delta of runs."""
    delta, draws = 0.2, 250
    made, wrong = _rates([0.5, 0.5], delta, draws)
    assert wrong == 0
    assert made <= 2 * (delta + 3 * math.sqrt(delta * (1 - delta) / draws))


def test_a_clear_answer_is_certified() -> None:
    made, wrong = _rates([0.9, 0.1], 0.1, 100)
    assert made > 0.99
    assert wrong == 0


def test_it_refuses_weights() -> None:
    with pytest.raises(BadRequest, match=r"weight=0\.5 is not allowed with rule='certified'"):
        certified().add("x", 0.5)
    certified().add("x", 1)
    weighted = VoteTally()
    weighted.add("x", 0.5)
    assert weighted.e_value is None
    with pytest.raises(BadRequest, match="rule='best' is not allowed: it is one of posterior"):
        VoteTally(rule="best")  # type: ignore[arg-type]


def test_both_rules_count_alike() -> None:
    plain, sure = VoteTally(9), certified()
    for answer in ("x", "y", None, "x"):
        plain.add(answer)
        sure.add(answer)
    assert plain.e_value == sure.e_value
    assert plain.posterior == sure.posterior
    assert (plain.counts, plain.n) == (sure.counts, sure.n)


def test_the_evidence_of_a_long_vote_is_finite() -> None:
    assert math.isfinite(Bet(5000, 0).capital)
    assert Bet(0, 5000).capital == 0.0


def test_the_lowest_group() -> None:
    assert lowest_group([-1.0] * 15) is None
    assert lowest_group([-1.0] * 16) == -1.0
    assert lowest_group([0.0] * 16 + [-16.0] + [0.0] * 16) == -1.0
    assert lowest_group([-4.0, 0.0, -2.0], 2) == -2.0


def test_what_is_weak() -> None:
    numpy = pytest.importorskip("numpy")
    seen = [-3.0, -1.0, -2.5, -0.5]
    for share in (0.1, 0.25, 0.5, 0.9):
        assert weak_below(seen, share) == pytest.approx(float(numpy.quantile(seen, share)))
    assert weak_below([None, -2.0], 0.1) == -2.0
    assert weak_below([None], 0.1) is None
