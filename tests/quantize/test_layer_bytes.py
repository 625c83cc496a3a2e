"""What layers take in each type is what is stored; a budget means the same in all its forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bits_help import additive, table
from families import FAMILIES, tiny_model, tiny_tokenizer
from torch import nn

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize._layer_bytes import layer_bytes, takes
from bitcal_integrations.quantize._plan import assign, quantize_linear
from bitcal_integrations.quantize.memory import tensor_bytes
from bitcal_integrations.quantize.plan_bits import plan_bits
from bitcal_integrations.quantize.weights import load_weights, memory_report


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["qint8", "qint4", "qint2", "qfloat8"])
def test_bytes_of_odd_shapes_are_those_that_are_stored(kind: str, dtype: torch.dtype) -> None:
    for rows, columns in [(256, 256), (9, 64), (7, 200), (24, 384), (5, 160), (33, 288), (16, 128)]:
        layer = nn.Linear(columns, rows, dtype=dtype)
        if takes(layer, kind):
            holder = nn.ModuleDict({"layer": layer})
            expected = layer_bytes(layer, kind)
            quantize_linear(holder, "layer", kind)
            assert tensor_bytes(holder["layer"].weight) == expected, (rows, columns)


@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_of_a_plan_are_those_of_the_loaded_model(family: str) -> None:
    model = tiny_model(family, torch.bfloat16)
    losses = table(model)
    found = plan_bits(model, additive(losses), budget="4.5 bits", swaps=0)
    report = memory_report(load_weights(model, tokenizer=tiny_tokenizer(), weights=found.plan))
    assert sum(entry["bytes"] for entry in report["linears"].values()) == found.bytes
    assert found.bytes <= found.budget < found.float_bytes


def test_a_layer_is_never_given_what_loading_would_change() -> None:
    for rows, columns in [(24, 256), (16, 256), (24, 64), (24, 160)]:
        for dtype in (torch.float32, torch.bfloat16):
            holder = nn.ModuleDict({"layer": nn.Linear(columns, rows, dtype=dtype)})
            for kind in ("qint8", "qint4", "qint2"):
                given = assign(holder, kind, None, dtype)["layer"]
                assert takes(holder["layer"], kind) == (given == kind)


@pytest.mark.parametrize(
    ("budget", "share"), [(0.5, 0.5), ("0.5", 0.5), ("16 bits", 0.5), (1.0, 1), ("7bits", 7 / 32)]
)
def test_a_budget_in_its_forms(budget: Any, share: float, model: Any) -> None:
    found = plan_bits(model, additive(table(model)), budget=budget, swaps=0)
    assert found.budget == int(share * found.float_bytes)
    for same in (found.budget, str(found.budget), f"{found.budget / 1024} KiB"):
        assert plan_bits(model, additive(table(model)), budget=same, swaps=0) == found


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, None, "much", "0", "1.5", float("nan"), [1]])
def test_no_budget(budget: Any, model: Any) -> None:
    with pytest.raises(BadRequest, match="'3 bits'"):
        plan_bits(model, lambda _: 0.0, budget=budget)


def test_too_small_a_budget_names_the_smallest(model: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        plan_bits(model, lambda _: 0.0, budget="2 bits")
    share = str(refused.value).split("the smallest budget is ")[1].split(",")[0]
    bits = str(refused.value).split("'")[-2]
    for smallest in (float(share), bits):
        found = plan_bits(model, additive(table(model)), budget=smallest, swaps=0)
        assert set(found.plan.values()) == {"qint2"}
    with pytest.raises(BadRequest, match="smallest"):
        plan_bits(model, lambda _: 0.0, budget=float(share) - 1e-3)
    with pytest.raises(BadRequest, match="smallest"):
        plan_bits(model, lambda _: 0.0, budget=0.2, options=("qint8", None))
