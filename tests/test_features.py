"""Features come in the order of the schema; what is missing is NaN; what is wrong is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from signal_help import said, seen

from bitcal_integrations import features
from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.features import (
    DEFAULT_FEATURES,
    Schema,
    extra_requests,
    feature_names,
    make_schema,
    measure_all,
    sample_requests,
    uncalibrated,
)
from bitcal_integrations.registry import names, resolve
from bitcal_integrations.types import Answer, Generation, Observation, Step, make_request

FREE = [name for name in names("signals") if resolve("signals", name).NEEDS == "generation"]
PASSES = ("p_true", "verbalized", "perturb")


def test_every_free_signal_gives_two_features() -> None:
    known = feature_names()
    assert known[0] == DEFAULT_FEATURES[0] == "confidence"
    for name in FREE:
        assert {name, f"{name}_text"} <= set(known)
    assert {"agreement", "cocoa", *PASSES, "span_found", "confidence_text"} <= set(known)
    assert "agreement_text" not in known
    others = set(names("signals")) - set(FREE)
    assert others < set(known)
    assert len(known) == len(set(known)) == 2 * len(FREE) + len(others) + 2 + 1


def test_values_over_the_span_and_over_the_text() -> None:
    """Tokens of 1/2, 1/4, 1/16; the span is the last two: (1/4 x 1/16) ** (1/2) = 1/8."""
    schema = make_schema(
        ["confidence", "confidence_text", "length", "length_text", "span_found", "first_prob"]
    )
    found = measure_all(seen((1 / 2, 1 / 4, 1 / 16), (1, 3)), schema)
    assert found == pytest.approx(
        {
            "confidence": 1 / 8,
            "confidence_text": 2 ** (-7 / 3),
            "length": 2,
            "length_text": 3,
            "span_found": 1,
            "first_prob": 1 / 4,
        }
    )
    whole = measure_all(seen((1 / 2, 1 / 4, 1 / 16)), schema)
    assert whole["confidence"] == whole["confidence_text"] == pytest.approx(2 ** (-7 / 3))
    assert whole["span_found"] == 0


def test_a_rounding_error_makes_no_probability_above_one() -> None:
    schema = make_schema(["confidence", "first_prob"])
    assert measure_all(seen((1 + 1e-7,)), schema) == {"confidence": 1.0, "first_prob": 1.0}


def test_the_vector_keeps_its_order_and_shows_what_is_missing() -> None:
    schema = make_schema(["length", "confidence", "agreement"])
    found = measure_all(seen((1 / 2,)), schema)
    assert found == {"length": 1.0, "confidence": 0.5}
    row = schema.vector(found)
    assert row.dtype == np.float64
    assert row[:2].tolist() == [1.0, 0.5]
    assert math.isnan(row[2])
    assert measure_all(seen(()), make_schema()) == {}


def test_the_default_is_free() -> None:
    schema = make_schema()
    assert schema.names == DEFAULT_FEATURES
    assert (schema.needs, schema.passes, schema.samples, schema.cost) == ({"generation"}, (), 0, 0)


def test_what_a_schema_needs_and_costs() -> None:
    schema = make_schema(["confidence", "p_true", "cocoa", "perturb"], samples=3)
    assert schema.needs == {"generation", "samples", "extra_pass"}
    assert schema.passes == ("p_true", "perturb")
    assert schema.cost == 3 + 1 + 1


def test_a_schema_survives_json() -> None:
    schema = make_schema(
        ["confidence", "agreement"], samples=2, sample_temperature=1, scores="top_k"
    )
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    with pytest.raises(UnknownName, match="'gone' is not a feature"):
        Schema.from_dict({**schema.to_dict(), "names": ["gone"]})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"names": ["confidance"]}, UnknownName, "'confidance' is not a feature: confidence, "),
        ({"names": "agreement_text"}, UnknownName, "'agreement_text' is not a feature"),
        ({"names": []}, BadRequest, "no feature is named"),
        ({"names": ["length", "length"]}, BadRequest, "'length' is named twice"),
        ({"names": ["agreement"], "samples": 0}, BadRequest, "'agreement' needs samples"),
        ({"samples": 3}, BadRequest, "those are agreement, cocoa"),
        ({"names": ["cocoa"], "samples": -1}, BadRequest, "samples=-1 is not allowed"),
        ({"names": ["cocoa"], "samples": True}, BadRequest, "samples=True is not allowed"),
        (
            {"names": ["cocoa"], "sample_temperature": 0},
            BadRequest,
            "sample_temperature=0 is not allowed: at 0 every sample is the same answer",
        ),
        (
            {"names": ["cocoa"], "sample_temperature": math.nan},
            BadRequest,
            "sample_temperature=nan",
        ),
        ({"scores": "some"}, BadRequest, "scores='some' is not allowed: use full or top_k"),
    ],
)
def test_what_is_wrong_is_refused(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_schema(**options)


def test_samples_are_drawn_with_their_own_seeds() -> None:
    schema = make_schema(["agreement"], samples=3, sample_temperature=0.9)
    request = make_request("Why?", parser="tiny", top_p=0.5, top_logprobs=5)
    drawn = sample_requests(schema, request)
    assert [r.seed for r in drawn] == [0, 1, 2]
    assert {(r.temperature, r.parser, r.top_logprobs, r.top_p) for r in drawn} == {
        (0.9, "tiny", 0, None)
    }
    assert sample_requests(schema, request) == drawn
    warm = sample_requests(schema, make_request("Why?", temperature=1.0, top_p=0.5, seed=7))
    assert [r.seed for r in warm] == [8, 9, 10]
    assert {r.top_p for r in warm} == {0.5}
    last = sample_requests(schema, make_request("Why?", seed=2**63 - 1))
    assert [r.seed for r in last] == [0, 1, 2]
    assert sample_requests(make_schema(), request) == ()


def test_extra_requests_are_those_of_the_schema() -> None:
    asked = extra_requests(make_schema(["p_true", "confidence"]), make_request("Why?"), said("so"))
    assert {name: len(requests) for name, requests in asked.items()} == {"p_true": 1}
    assert extra_requests(make_schema(), make_request("Why?"), said("so")) == {}


def _generation(text: str, answer: Answer | None = None) -> Generation:
    step = Step(5, text, 0, len(text), math.log(0.25), 0.5, 1.0, 0.0)
    return Generation(text, "stop", (step,) if text else (), answer=answer)


def test_uncalibrated() -> None:
    bare = uncalibrated(make_request("Why?", task="t"), _generation("so"))
    assert (bare.value, bare.calibrated, bare.task) == (None, False, "t")
    assert bare.raw == pytest.approx(0.25)
    assert set(bare.signals) == set(FREE)
    assert bare.reason.startswith("no profile")
    cut = uncalibrated(make_request("Why?", parser="gsm8k"), _generation("so"))
    assert cut.reason == "no_answer: nothing for parser 'gsm8k'"
    empty = uncalibrated(make_request("Why?"), _generation(""))
    assert (empty.raw, empty.signals, empty.reason) == (None, {}, "no_answer: the text is empty")


def test_a_probe_of_hidden_states_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal file that needs "hidden" is a feature like any other, unknown without its state."""
    probe = ModuleType("probe")
    probe.NEEDS, probe.measure = "hidden", _first_of_hidden
    known = {**features._signals(), "probe": probe}
    monkeypatch.setattr(features, "_signals", lambda: known)
    monkeypatch.setattr(features, "_features", features._features.__wrapped__)
    schema = make_schema(["confidence", "probe"])
    assert (schema.needs, schema.passes, schema.cost) == ({"generation", "hidden"}, (), 0)
    state = replace(seen((1 / 2,)), hidden=np.array([0.25, 7.0]))
    assert measure_all(state, schema) == {"confidence": 0.5, "probe": 0.25}
    assert measure_all(seen((1 / 2,)), schema) == {"confidence": 0.5}


def _first_of_hidden(observation: Observation) -> float:
    return math.nan if observation.hidden is None else float(observation.hidden[0])
