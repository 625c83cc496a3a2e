"""The router on simulated pairs of models whose gain is known, its rules, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bitcal_integrations.decide import Policy, as_policy, fit_router
from bitcal_integrations.decide._router_policy import RouterPolicy
from bitcal_integrations.decide.route import Router
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.types import Confidence, Generation, Record, Request

NAMES = ("mean_logprob", "mean_entropy")


def pair(n: int, seed: int, lead: float = 0.5) -> tuple[Any, Any, Any, Any]:
    """Two signals, both models' labels, and the true gain: `lead` where the first is below -1.

    Below -1 (half of the rows) the small model is right with .4 and the big one with .4 + lead;
    above, both are right with .9, each by itself.
    """
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(-2, 0, n), rng.uniform(0, 3, n)], axis=1)
    hard = x[:, 0] < -1
    small = (rng.random(n) < np.where(hard, 0.4, 0.9)).astype(int)
    big = (rng.random(n) < np.where(hard, 0.4 + lead, 0.9)).astype(int)
    return x, small, big, np.where(hard, lead, 0.0)


@pytest.fixture(scope="module")
def router() -> Router:
    x, small, big, _ = pair(4000, 0)
    return fit_router(x, small, big, names=NAMES)


def record(signals: dict[str, float], value: float | None = 0.5, reason: str = "") -> Record:
    return Record(
        Request("?"), Generation("42", "stop"), Confidence(value, signals=signals, reason=reason)
    )


def test_the_gain_is_found(router: Router) -> None:
    x, _, _, truth = pair(4000, 1)
    gain = router.gain(x)
    assert np.corrcoef(gain, truth)[0, 1] > 0.8
    assert gain[truth == 0.5].mean() == pytest.approx(0.5, abs=0.08)
    assert gain[truth == 0].mean() == pytest.approx(0, abs=0.08)
    assert np.isnan(router.gain([[np.nan, 1.0]])).all()


def test_half_of_the_escalations_bring_all_of_the_gain(router: Router) -> None:
    x, small, big, truth = pair(20_000, 2)
    sent = router.policy(max_escalation=0.5).escalate(x)
    assert sent.mean() == pytest.approx(0.5, abs=0.03)
    reached = np.where(sent, big, small).mean()
    assert reached == pytest.approx(big.mean(), abs=0.015)
    at_random = small.mean() + sent.mean() * (big - small).mean()
    assert reached > at_random + 0.1
    assert truth[sent].mean() > 0.45


def test_max_escalation_keeps_within_the_share(router: Router) -> None:
    x, _, _, _ = pair(20_000, 3)
    for share in (0.05, 0.2, 0.4):
        policy = router.policy(max_escalation=share)
        assert policy.escalation <= share
        assert policy.escalate(x).mean() == pytest.approx(share, abs=0.03)
    assert router.policy(max_escalation=0).kind == "never"


def test_match_big_escalates_the_hard_half(router: Router) -> None:
    x, small, big, _ = pair(20_000, 4)
    policy = router.policy(match_big=True)
    sent = policy.escalate(x)
    assert big.mean() - np.where(sent, big, small).mean() < 0.01
    assert policy.accuracy <= policy.big_accuracy + 2 * 0.01


def test_an_escalated_query_pays_both_models(router: Router) -> None:
    policy = router.policy(max_escalation=0.3)
    assert policy.cost == pytest.approx(0.3 + policy.escalation * 1.0)
    bought = router.policy(max_cost=0.6)
    assert bought.escalation <= 0.3
    assert bought.cost <= 0.6
    # At .7 of the queries or more the cascade costs as much as the big model for all.
    with_dear_small = fit_router(*pair(4000, 0)[:3], cost_small=0.8, names=NAMES)
    assert with_dear_small.policy(match_big=True).kind == "always"
    with pytest.raises(BadRequest, match=r"max_cost=0.1 pays neither"):
        router.policy(max_cost=0.1)


def test_never_where_the_big_model_is_worse() -> None:
    x, big, small, _ = pair(4000, 5)
    swapped = fit_router(x, small, big, names=NAMES)
    # Where the big model gains nothing, noise may still look like a little: no accuracy is claimed.
    bought = swapped.policy(max_escalation=0.5)
    assert bought.accuracy == bought.small_accuracy
    for rule in ({"match_big": True}, {"max_regret": 0.02}):
        policy = swapped.policy(**rule)
        assert policy.kind == "never", rule
        assert not policy.escalate(x).any()
        assert policy.decide(record(dict.fromkeys(NAMES, -1.5))).action == "accept"
        assert policy.cost == 0.3


def test_never_between_equals() -> None:
    x, small, _, _ = pair(2000, 6)
    equal = fit_router(x, small, small, names=NAMES)
    for rule in ({"match_big": True}, {"max_escalation": 0.5}, {"max_cost": 0.9}):
        assert equal.policy(**rule).kind == "never", rule


def test_always_where_the_big_model_leads_everywhere() -> None:
    rng = np.random.default_rng(7)
    x = rng.random((3000, 2))
    small, big = (rng.random(3000) < 0.3).astype(int), (rng.random(3000) < 0.9).astype(int)
    router = fit_router(x, small, big, names=NAMES)
    policy = router.policy(match_big=True)
    assert policy.kind == "always"
    assert policy.escalate(x).all()
    assert policy.cost == 1.0
    assert "ask the big model directly" in policy.why
    assert router.policy(max_cost=1.0).kind == "always"
    assert router.policy(max_regret=0.02).kind == "always"


def test_regret_is_promised_on_rows_not_seen(router: Router) -> None:
    policy = router.policy(max_regret=0.05, delta=0.1)
    assert policy.kind == "some"
    assert policy.certificate.n == len(router.held_diff)
    assert "at most 5 points" in policy.certificate.promise
    x, small, big, _ = pair(50_000, 8)
    sent = policy.escalate(x)
    assert big.mean() - np.where(sent, big, small).mean() < 0.05
    no_part = fit_router(*pair(500, 0)[:3], held_out=0)
    with pytest.raises(CalibrationError, match="held_out"):
        no_part.policy(max_regret=0.05)


def test_a_promise_of_regret_does_not_cover_shifted_scores(router: Router) -> None:
    easy = record(dict.fromkeys(NAMES, -0.1), 0.9, "shifted: the last 64 scores")
    policy = router.policy(max_regret=0.05)
    assert policy.decide(replace(easy, confidence=replace(easy.confidence, reason=""))).action == (
        "accept"
    )
    found = policy.decide(easy)
    assert found.action == "escalate"
    assert found.reason == "shifted: the last 64 scores; the certificate does not cover it"
    assert router.policy(max_escalation=0.5).decide(easy).action == "accept"


def test_a_router_of_noise_claims_nothing() -> None:
    """Independent of the features, both right with .7: no accuracy above the better model."""
    above = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        x, small, big = rng.random((600, 2)), rng.random(600) < 0.7, rng.random(600) < 0.7
        router = fit_router(x, small.astype(int), big.astype(int), names=NAMES)
        policy = router.policy(max_escalation=0.5)
        above.append(policy.accuracy > max(policy.small_accuracy, policy.big_accuracy))
    assert sum(above) <= 1


def test_decide_reads_the_signals_by_name(router: Router) -> None:
    policy = router.policy(max_escalation=0.5)
    hard, easy = {"mean_logprob": -1.9, "mean_entropy": 1.0}, {"mean_entropy": 1.0, "other": 3.0}
    decision = policy.decide(record(hard))
    assert decision.action == "escalate"
    assert decision.reason.startswith("predicted gain ")
    assert ">=" in decision.reason
    kept = policy.decide(record({**easy, "mean_logprob": -0.1}))
    assert (kept.action, "<" in kept.reason) == ("accept", True)
    assert policy.decide(record(easy)).reason == "unknown: no signal 'mean_logprob'"
    assert policy.decide(record(hard, None, "cut")).reason == "unknown: cut"
    assert policy.escalate([[-1.9, 1.0], [-0.1, 1.0], [np.nan, 1.0]]).tolist() == [1, 0, 1]


@pytest.mark.parametrize("action", ["escalate", "accept", "raise"])
def test_unknown_follows_on_unknown(router: Router, action: str) -> None:
    policy = router.policy(max_escalation=0.5, on_unknown=action)
    assert policy.decide(record({})).action == action
    assert policy.escalate([[np.nan, 1.0]]).tolist() == [action != "accept"]


def test_a_router_policy_is_a_policy(router: Router) -> None:
    policy = router.policy(match_big=True)
    assert isinstance(policy, Policy)
    assert as_policy(policy) is policy


def test_round_trip_through_json(router: Router) -> None:
    again = Router.from_dict(json.loads(json.dumps(router.to_dict())))
    assert again == router
    x = pair(50, 10)[0]
    assert (again.gain(x) == router.gain(x)).all()
    for rule in ({"max_escalation": 0.2}, {"max_regret": 0.05}, {"max_escalation": 0.0}):
        policy = router.policy(**rule)
        assert RouterPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    with pytest.raises(CalibrationError, match="version 9"):
        Router.from_dict({**router.to_dict(), "version": 9})
    with pytest.raises(BadRequest, match="not a whole router: no 'names'"):
        Router.from_dict({"version": 1})


@pytest.mark.parametrize(("n", "held"), [(75, 22), (80, 24), (150, 45), (1000, 300)])
def test_the_share_that_is_asked_for_is_held_out(n: int, held: int) -> None:
    x, small, big, _ = pair(n, 16)
    router = fit_router(x, small, big)
    assert (len(router.held_diff), router.n) == (held, n - held)


def test_features_that_do_not_vary_give_one_gain() -> None:
    _, small, big, _ = pair(400, 17)
    router = fit_router(np.full((400, 2), 0.5), small, big)
    assert np.ptp(router.gain(np.random.default_rng(0).random((50, 2)))) < 1e-9


def test_rows_of_one_group_stay_together() -> None:
    # Each question eight times: only one row of each held-out question is counted.
    x, small, big, _ = pair(400, 11)
    rows = np.repeat(np.arange(400), 8)
    router = fit_router(x[rows], small[rows], big[rows], groups=rows)
    assert len(router.held_diff) == 120
    assert router.n == 280 * 8
    with pytest.raises(CalibrationError, match="too few"):
        fit_router(x, small, big, groups=np.arange(400) % 20)


def test_rows_without_a_feature_are_left_out_of_the_fit() -> None:
    x, small, big, _ = pair(1000, 12)
    x[:100, 1] = np.nan
    router = fit_router(x, small, big)
    assert router.n + len(router.held_diff) == 900
    assert router.names == ("x0", "x1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label_source": "teacher"}, "'teacher' cannot route"),
        ({"label_source": "teacher: big"}, "'teacher: big' cannot route"),
        ({"cost_small": -1}, "cost_small=-1"),
        ({"cost_big": float("nan")}, "cost_big=nan"),
        ({"held_out": 0.9}, "held_out=0.9"),
        ({"names": ("a",)}, "2 different names"),
        ({"names": ("a", "a")}, "2 different names"),
        ({"y_big": [1, 2, 0] * 20}, "y_big holds 2.0"),
        ({"y_big": [1]}, "one length"),
        ({"x_small": [1.0] * 60}, r"shape \(60,\)"),
        ({"x_small": [["a", "b"]] * 60}, "features must hold numbers only: .*'a'"),
        ({"x_small": np.full((60, 2), np.nan)}, "none of the 60 rows of x_small has all features"),
        ({"x_small": np.full((60, 2), 1e300)}, r"feature 0 of row 0 is 1e\+300"),
        ({"groups": [None, "a"] * 30}, "groups holds None"),
        ({"groups": [1]}, r"groups has the shape \(1,\)"),
        ({}, "too few"),
    ],
)
def test_wrong_input_is_quoted(change: dict[str, Any], says: str) -> None:
    x, small, big, _ = pair(60, 13)
    given = {"x_small": x, "y_small": small, "y_big": big, **change}
    with pytest.raises((BadRequest, CalibrationError), match=says):
        fit_router(**given)


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({}, "no rule"),
        ({"match_big": True, "max_cost": 1}, "name one of"),
        ({"match_big": "yes"}, "match_big='yes'"),
        ({"max_escalation": 1.2}, "max_escalation=1.2"),
        ({"max_escalation": True}, "max_escalation=True"),
        ({"max_regret": 0}, "max_regret=0"),
        ({"max_regret": 0.02, "delta": 1}, "delta=1"),
        ({"max_cost": "much"}, "max_cost='much'"),
        ({"max_cost": 0.5, "on_unknown": "abstain"}, "on_unknown='abstain'"),
    ],
)
def test_a_wrong_rule_is_quoted(router: Router, rules: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        router.policy(**rules)
