"""The probe as a signal: what it reads, what a schema keeps of it, and what is unknown."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from signal_help import seen

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.features import (
    DEFAULT_FEATURES,
    PROBE,
    Schema,
    make_schema,
    measure_all,
    with_probe,
)
from bitcal_integrations.signals import hidden_probe
from bitcal_integrations.signals._probe import Probe, read, written

STATE = np.array([2.0, -1.0, 0.5], dtype=np.float32)
ADDS = Probe((0.5, 1.0, -2.0), 0.25, "worth a little")  # of the state: 1 - 1 - 1 + .25 = -.75
FITTED = replace(make_schema([*DEFAULT_FEATURES, PROBE], layer=3), probe=ADDS)


def test_it_is_what_the_probe_says_of_the_state() -> None:
    whole = replace(seen(), hidden=STATE, probe=ADDS)
    assert hidden_probe.measure(whole) == -0.75
    assert measure_all(replace(seen(), hidden=STATE), FITTED)[PROBE] == -0.75


@pytest.mark.parametrize(
    "found", [{"hidden": STATE}, {"probe": ADDS}, {"probe": ADDS, "hidden": STATE[:2]}]
)
def test_without_a_probe_a_state_or_the_right_width_it_is_unknown(found: dict[str, Any]) -> None:
    assert math.isnan(hidden_probe.measure(replace(seen(), **found)))
    unfitted = make_schema([PROBE])
    assert measure_all(replace(seen(), hidden=STATE), unfitted) == {}


def test_a_schema_with_a_probe_survives_json() -> None:
    again = Schema.from_dict(json.loads(json.dumps(FITTED.to_dict())))
    assert again == FITTED
    assert (again.layer, again.hidden) == (3, True)
    assert again.probe is not None
    assert again.probe(STATE) == ADDS(STATE)


def test_a_schema_without_one_is_written_as_ever() -> None:
    assert set(make_schema().to_dict()) == {"names", "samples", "sample_temperature", "scores"}
    assert not make_schema().hidden


def test_it_costs_no_pass_and_needs_a_state() -> None:
    assert (FITTED.cost, FITTED.passes) == (0, ())
    assert FITTED.needs == {"generation", "hidden"}


def test_a_layer_without_a_feature_that_reads_it_is_refused() -> None:
    with pytest.raises(BadRequest, match="layer=3, but no feature reads a hidden state"):
        make_schema(layer=3)


def test_a_state_of_another_layer_is_not_read() -> None:
    assert FITTED.behind(3) is FITTED
    for layer in (None, 2):
        assert measure_all(replace(seen(), hidden=STATE), FITTED.behind(layer)).get(PROBE) is None
    assert make_schema().behind(None).names == DEFAULT_FEATURES


def test_states_are_kept_as_text_with_their_layer() -> None:
    kept = json.loads(json.dumps(written(STATE, 3)))
    found = read(kept, 3)
    assert found is not None
    assert np.array_equal(found, STATE)
    assert read(kept, 2) is None
    assert read(None, 3) is None
    assert written(None, 3) is written(STATE, None) is None


def test_kept_signals_get_what_the_probe_of_today_says() -> None:
    stale = {"confidence": 0.5, PROBE: 9.0}
    assert with_probe(stale, written(STATE, 3), FITTED) == {"confidence": 0.5, PROBE: -0.75}
    assert with_probe(stale, None, FITTED) == {"confidence": 0.5}
    assert with_probe(stale, written(STATE, 2), FITTED) == {"confidence": 0.5}
    assert with_probe(stale, None, make_schema()) == stale
    assert with_probe(stale, None, None) == stale
