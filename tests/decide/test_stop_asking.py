"""What a promise rests on: how runs were logged, and tests of rules that the fit part has fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from logged_help import runs

from bitcal_integrations import load
from bitcal_integrations.decide import StopPlan, certify_stop
from bitcal_integrations.decide._stop_walk import Study
from bitcal_integrations.decide.stop import _split
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.stopping import log_runs
from bitcal_integrations.tiny.tasks import questions

RUNS = runs(1500, 1)


class TestHowRunsWereLogged:
    ASKED: ClassVar = {"closing": "Answer:", "spacing": 8, "answer_tokens": 5}

    def test_the_plan_asks_as_the_runs_did(self) -> None:
        told = [replace(run, asked=self.ASKED) for run in RUNS]
        plan = certify_stop(told, 0.05).plan
        assert plan is not None
        assert plan.asking == self.ASKED

    def test_it_is_asked_for_where_runs_do_not_say_it(self) -> None:
        plan = certify_stop(RUNS, 0.05, **self.ASKED).plan
        assert plan is not None
        assert plan.asking == self.ASKED

    @pytest.mark.parametrize(
        ("name", "value"), [("closing", "#### "), ("spacing", "line"), ("answer_tokens", 24)]
    )
    def test_another_way_is_refused(self, name: str, value: Any) -> None:
        told = [replace(run, asked=self.ASKED) for run in RUNS[:300]]
        with pytest.raises(CalibrationError, match=f"{name}={value!r}, but run"):
            certify_stop(told, 0.05, **{name: value})
        told[200] = replace(told[200], asked={**self.ASKED, name: value})
        with pytest.raises(CalibrationError, match="was logged with"):
            certify_stop(told, 0.05)


def test_a_log_says_how_trial_answers_were_asked_for() -> None:
    (question,) = questions("math", "test", 1)
    data = [{"id": question.id, "prompt": question.prompt, "gold": question.gold}]
    how: dict[str, Any] = {"grader": "numeric", "max_new_tokens": 40}
    with load("bitcal-tiny", weights=None, dtype="float32") as model:
        (plain,) = log_runs(model, data, parser="tiny", **how)
        (other,) = log_runs(model, data, parser="last_number", spacing=8, answer_tokens=6, **how)
    told = ("closing", "spacing", "answer_tokens")
    assert [plain.asked[name] for name in told] == ["#### ", "line", 24]
    assert [other.asked[name] for name in told] == ["Answer:", 8, 6]
    assert [run.asked["decoding"]["parser"] for run in (plain, other)] == ["tiny", "last_number"]


def test_no_test_of_hopeless_runs_hangs_on_the_rule_that_settles() -> None:
    """The certify part chooses that rule, so what is tested beside it would be no fixed rate."""
    _, tested = _split(RUNS, 0)
    worse = list(RUNS)
    for i in tested[:60]:  # settling loses there, giving up loses nothing
        worse[i] = replace(RUNS[i], right=False, right_at=(False,) * len(RUNS[i].checkpoints))
    for i in tested[60:120]:
        worse[i] = replace(RUNS[i], right_at=(False,) * len(RUNS[i].checkpoints))
    levels: Any = ("settled", "hopeless")
    found, bent = (certify_stop(r, 0.05, levels=levels) for r in (RUNS, worse))
    assert found.plan is not None
    assert bent.plan is not None
    assert found.plan.settled != bent.plan.settled
    paths = []
    for logged in (RUNS, worse):
        study = Study(logged, *_split(logged, 0), "wrong", None, StopPlan(), "labels", 0)
        study.certificate(0.05, 0.1, 1, levels)
        paths.append(study._paths)
    assert paths[0] == paths[1]
