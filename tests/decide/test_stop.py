"""Rules and plans for ending a run early: what they ask, when they hold, and their replay."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from bitcal_integrations.decide.logged import Checkpoint, LoggedRun, Trial
from bitcal_integrations.decide.stop import StopPlan, StopRule, replay
from bitcal_integrations.errors import BadRequest, BitcalError, CalibrationError

NAN = float("nan")
WEIGHTS = {"learned": {"bias": 1.0, "terms": {"a": (2.0, 0.5, 3.0), "trial_b": (0.0, 1.0, -1.0)}}}


def at(
    tokens: int, answer: str | None = "4", p: float | None = None, **scores: float
) -> Checkpoint:
    """A checkpoint with a trial answer of this probability; without p, with none."""
    trial = None if p is None else Trial(answer, {"trial_probability": p}, 3)
    return Checkpoint(tokens, scores, trial)


def settled(score: str = "s", threshold: float = 0.5, **more: Any) -> StopRule:
    return StopRule("settled", score, threshold, **more)


def hopeless(score: str = "s", threshold: float = 0.5, **more: Any) -> StopRule:
    return StopRule("hopeless", score, threshold, **more)


def logged(places: Sequence[Checkpoint], **more: Any) -> LoggedRun:
    return LoggedRun(tuple(places), 100, "4", True, (True,) * len(places), **more)


class TestRule:
    def test_a_free_score_asks_for_an_answer_where_it_would_settle(self) -> None:
        low, high = at(10, s=0.4), at(10, s=0.5)
        assert not settled().wants_trial([low])
        assert settled().wants_trial([high])
        assert not settled().holds([high])  # there is no answer to end with yet
        assert settled().holds([at(10, p=0.1, s=0.5)])

    def test_a_trial_without_an_answer_settles_nothing(self) -> None:
        assert not settled().holds([at(10, None, p=0.9, s=0.9)])
        assert not settled("trial_probability").holds([at(10, None, p=0.9)])

    def test_hopeless_needs_no_answer(self) -> None:
        assert hopeless().holds([at(10, s=0.5)])
        assert not hopeless().holds([at(10, s=0.51)])
        assert not hopeless().wants_trial([at(10, s=0.1)])

    @pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
    @pytest.mark.parametrize("rule", [settled(), hopeless()])
    def test_what_is_no_number_never_stops(self, rule: StopRule, value: float) -> None:
        assert not rule.holds([at(10, p=0.9, s=value)])

    @pytest.mark.parametrize("rule", [settled("t"), hopeless("t"), settled("trial_x")])
    def test_what_is_absent_never_stops(self, rule: StopRule) -> None:
        assert not rule.holds([at(10, p=0.9, s=0.9)])
        assert not rule.holds([])

    def test_a_tie_passes(self) -> None:
        assert settled("trial_probability", 0.9).holds([at(10, p=0.9)])

    def test_patience_counts_places_in_a_row(self) -> None:
        rule = settled(patience=2)
        low, high = at(10, p=0.1, s=0.1), at(10, p=0.1, s=0.9)
        assert not rule.holds([high])
        assert not rule.holds([high, low, high])
        assert rule.holds([low, high, high])

    def test_every_skips_places_and_patience_counts_those_it_looks_at(self) -> None:
        rule = settled(patience=2, every=2)
        low, high = at(10, p=0.1, s=0.1), at(10, p=0.1, s=0.9)
        assert rule.holds([low, high, low, high])
        assert not rule.holds([low, high, high])  # it does not look at the third

    def test_after_counts_tokens_and_spares_trials(self) -> None:
        rule = settled("trial_probability", after=20)
        assert not rule.wants_trial([at(19)])
        assert rule.wants_trial([at(20)])
        assert not rule.holds([at(19, p=0.9)])

    def test_a_closed_gate_asks_nothing_and_breaks_the_row(self) -> None:
        rule = settled("trial_probability", gate=("s", 0.5), patience=2)
        shut, wide = at(10, p=0.9, s=0.4), at(10, p=0.9, s=0.5)
        assert not rule.wants_trial([replace(shut, trial=None)])
        assert not rule.wants_trial([at(10)])  # the gate's score is not known
        assert rule.holds([wide, wide])
        assert not rule.holds([wide, shut, wide])

    def test_a_learned_score_is_a_sum_of_standardised_ones(self) -> None:
        # 1 + 3 * (2.5 - 2) / 0.5 - 1 * 0.25 = 3.75
        place = Checkpoint(10, {"a": 2.5}, Trial("4", {"trial_b": 0.25}, 3))
        rule = settled("learned", 3.75, weights=WEIGHTS)
        assert rule.value([place]) == 3.75
        assert rule.holds([place])
        assert rule.needs_trial
        assert rule.value([Checkpoint(10, {"a": 2.5})]) is None

    def test_the_log_odds_of_a_probability(self) -> None:
        rule = settled("logit:trial_probability", 0.0)
        assert rule.needs_trial
        assert rule.value([at(10, p=0.75)]) == pytest.approx(1.0986, abs=1e-4)
        assert rule.value([at(10, p=1.0)]) == pytest.approx(13.8155, abs=1e-4)
        assert rule.value([at(10)]) is None

    def test_agreement_counts_its_own_trials_in_a_row(self) -> None:
        rule = settled("trial_agreement", 2, gate=("s", 0.5))
        same, other = at(10, "4", 0.9, s=1.0), at(10, "5", 0.9, s=1.0)
        unasked = at(10, "5", 0.9, s=0.0)  # where its gate is closed it has no trial
        assert rule.value([other, same, same]) == 2
        assert rule.value([same, unasked, same]) == 2
        assert rule.value([same, other, same]) == 1
        assert rule.value([same, at(10, None, 0.9, s=1.0)]) is None
        assert rule.holds([same, unasked, same])

    def test_in_words(self) -> None:
        rule = settled("learned", 2.5, weights=WEIGHTS, gate=("s", 0.25), every=2, patience=3)
        assert str(rule) == (
            "learned >= 2.5 at 3 checkpoints in a row, looking at each 2nd, where s >= 0.25"
        )
        assert str(hopeless(after=5)) == "s <= 0.5, looking from 5 tokens on"

    @pytest.mark.parametrize(
        ("given", "quoted"),
        [
            ({"level": "sure"}, "'sure' is not one of settled, hopeless"),
            ({"score": ""}, "score=''"),
            ({"threshold": NAN}, "threshold=nan"),
            ({"threshold": float("inf")}, "threshold=inf"),
            ({"threshold": True}, "threshold=True"),
            ({"patience": 0}, "patience=0 .* from 1 up"),
            ({"every": 1.5}, "every=1.5"),
            ({"after": -1}, "after=-1 .* from 0 up"),
            ({"gate": ("s",)}, "gate="),
            ({"gate": ("trial_probability", 0.5)}, "trial answer that it should spare"),
            ({"gate": ("learned", 0.5), "weights": WEIGHTS}, "trial answer that it should spare"),
            ({"gate": ("learned_free", 0.5)}, "needs weights="),
            ({"score": "learned"}, "needs weights="),
            ({"weights": {"learned": {"bias": 1}}}, "terms"),
            ({"weights": {"x": {"bias": 1, "terms": {"a": [0, 0, 1]}}}}, r"a: \[0.0, 0.0, 1.0\]"),
            ({"weights": {"x": {"bias": NAN, "terms": {}}}}, "nan is not a finite number"),
        ],
    )
    def test_what_is_not_allowed_is_quoted(self, given: dict[str, Any], quoted: str) -> None:
        whole = {"level": "settled", "score": "s", "threshold": 0.5, **given}
        with pytest.raises(BadRequest, match=quoted):
            StopRule(**whole)

    @pytest.mark.parametrize(
        "rule",
        [
            settled(),
            hopeless(patience=2, every=3, after=4),
            settled("learned", -1.5, weights=WEIGHTS, gate=("s", 0.25)),
        ],
    )
    def test_json_gives_it_back(self, rule: StopRule) -> None:
        assert StopRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


class TestPlan:
    def test_it_asks_then_settles(self) -> None:
        plan = StopPlan(settled("trial_probability", 0.9))
        assert plan.verdict([at(10)]) == "trial"
        assert plan.verdict([at(10, p=0.8)]) == "go_on"
        assert plan.verdict([at(10, p=0.9)]) == "settled"
        assert plan.verdict([]) == "go_on"

    def test_settled_goes_before_hopeless(self) -> None:
        plan = StopPlan(settled("trial_probability", 0.9), hopeless("s", 0.5))
        assert plan.verdict([at(10, p=0.9, s=0.1)]) == "settled"
        assert plan.verdict([at(10, p=0.8, s=0.1)]) == "hopeless"

    def test_a_log_asks_everywhere_and_stops_nowhere(self) -> None:
        plan = StopPlan(settled(), hopeless("t"), log=True)
        assert plan.verdict([at(10, s=0.0)]) == "trial"
        assert plan.verdict([at(10, p=0.9, s=0.9, t=0.0)]) == "go_on"

    def test_without_rules_nothing_happens(self) -> None:
        assert StopPlan().verdict([at(10, s=1.0)]) == "go_on"

    @pytest.mark.parametrize(
        ("given", "quoted"),
        [
            ({"settled": hopeless()}, "settled=.* not a StopRule of that level"),
            ({"hopeless": 0.5}, "hopeless=0.5"),
            ({"closing": ""}, "closing=''"),
            ({"spacing": "word"}, "'word' is not allowed: it is 'line', 'sentence' or a number"),
            ({"spacing": 0}, "spacing=0"),
            ({"spacing": True}, "spacing=True"),
            ({"answer_tokens": 0}, "answer_tokens=0"),
        ],
    )
    def test_what_is_not_allowed_is_quoted(self, given: dict[str, Any], quoted: str) -> None:
        with pytest.raises(BadRequest, match=quoted):
            StopPlan(**given)

    def test_json_gives_it_back(self) -> None:
        plan = StopPlan(
            settled("learned", 2.0, weights=WEIGHTS), hopeless(), "Answer: ", 16, 8, True,
            {"max_loss": 0.02, "losses": {"settled": 1}},
        )  # fmt: skip
        assert StopPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan

    @pytest.mark.parametrize(
        ("data", "quoted"),
        [({"version": 7}, "version 7"), ({"version": 1, "closing": "#"}, "no 'spacing'")],
    )
    def test_json_of_something_else_is_refused(self, data: Any, quoted: str) -> None:
        with pytest.raises(BitcalError, match=quoted):
            StopPlan.from_dict(data)


class TestReplay:
    def test_a_run_that_no_rule_ends_pays_its_probes(self) -> None:
        run = logged([at(10, p=0.1), at(20, p=0.2)], finish="stop")
        out = replay(run, StopPlan(settled("trial_probability", 0.9)))
        assert (out.index, out.finish, out.tokens, out.probe_tokens) == (None, "stop", 100, 6)
        assert (out.answer, out.right) == ("4", True)

    def test_a_free_rule_pays_only_for_the_answer_that_ends_it(self) -> None:
        run = logged([at(10, p=0.1, s=0.1), at(20, p=0.2, s=0.9)])
        out = replay(run, StopPlan(settled()))
        assert (out.index, out.finish, out.tokens, out.probe_tokens) == (1, "settled", 23, 0)

    def test_an_answer_asked_for_in_vain_is_paid(self) -> None:
        run = logged([at(10, None, p=0.1, s=0.9), at(20, p=0.2, s=0.9)])
        out = replay(run, StopPlan(settled()))
        assert (out.index, out.tokens, out.probe_tokens) == (1, 23, 3)

    def test_a_run_that_is_given_up_has_no_answer(self) -> None:
        run = logged([at(10, p=0.1, s=0.1)])
        out = replay(run, StopPlan(settled("trial_probability", 0.9), hopeless()))
        assert (out.finish, out.tokens, out.probe_tokens) == ("hopeless", 10, 3)
        assert (out.answer, out.right) == (None, False)
        assert replay(replace(run, right=None), StopPlan(hopeless=hopeless())).right is None

    def test_a_log_ends_nowhere_and_asks_everywhere(self) -> None:
        run = logged([at(10, p=0.9), at(20, p=0.9)])
        out = replay(run, StopPlan(settled("trial_probability", 0.5), log=True))
        assert (out.index, out.tokens, out.probe_tokens) == (None, 100, 6)

    def test_a_run_without_the_trial_that_it_asks_for_is_refused(self) -> None:
        run = logged([at(10, s=0.1), at(20, s=0.9)], id="r7")
        with pytest.raises(CalibrationError, match="'r7' has no trial answer at checkpoint 1"):
            replay(run, StopPlan(settled()))
        assert replay(run, StopPlan(settled("s", 0.95))).index is None
