"""as_policy: what is accepted, what a reason says, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from bitcal_integrations.decide import Policy, as_policy, certify_threshold, fit_router
from bitcal_integrations.decide.policy import ThresholdPolicy
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.types import Confidence, Decision, Generation, Record, Request


def record(value: float | None, reason: str = "") -> Record:
    return Record(Request("?"), Generation("42", "stop"), Confidence(value, reason=reason))


@pytest.mark.parametrize(
    ("value", "threshold", "action", "reason"),
    [
        (0.83, 0.7, "accept", "0.83 >= 0.70"),
        (0.61, 0.7, "escalate", "0.61 < 0.70"),
        (0.7, 0.7, "accept", "0.70 >= 0.70"),
        (0.6999, 0.7, "escalate", "0.6999 < 0.7000"),
        (0.704, 0.7, "accept", "0.704 >= 0.700"),
        (np.nextafter(0.7, 0), 0.7, "escalate", None),
        (0.0, 0.0, "accept", "0.00 >= 0.00"),
        (1.0, 1, "accept", "1.00 >= 1.00"),
    ],
)
def test_accept_iff_at_least_the_threshold(
    value: float, threshold: float, action: str, reason: str | None
) -> None:
    decision = as_policy(threshold).decide(record(value))
    assert decision.action == action
    assert reason is None or decision.reason == reason


def test_a_reason_never_reads_as_the_opposite() -> None:
    rng = np.random.default_rng(0)
    for threshold in rng.random(200):
        for value in (threshold, np.nextafter(threshold, 0), threshold + 1e-9, rng.random()):
            decision = as_policy(threshold).decide(record(float(value)))
            left, sign, right = decision.reason.split()
            said = float(left) >= float(right)
            assert said == (sign == ">=") == (decision.action == "accept")


@pytest.mark.parametrize("action", ["escalate", "abstain", "raise", "review"])
def test_below_is_what_the_user_says(action: str) -> None:
    assert as_policy(0.7, below=action).decide(record(0.1)).action == action


@pytest.mark.parametrize("action", ["escalate", "accept", "raise"])
def test_unknown_follows_on_unknown(action: str) -> None:
    for value in (None, float("nan")):
        decision = as_policy(0.7, on_unknown=action, below="review").decide(record(value, "no_x"))
        assert decision == Decision(action, "unknown: no_x")
    assert as_policy(0.7).decide(record(None)).reason == "unknown: no confidence"


def test_a_certificate_gives_its_threshold() -> None:
    p = np.linspace(0.9, 0.5, 100)
    made = certify_threshold(p, np.arange(100) < 60)
    policy = as_policy(made)
    assert policy.decide(record(float(made.threshold))).action == "accept"
    assert policy.decide(record(0.5)).action == "escalate"
    careless = as_policy(made, on_unknown="accept").decide(record(None, "cut"))
    assert careless == Decision("accept", "unknown: cut; the certificate does not cover it")


SHIFTED = "shifted: the last 64 scores are unlike the calibration set"


def test_a_certificate_does_not_accept_what_it_no_longer_covers() -> None:
    made = certify_threshold(np.linspace(0.9, 0.5, 100), np.ones(100), 0.1)
    for action in ("escalate", "raise", "accept"):
        found = as_policy(made, on_unknown=action, below="review").decide(record(0.93, SHIFTED))
        assert found.action == action
        assert found.reason.startswith("0.93 >= 0.00, but shifted: the last 64")
        assert found.reason.endswith("; the certificate does not cover it")
    saved = as_policy(json.loads(json.dumps(as_policy(made).to_dict())))
    assert saved.decide(record(0.93, SHIFTED)).action == "escalate"


def test_what_is_too_low_stays_so_when_scores_have_shifted() -> None:
    made = certify_threshold(np.linspace(0.9, 0.5, 100), np.arange(100) < 60)
    policy = as_policy(made, on_unknown="accept", below="abstain")
    assert policy.decide(record(0.5, SHIFTED)).action == "abstain"


def test_a_plain_number_goes_on_accepting_and_says_shifted() -> None:
    found = as_policy(0.7, on_unknown="raise").decide(record(0.93, SHIFTED))
    assert found == Decision("accept", f"0.93 >= 0.70 ({SHIFTED})")


def test_a_certificate_without_threshold_accepts_nothing() -> None:
    made = certify_threshold([0.9] * 5, [1] * 5)
    for on_unknown in ("escalate", "accept"):
        policy = as_policy(made, on_unknown=on_unknown)
        for value in (1.0, 0.0, None):
            decision = policy.decide(record(value))
            assert decision.action == "escalate"
    assert "no certified threshold: 5 labels" in policy.decide(record(1.0)).reason


@pytest.mark.parametrize(
    "bad", [float("nan"), -0.1, 1.1, float("inf"), True, "0.7", None, [0.7], ThresholdPolicy]
)
def test_a_bad_threshold_is_quoted(bad: object) -> None:
    with pytest.raises(BadRequest) as caught:
        as_policy(bad)
    assert repr(bad)[:80] in str(caught.value)
    assert "from 0 to 1" in str(caught.value)


def test_bad_actions_are_quoted() -> None:
    with pytest.raises(BadRequest, match="on_unknown='review'"):
        as_policy(0.5, on_unknown="review")
    with pytest.raises(BadRequest, match="below='accept'"):
        as_policy(0.5, below="accept")


@dataclass
class Mine:
    def decide(self, record: Record) -> Decision:
        return Decision("review", "always look")


def test_a_policy_of_the_user_passes_through() -> None:
    mine = Mine()
    assert as_policy(mine) is mine
    assert isinstance(mine, Policy)
    inner = as_policy(0.3)
    assert as_policy(inner) is inner
    with pytest.raises(BadRequest, match="decides by itself"):
        as_policy(mine, on_unknown="raise")


def test_numpy_numbers_are_numbers() -> None:
    assert as_policy(np.float64(0.5)) == as_policy(0.5) == as_policy(np.float32(0.5))


def test_round_trip_through_json() -> None:
    policy = ThresholdPolicy(0.7, "raise", "review")
    assert ThresholdPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    with pytest.raises(CalibrationError, match="'router'"):
        ThresholdPolicy.from_dict({**policy.to_dict(), "kind": "router"})


def through_json(what: Any) -> dict[str, Any]:
    return json.loads(json.dumps(what.to_dict()))


def test_a_saved_policy_decides_as_before() -> None:
    policy = ThresholdPolicy(0.7, "raise", "review", "why")
    assert as_policy(through_json(policy)) == policy
    made = certify_threshold(np.linspace(0.9, 0.5, 100), np.arange(100) < 60)
    assert as_policy(through_json(made), below="abstain") == as_policy(made, below="abstain")
    none = certify_threshold([0.9] * 5, [1] * 5)
    assert as_policy(through_json(none)) == as_policy(none)


def test_a_saved_router_decides_as_before() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((400, 1))
    small, big = rng.random(400) < x[:, 0], rng.random(400) < 0.9
    router = fit_router(x, small, big, names=("confidence",))
    for policy in (router.policy(max_escalation=0.3), router.policy(max_regret=0.2)):
        again = as_policy(through_json(policy))
        assert again == policy
        assert (again.escalate(x) == policy.escalate(x)).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "kind None of {} is not allowed"),
        ({"kind": "coin"}, "kind 'coin' .* 'threshold' or 'router', or the dict of a Certificate"),
        ({"version": 1, "kind": "threshold", "treshold": 0.7}, "is not a whole threshold: .*tresh"),
        ({"version": 1, "kind": "router"}, "is not a whole router: 'certificate'"),
        ({"version": 1, "max_error": 0.1}, "is not a whole certificate: .*'threshold'"),
        ({"version": 1, "kind": "threshold", "threshold": 7}, "the threshold 7 is not allowed"),
    ],
)
def test_a_dict_that_is_no_policy_is_quoted(data: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        as_policy(data)


def test_a_saved_policy_has_its_own_rules() -> None:
    with pytest.raises(BadRequest, match="decides by itself"):
        as_policy(ThresholdPolicy(0.7).to_dict(), below="review")
    with pytest.raises(CalibrationError, match="version 9"):
        as_policy({**ThresholdPolicy(0.7).to_dict(), "version": 9})
