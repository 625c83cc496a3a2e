"""Cascade: whom to ask next, which answer to give in the end, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from cascade_help import NAMES, cascade, record, run

from bitcal_integrations.chains import Cascade, Outcome, unknown_record
from bitcal_integrations.chains.cascade import ABSTENTION
from bitcal_integrations.decide import as_policy, certify_threshold
from bitcal_integrations.errors import BadRequest, EngineClosed, LowConfidenceError, QueueFull
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Decision, Record


@pytest.mark.parametrize(
    ("answers", "index"), [((0.9,), 0), ((0.3, 0.8), 1), ((0.3, None, 0.7), 2)]
)
def test_the_first_accepted_answer_ends_it(answers: Sequence[float | None], index: int) -> None:
    course = cascade()
    outcome = run(course, answers)
    assert (outcome.index, outcome.action, outcome.text) == (index, "accept", None)
    assert outcome.reason == f"{answers[-1]:.2f} >= 0.70"
    assert course.next is None
    assert len(course.attempts) == len(answers)


def test_every_record_is_kept_with_its_decision() -> None:
    course = cascade()
    run(course, (0.3, 0.8))
    low, high = course.attempts
    assert low.decision == Decision("escalate", "0.30 < 0.70")
    assert low.record is not None
    assert low.record.decision == low.decision
    assert high.record is not None
    assert high.record.bitcal()["decision"] == {"action": "accept", "reason": "0.80 >= 0.70"}


@pytest.mark.parametrize(
    ("answers", "best"),
    [
        ((0.2, 0.5, 0.4), 1),
        ((0.5, 0.5, 0.4), 0),  # of equals the earlier
        ((0.2, 0.4, None), 2),  # the hosted model is asked because it is trusted more
        ((0.6, None, 0.2), 1),
        ((None, None, 0.6), 1),
        ((None, 0.6, EngineClosed("closed")), 0),
        ((float("nan"), 0.6, 0.1), 0),
        ((EngineClosed("closed"), 0.1, 0.0), 1),
    ],
)
def test_best_of_what_was_not_accepted(answers: Sequence[Any], best: int) -> None:
    outcome = run(cascade(), answers)
    assert (outcome.index, outcome.action) == (best, "escalate")
    assert outcome.reason.endswith("nobody is left to ask")


def test_no_answer_at_all_is_worse_than_a_low_one() -> None:
    empty = record(None, "no_answer: the text is empty", "")
    assert run(cascade(), (0.1, empty, empty)).index == 0
    assert run(cascade(), (empty, empty, empty)).index == 2


def test_a_low_draft_gives_way_to_a_hosted_model_of_unknown_confidence() -> None:
    toy = ToyModel({"?": ("Paris", 0.2)})
    outcome = run(cascade(n=2), (toy.ask("?"), unknown_record("Lyon", model="hosted")))
    assert outcome.index == 1
    assert outcome.reason == "unknown: the model gives no confidence; nobody is left to ask"


def test_unknown_may_be_accepted_or_raised_instead() -> None:
    accepted = run(Cascade(as_policy(0.7, on_unknown="accept"), NAMES), (0.2, None))
    assert (accepted.index, accepted.action) == (1, "accept")
    course = Cascade(as_policy(0.7, on_unknown="raise"), NAMES)
    with pytest.raises(LowConfidenceError, match="'int8' is not accepted: unknown: cut") as caught:
        run(course, (0.2, record(None, "cut")))
    assert caught.value.record is course.attempts[1].record


@pytest.mark.parametrize(
    ("answers", "last"),
    [((0.6, 0.1, 0.2), 2), ((0.6, 0.1, QueueFull("full")), 1), ((0.6, None, 0.2), 2)],
)
def test_last_is_the_last_that_answered(answers: Sequence[Any], last: int) -> None:
    outcome = run(cascade(on_exhausted="last"), answers)
    assert (outcome.index, outcome.action) == (last, "escalate")


def test_exhausted_can_raise_with_the_best_record() -> None:
    course = cascade(on_exhausted="raise")
    with pytest.raises(LowConfidenceError) as caught:
        run(course, (0.2, 0.6, EngineClosed("closed")))
    assert "'int8' is not accepted: 0.60 < 0.70; nobody is left to ask" in str(caught.value)
    assert caught.value.record is course.attempts[1].record
    assert isinstance(caught.value.__cause__, EngineClosed)
    assert course.provenance()["chosen"] is None


def test_exhausted_can_ask_a_person_about_the_best() -> None:
    outcome = run(cascade(on_exhausted="review"), (0.2, 0.6, 0.3))
    assert (outcome.index, outcome.action, outcome.text) == (1, "review", None)


def test_exhausted_can_abstain() -> None:
    course = cascade(on_exhausted="abstain")
    outcome = run(course, (0.2, 0.6, 0.3))
    assert (outcome.index, outcome.action, outcome.text) == (None, "abstain", ABSTENTION)
    assert outcome.reason.startswith("0.60 < 0.70")
    assert course.provenance()["chosen"] is None


@pytest.mark.parametrize("text", ["Please ask a colleague.", "I do not know", "わかりません "])
def test_a_text_is_given_instead_of_an_answer(text: str) -> None:
    outcome = run(cascade(on_exhausted=text), (0.2, 0.6, 0.3))
    assert (outcome.index, outcome.action, outcome.text) == (None, "abstain", text)


class TestPolicyEndsIt:
    """A policy's own abstain, raise and review end the cascade without asking the others."""

    def test_abstain(self) -> None:
        course = Cascade(as_policy(0.7, below="abstain"), NAMES)
        outcome = run(course, (0.2,))
        assert outcome == Outcome(None, "abstain", ABSTENTION, "0.20 < 0.70")
        text = Cascade(as_policy(0.7, below="abstain"), NAMES, "I would rather not say.")
        assert run(text, (0.2,)).text == "I would rather not say."

    def test_raise(self) -> None:
        course = Cascade(as_policy(0.7, below="raise"), NAMES)
        with pytest.raises(LowConfidenceError, match=r"'int8' is not accepted: 0\.20 < 0\.70"):
            run(course, (None, 0.2))
        assert course.next is None

    def test_review(self) -> None:
        course = Cascade(as_policy(0.7, below="review"), NAMES)
        assert run(course, (None, 0.2)) == Outcome(1, "review", None, "0.20 < 0.70")
        assert course.provenance()["chosen"] == 1


