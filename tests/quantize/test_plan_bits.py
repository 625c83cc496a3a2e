"""Types per layer under a budget: exact where losses add up, and checked as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bits_help import KINDS, additive, table, types_of
from families import logits_of, tiny_model

from bitcal_integrations.errors import BadRequest, LoadError, NotQuantized
from bitcal_integrations.quantize._layer_bytes import layer_bytes, linear_layers
from bitcal_integrations.quantize._plan import quantize_linear
from bitcal_integrations.quantize.plan_bits import plan_bits, quantized


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


def every_plan(model: Any) -> Iterator[tuple[dict[str, str | None], int]]:
    layers = linear_layers(model, "*lm_head")
    for kinds in itertools.product(KINDS, repeat=len(layers)):
        plan = dict(zip(layers, kinds, strict=True))
        yield plan, sum(layer_bytes(layers[n], k) for n, k in plan.items())


def test_where_losses_add_up_no_plan_is_better(model: Any) -> None:
    losses = table(model)
    found = plan_bits(model, additive(losses), budget="5 bits", swaps=5)
    best = min(
        sum(losses[item] for item in plan.items())
        for plan, size in every_plan(model)
        if size <= found.budget
    )
    assert found.predicted == pytest.approx(5.0 + best)
    assert found.measured == pytest.approx(found.predicted)
    assert found.unquantized == 5.0
    assert found.swaps == ()
    assert found.why["model.layers.0.mlp.up_proj"]["qint4"] == pytest.approx(
        losses["model.layers.0.mlp.up_proj", "qint4"]
    )


def test_more_budget_never_costs_more(model: Any) -> None:
    score = additive(table(model, 3))
    budgets = [f"{bits} bits" for bits in (2.5, 3, 4, 6, 9, 32)]
    found = [plan_bits(model, score, budget=b, swaps=0) for b in budgets]
    predicted = [plan.predicted for plan in found]
    assert predicted == sorted(predicted, reverse=True)
    assert all(plan.bytes <= plan.budget for plan in found)
    assert set(found[-1].plan.values()) == {None}


def test_exchanges_mend_what_does_not_add_up(model: Any) -> None:
    """Two layers that only hurt together: each alone tells nothing of it."""
    losses = table(model)
    first = plan_bits(model, additive(losses), budget="3 bits", swaps=0)
    low = [n for n, k in first.plan.items() if k == "qint2"][:2]

    def score(found: Any) -> float:
        together = all(types_of(found)[name] == "qint2" for name in low)
        return additive(losses)(found) + 20.0 * together

    stubborn = plan_bits(model, score, budget="3 bits", swaps=0)
    found = plan_bits(model, score, budget="3 bits")
    assert stubborn.measured == pytest.approx(first.measured + 20)
    assert found.measured < first.measured + 5
    assert found.swaps
    assert found.bytes <= found.budget
    with quantized(model, found.plan):
        assert score(model) == found.measured


def test_no_plan_is_worse_than_one_type_that_fits(model: Any) -> None:
    """A score that likes nothing but one type everywhere, which no single layer shows."""

    def score(found: Any) -> float:
        return float(set(types_of(found).values()) != {"qint4"}) + 0.0

    found = plan_bits(model, score, budget="8 bits", swaps=0)
    assert set(found.plan.values()) == {"qint4"}
    assert found.measured == 0.0


def test_the_model_is_as_it_was(model: Any) -> None:
    before, modules = logits_of(model), list(map(id, model.modules()))
    plan_bits(model, additive(table(model)), budget="3 bits")
    assert list(map(id, model.modules())) == modules
    assert torch.equal(logits_of(model), before)

    def fails(_: Any) -> float:
        raise KeyboardInterrupt if any(types_of(model).values()) else RuntimeError

    with pytest.raises(RuntimeError):
        plan_bits(model, fails, budget="3 bits")
    with (
        pytest.raises(KeyboardInterrupt),
        quantized(model, {"model.layers.0.mlp.up_proj": "qint2"}),
    ):
        fails(model)
    assert list(map(id, model.modules())) == modules


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"options": ("qint3",)}, "qint3"),
        ({"options": ()}, r"\(\)"),
        ({"swaps": -1}, "swaps=-1"),
        ({"swaps": True}, "swaps=True"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str, model: Any) -> None:
    with pytest.raises(BadRequest, match=words):
        plan_bits(model, lambda _: 0.0, budget=0.5, **options)


def test_what_cannot_be_planned(model: Any) -> None:
    with pytest.raises(BadRequest, match="score is nan"):
        plan_bits(model, lambda _: float("nan"), budget=0.5)
    with pytest.raises(NotQuantized, match="has no torch"):
        plan_bits(model, lambda _: 0.0, budget=0.5, exclude="*")
    small = tiny_model("llama")
    quantize_linear(small, "model.layers.0.mlp.up_proj", "qint8")
    with pytest.raises(LoadError, match="quantized already"):
        plan_bits(small, lambda _: 0.0, budget=0.5)
