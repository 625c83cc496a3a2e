"""Trail: the confidence of a chain, and when it may end early."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bitcal_integrations.chains import AGGREGATES, Trail
from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.types import Confidence, Decision, Generation, Record, Request


def record(value: float | None, tokens: int = 2) -> Record:
    return Record(Request("?"), Generation("42", "stop", n_tokens=tokens), Confidence(value))


def trail(*values: float | None, **options: Any) -> Trail:
    made = Trail(**options)
    for index, value in enumerate(values):
        made.add(record(value, index + 1), f"step {index}")
    return made


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [("minimum", 0.5), ("product", 0.36), ("mean", 0.7333333), ("last", 0.8)],
)
def test_aggregates(aggregate: str, value: float) -> None:
    assert trail(0.9, 0.5, 0.8, aggregate=aggregate).value == pytest.approx(value)
    assert trail(0.4, aggregate=aggregate).value == 0.4


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_unknown_is_never_a_number(aggregate: str) -> None:
    assert trail(aggregate=aggregate).value is None
    assert trail(0.9, None, aggregate=aggregate).value is None
    assert trail(0.9, float("nan"), aggregate=aggregate).value is None
    expected = 0.9 if aggregate == "last" else None  # only the last step counts there
    assert trail(None, 0.9, aggregate=aggregate).value == expected


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.8, "settled"), (0.79, "go_on"), (0.3, "go_on"), (0.29, "hopeless"), (None, "go_on")],
)
def test_the_verdict_is_on_the_latest_step(value: float | None, verdict: str) -> None:
    assert trail(0.1, value, stop_above=0.8, stop_below=0.3).verdict() == verdict


def test_without_thresholds_it_goes_on() -> None:
    assert (
        trail(1.0).verdict() == trail(0.0).verdict() == Trail(stop_above=0.0).verdict() == "go_on"
    )


def test_the_extremes_are_thresholds_too() -> None:
    assert trail(0.0, stop_above=0.0).verdict() == "settled"
    assert trail(0.0, stop_above=1.0, stop_below=1.0).verdict() == "hopeless"


def test_what_a_policy_accepts_is_settled() -> None:
    made = trail(0.5, policy=as_policy(0.7))
    assert made.verdict() == "go_on"
    made.add(record(0.7))
    assert made.verdict() == "settled"
    assert made.records[-1].decision == Decision("accept", "0.70 >= 0.70")
    assert trail(None, policy=as_policy(0.7, on_unknown="accept")).verdict() == "settled"
    assert trail(0.2, policy=as_policy(0.7), stop_below=0.3).verdict() == "hopeless"


def test_a_decision_from_elsewhere_settles_nothing() -> None:
    made = Trail(stop_above=0.9)
    made.add(Record(Request("?"), Generation("", "stop"), Confidence(0.5), Decision("accept", "")))
    assert made.verdict() == "go_on"


def test_steps_are_plain_json() -> None:
    made = trail(0.9, None)
    assert made.tokens == 3
    assert json.loads(json.dumps(made.to_dict())) == {
        "confidence": None,
        "aggregate": "minimum",
        "steps": [
            {"name": "step 0", "confidence": 0.9, "tokens": 1},
            {"name": "step 1", "confidence": None, "tokens": 2},
        ],
    }


def test_what_is_refused() -> None:
    with pytest.raises(UnknownName, match="'max' is not one of minimum, product, mean, last"):
        Trail("max")
    for bad in (1.1, -0.1, True, "0.7", float("nan")):
        with pytest.raises(BadRequest, match="stop_below="):
            Trail(stop_below=bad)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"stop_below=0\.8 is above stop_above=0\.7"):
        Trail(stop_above=0.7, stop_below=0.8)
    with pytest.raises(BadRequest, match="a policy is a number"):
        Trail(policy="strict")  # type: ignore[arg-type]
