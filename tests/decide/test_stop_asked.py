"""What a request may ask for as its early stop, before any model is known."""

from __future__ import annotations

import json

import pytest

from bitcal_integrations.decide._stop_asked import as_asked, plan_of, settled_confidence
from bitcal_integrations.decide.stop import PRESETS, StopCertificate, StopPlan, StopRule
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.options import EARLY_STOPS
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Confidence

PLAN = StopPlan(StopRule("settled", "logprob", -0.1))


def test_the_names_are_those_of_the_presets() -> None:
    assert tuple(PRESETS) == EARLY_STOPS


def test_plans_and_certificates_come_back_from_json() -> None:
    certificate = StopCertificate(PLAN, 0.02, 0.1, 300)
    for asked in (PLAN, certificate):
        assert as_asked(json.loads(json.dumps(asked.to_dict()))) == asked
        assert plan_of(asked) == PLAN
    assert plan_of(as_asked("fast")) is None
    assert plan_of(StopCertificate(None, 0.02, 0.1, 30)) is None


@pytest.mark.parametrize("wrong", [3, [1], {"plan": 3}, {"closing": "x"}])
def test_anything_else_is_quoted(wrong: object) -> None:
    with pytest.raises(BadRequest, match="early_stop="):
        as_asked(wrong)


def test_a_plan_alone_knows_no_probability() -> None:
    bare = Confidence(raw=0.9)
    told = settled_confidence(PLAN, (), bare)
    assert (told.value, told.raw) == (None, 0.9)
    assert told.reason == "settled early by a plan without a certificate"
    certified = settled_confidence(StopCertificate(PLAN, 0.02, 0.1, 300), (), bare)
    assert certified.value is None
    assert "too few" in certified.reason


def test_only_a_model_in_this_process_is_asked_for_trials() -> None:
    with pytest.raises(BadRequest, match="only a model in this process"):
        ToyModel({}).ask("x", early_stop=PLAN)
