"""Models loaded by name are shared by equal arguments, and by nothing else."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from bitcal_integrations import shared
from bitcal_integrations.shared import shared_model
from bitcal_integrations.testing.toy import ToyModel


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "load", lambda source, **_: ToyModel({}))


def test_a_folder_that_was_written_anew_is_loaded_anew(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    first = shared_model(tmp_path, {"weights": None})
    assert shared_model(tmp_path, {"weights": None}) is first
    (tmp_path / "model.safetensors").write_text("other weights")
    assert shared_model(tmp_path, {"weights": None}) is not first


def test_objects_as_arguments_are_not_shared() -> None:
    arguments = {"tokenizer": object()}
    assert shared_model("m", arguments) is not shared_model("m", arguments)


def test_a_plan_of_other_order_is_another_plan() -> None:
    one, other = {"a*": "qint8", "b*": "qint4"}, {"b*": "qint4", "a*": "qint8"}
    first = shared_model("m", {"weights": one})
    assert shared_model("m", {"weights": dict(one)}) is first
    assert shared_model("m", {"weights": other}) is not first


def test_a_closed_model_is_not_given_out_again() -> None:
    first = shared_model("m", {"weights": "qint8"})
    first.close()
    assert shared_model("m", {"weights": "qint8"}) is not first


def test_nobody_holding_it_frees_it() -> None:
    held = shared_model("m", {"weights": "qint2"})
    before = len(shared._MODELS)
    del held
    gc.collect()
    assert len(shared._MODELS) < before
