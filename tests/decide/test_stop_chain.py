"""A certificate for chains is the policy that ends them: alone, in a Trail, and in a real chain."""

from __future__ import annotations

import json

import numpy as np
import pytest
from langchain_core.messages import AIMessage

from bitcal_integrations.chains import Trail
from bitcal_integrations.decide import StopCertificate, StopPlan, StopRule, as_policy, certify_stop
from bitcal_integrations.decide._stop_policy import StopPolicy
from bitcal_integrations.decide.logged import LoggedRun
from bitcal_integrations.decide.stop import replay
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain import early_stop_chain
from bitcal_integrations.types import Confidence, Generation, Record, make_request


def record(text: str, confidence: float | None, reason: str = "") -> Record:
    generation = Generation(text, "stop", n_tokens=10)
    return Record(make_request("?"), generation, Confidence(confidence, reason=reason))


def chain(rng: np.random.Generator) -> list[Record]:
    """Steps whose answer is the last one from some place on; mostly surer there."""
    count, found = 5, int(rng.integers(0, 5))
    return [
        record(
            "end" if at >= found else f"early {at}",
            float(rng.uniform(0.7, 1.0) if at >= found else rng.uniform(0.0, 0.75)),
        )
        for at in range(count)
    ]


def certificate(
    settled: StopRule | None = None, hopeless: StopRule | None = None
) -> StopCertificate:
    plan = StopPlan(settled, hopeless) if settled or hopeless else None
    return StopCertificate(plan, 0.02, 0.1, 500, unit="chain", reason="" if plan else "too few")


SURE = StopRule("settled", "confidence", 0.9)
TWICE = StopRule("settled", "confidence", 0.6, patience=2)
LOST = StopRule("hopeless", "confidence", 0.2, patience=2)


@pytest.fixture(scope="module")
def learned() -> StopCertificate:
    rng = np.random.default_rng(0)
    made = [(chain(rng), bool(rng.random() < 0.8)) for _ in range(700)]
    runs = [LoggedRun.of_chain(steps, right, id=str(i)) for i, (steps, right) in enumerate(made)]
    return certify_stop(runs, 0.05)


class TestCertified:
    def test_its_unit_is_the_chain(self, learned: StopCertificate) -> None:
        assert learned.unit == "chain"
        assert learned.plan is not None
        assert "at most 5% of the chains" in learned.promise
        assert learned.saved > 0.1

    def test_a_trail_ends_where_the_replay_does(self, learned: StopCertificate) -> None:
        assert learned.plan is not None
        rng, ended = np.random.default_rng(1), 0
        for _ in range(100):
            steps = chain(rng)
            out = replay(LoggedRun.of_chain(steps, True), learned.plan)
            trail, places = Trail(policy=learned), []
            for at, step in enumerate(steps):
                trail.add(step)
                if trail.verdict() != "go_on":
                    places.append(at)
            assert places[:1] == ([] if out.index is None else [out.index])
            assert out.probe_tokens == 0
            ended += out.index is not None
        assert ended > 50


class TestPolicy:
    def test_it_accepts_where_the_rule_holds(self) -> None:
        policy = as_policy(certificate(SURE))
        assert policy.decide(record("4", 0.9)).action == "accept"
        decision = policy.decide(record("4", 0.89))
        assert (decision.action, decision.reason) == ("escalate", "not settled: confidence >= 0.9")

    def test_unknown_and_empty_settle_nothing(self) -> None:
        policy = as_policy(certificate(SURE))
        decision = policy.decide(record("4", None, "no profile"))
        assert (decision.action, decision.reason) == ("escalate", "unknown: no profile")
        assert policy.decide(record("4", float("nan"))).action == "escalate"
        assert policy.decide(record(" ", 0.95)).action == "escalate"

    def test_shifted_scores_are_not_covered(self) -> None:
        decision = as_policy(certificate(SURE)).decide(record("4", 0.95, "shifted: unlike"))
        assert decision.action == "escalate"
        assert "does not cover" in decision.reason

    def test_a_rule_with_patience_needs_the_steps_before(self) -> None:
        policy = as_policy(certificate(TWICE))
        assert isinstance(policy, StopPolicy)
        steps = [record("3", 0.7), record("4", 0.8)]
        assert policy.decide(steps[1]).action == "escalate"
        assert policy.decide_chain(steps).action == "accept"

    def test_without_a_plan_nothing_is_accepted(self) -> None:
        decision = as_policy(certificate()).decide(record("4", 1.0))
        assert (decision.action, decision.reason) == (
            "escalate", "no certified early stop: too few",
        )  # fmt: skip

    def test_one_for_generations_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="a certificate for generations is no policy"):
            as_policy(StopCertificate(StopPlan(SURE), 0.02, 0.1, 500))

    def test_actions_are_checked_and_taken(self) -> None:
        assert as_policy(certificate(SURE), below="review").decide(record("4", 0.1)).action == (
            "review"
        )
        with pytest.raises(BadRequest, match="below='no'"):
            as_policy(certificate(SURE), below="no")  # type: ignore[arg-type]

    def test_json_of_either_is_a_policy(self) -> None:
        made = certificate(TWICE, LOST)
        policy = as_policy(made, below="abstain")
        assert isinstance(policy, StopPolicy)
        assert as_policy(json.loads(json.dumps(policy.to_dict()))) == policy
        assert as_policy(json.loads(json.dumps(made.to_dict()))) == as_policy(made)


class TestTrail:
    def test_patience_counts_its_steps(self) -> None:
        trail, verdicts = Trail(policy=certificate(TWICE)), []
        for confidence in (0.7, 0.5, 0.7, 0.8):
            trail.add(record("4", confidence))
            verdicts.append(trail.verdict())
        assert verdicts == ["go_on", "go_on", "go_on", "settled"]
        assert trail.records[-1].decision is not None
        assert trail.records[-1].decision.action == "accept"

    def test_it_gives_up_by_the_rule_for_that(self) -> None:
        trail = Trail(policy=certificate(TWICE, LOST))
        trail.add(record("4", 0.1))
        assert trail.verdict() == "go_on"
        trail.add(record("4", 0.2))
        assert trail.verdict() == "hopeless"


def test_early_stop_chain_takes_it() -> None:
    def step(text: str, confidence: float) -> object:
        bitcal = {"bitcal": {"confidence": confidence}}
        return lambda previous: AIMessage(text, response_metadata=bitcal)

    steps = [step("4", 0.7), step("5", 0.8), step("6", 0.99)]
    answer = early_stop_chain(steps, policy=certificate(TWICE)).invoke("2 + 3?")
    told = answer.response_metadata["bitcal"]["steps"]
    assert (answer.content, told["ended"], told["saved"]["steps"]) == ("5", "settled", 1)