def test_a_certificate_without_threshold_escalates_to_the_end() -> None:
    policy = as_policy(certify_threshold([0.9] * 5, [1] * 5))
    course = Cascade(policy, NAMES)
    outcome = run(course, (1.0, 0.9, 0.8))
    assert (outcome.index, outcome.action) == (0, "escalate")
    assert "no certified threshold" in outcome.reason


class Mine:
    """A policy of the user's own, which decides as it is told."""

    def __init__(self, decision: Any) -> None:
        self.decision = decision

    def decide(self, record: Record) -> Any:
        if isinstance(self.decision, Exception):
            raise self.decision
        return self.decision


def test_a_policy_of_the_user() -> None:
    course = Cascade(Mine(Decision("accept", "always")), NAMES)
    assert run(course, (None,)) == Outcome(0, "accept", None, "always")
    assert Cascade(0.7, NAMES).judge(record(0.8)).action == "accept"  # type: ignore[arg-type]


@pytest.mark.parametrize("decision", [None, "accept", Decision("retry", "why not")])  # type: ignore[arg-type]
def test_a_policy_that_decides_nothing_known_is_refused(decision: Any) -> None:
    course = Cascade(Mine(decision), NAMES)
    with pytest.raises(BadRequest, match="accept, escalate, abstain, raise, review"):
        course.judge(record(0.5))
    assert course.attempts == []


def test_an_error_of_a_policy_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        Cascade(Mine(ZeroDivisionError()), NAMES).judge(record(0.5))


def test_one_runnable_alone() -> None:
    assert run(cascade(n=1), (0.9,)).action == "accept"
    assert run(cascade(n=1), (0.2,)) == Outcome(
        0, "escalate", None, "0.20 < 0.70; nobody is left to ask"
    )


def test_provenance_names_every_attempt_as_json() -> None:
    course = cascade()
    assert course.provenance() == {"attempts": [], "chosen": None, "escalations": 0}
    course.judge(record(0.2, model="tiny"))
    assert course.provenance()["chosen"] is None
    run(course, (None, QueueFull("full"), 0.8))
    made = course.provenance()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert (made["chosen"], made["escalations"]) == (2, 2)
    assert made["attempts"][0] == {
        "name": "int4", "model": "tiny", "confidence": 0.2, "calibrated": False,
        "decision": {"action": "escalate", "reason": "0.20 < 0.70"},
        "finish": "stop", "tokens": 3, "error": None,
    }  # fmt: skip


def test_provenance_of_a_confidence_that_is_no_number_is_json() -> None:
    course = cascade(n=1)
    run(course, (float("nan"),))
    assert course.provenance()["attempts"][0]["confidence"] is None


def test_out_of_turn_is_refused() -> None:
    course = cascade(n=2)
    with pytest.raises(BadRequest, match="'int4' is still to ask"):
        course.outcome()
    course.judge(record(0.9))
    for call in (lambda: course.judge(record(0.9)), lambda: course.failed(QueueFull("full"))):
        with pytest.raises(BadRequest, match="settled"):
            call()
    assert course.outcome() == course.outcome()


@pytest.mark.parametrize("bad", ["bset", "", "  ", None, 3, True])
def test_a_bad_on_exhausted_is_quoted(bad: Any) -> None:
    with pytest.raises(BadRequest, match="best, last, raise, review, abstain") as caught:
        cascade(on_exhausted=bad)
    assert repr(bad) in str(caught.value)


@pytest.mark.parametrize("bad", [KeyboardInterrupt, (BaseException,), "Exception", (KeyError, 3)])
def test_a_bad_handle_is_quoted(bad: Any) -> None:
    with pytest.raises(BadRequest, match="classes of Exception"):
        cascade(handle=bad)


@pytest.mark.parametrize("bad", [(), "int4", ("int4", 3)])
def test_bad_names_are_quoted(bad: Any) -> None:
    with pytest.raises(BadRequest, match="a name for each"):
        Cascade(as_policy(0.7), bad)
