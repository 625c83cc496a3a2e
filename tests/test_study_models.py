"""Studies of real models: the built-in one, every architecture, plans, saved folders, functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import FAMILIES, save_tiny, tiny_model, tiny_tokenizer
from study_help import questions, toy

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.study import study
from bitcal_integrations.tiny.tasks import questions as tiny_questions

FEW = [(f"Is {i} even?", "no") for i in range(6)]


@pytest.mark.parametrize("model", [tiny_model("llama"), toy("a")()], ids=["module", "loaded"])
def test_one_object_is_no_source_of_many_variants(model: Any) -> None:
    with pytest.raises(BadRequest, match="a function that takes the arguments of load"):
        study(model, questions(40))


def test_the_built_in_model_at_two_weight_types() -> None:
    asked = [
        {"messages": list(q.messages), "gold": q.gold}
        for q in tiny_questions("facts", "test", 40, seed=3)
    ]
    result = study(
        "bitcal-tiny", asked, (None, "qint2"), parser="tiny", grader="tiny", dtype="float32",
        max_new_tokens=40,
    )  # fmt: skip
    plain, small = result.results
    assert result.title == "bitcal-tiny"
    assert small.bytes < plain.bytes / 4
    assert min(small.speed, plain.speed, small.loading) > 0
    assert small.accuracy < plain.accuracy
    assert small.differences["accuracy"].value == pytest.approx(small.accuracy - plain.accuracy)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_can_be_studied(family: str) -> None:
    """By a function that makes it anew for each weight type."""

    def made(**arguments: Any) -> Any:
        return load(tiny_model(family), tokenizer=tiny_tokenizer(), **arguments)

    result = study(made, FEW, ("qint2",), dtype="float32", max_new_tokens=2, timed=0)
    assert not result.result("qint2").error
    assert result.result("qint2").speed is None


def test_plans_saved_folders_and_functions_stand_beside_weight_types(tmp_path: Path) -> None:
    source, saved = save_tiny(tmp_path / "model"), tmp_path / "saved"
    with load(source, weights="qint8", dtype="float32", profile=None) as model:
        model.save(saved)

    def loaded() -> Any:
        return load(tiny_model("llama"), tokenizer=tiny_tokenizer(), profile=None)

    more = {"plan": {"weights": {"*": "qint4"}}, "saved": {"source": saved}, "made": loaded}
    result = study(
        source, FEW, ("qint2",), variants=more, dtype="float32", max_new_tokens=2, timed=0
    )
    assert [r.error for r in result.results] == [""] * 4
    sizes = {r.name: r.bytes for r in result.results}
    assert sizes["qint2"] < sizes["plan"] < sizes["saved"] < sizes["made"]


def made(**arguments: Any) -> Any:
    return load(tiny_model("llama"), tokenizer=tiny_tokenizer(), **arguments)


@pytest.mark.parametrize("timed", [0, 1])
def test_prompts_that_are_too_long_cost_their_own_answers_alone(timed: int) -> None:
    """Also where all prompts of which the speed would be measured are too long."""
    data = [(f"{i} " * 2000, "no") for i in range(4)] + FEW
    result = study(made, data, ("qint2",), dtype="float32", max_new_tokens=2, timed=timed)
    (found,) = result.results
    assert found.error == ""
    assert found.speed is None
    assert 0 < found.failed <= 4
    assert found.failed == np.isnan(found.columns.right).sum()


def test_a_variant_that_is_none_does_not_end_the_study() -> None:
    """Nothing is known of "auto" before the model is there, and then there is nothing to repair."""
    result = study(
        made, FEW, ("qint2", "auto"), (None, "data-free"), variants={"mad": {"weights": "qint3"}},
        dtype="float32", max_new_tokens=2, timed=0,
    )  # fmt: skip
    assert "weights='auto' quantizes nothing" in result.result("auto+data-free").error
    assert "qint3" in result.result("mad").error
    assert not any(result.result(n).error for n in ("qint2", "qint2+data-free", "auto"))
