"""A search that is cut goes on and ends the same; plans of real weights come back bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bits_help import additive, table
from families import FAMILIES, logits_of, tiny_model, tiny_tokenizer

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize._kept_scores import KeptScores
from bitcal_integrations.quantize.clip import clip_optimizer
from bitcal_integrations.quantize.forced import Divergence, Text
from bitcal_integrations.quantize.plan_bits import BitPlan, plan_bits
from bitcal_integrations.quantize.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


class Cut:
    """A score that is interrupted after so many calls."""

    def __init__(self, score: Callable[[Any], float], after: int = 10**9) -> None:
        self.score, self.after, self.calls = score, after, 0

    def __call__(self, model: Any) -> float:
        if self.calls == self.after:
            raise KeyboardInterrupt
        self.calls += 1
        return self.score(model)


@pytest.mark.parametrize("after", [3, 22, 30])
def test_a_cut_search_goes_on_and_ends_the_same(after: int, model: Any, tmp_path: Path) -> None:
    keep, score = tmp_path / "out.bits.json", additive(table(model))
    whole = Cut(score)
    expected = plan_bits(model, whole, budget="3 bits")
    with pytest.raises(KeyboardInterrupt):
        plan_bits(model, Cut(score, after), budget="3 bits", keep=keep, about={"of": 1})
    rest = Cut(score)
    found = plan_bits(model, rest, budget="3 bits", keep=keep, about={"of": 1})
    assert found == expected
    assert rest.calls == whole.calls - after
    again = Cut(score)
    assert plan_bits(model, again, budget="3 bits", keep=keep, about={"of": 1}) == expected
    assert again.calls == 0
    other = Cut(score)  # another budget needs no layer scored again
    plan_bits(model, other, budget="4 bits", keep=keep, about={"of": 1}, swaps=0)
    assert other.calls <= 1


def test_what_is_kept_is_checked(model: Any, tmp_path: Path) -> None:
    keep = tmp_path / "out.bits.json"
    KeptScores(keep, {"data": "a"}).get("unquantized", lambda: 1.0)
    with pytest.raises(BadRequest, match="another data"):
        plan_bits(model, lambda _: 0.0, budget=0.5, keep=keep, about={"data": "b"})
    keep.write_text("{}")
    with pytest.raises(BadRequest, match="left as it is"):
        plan_bits(model, lambda _: 0.0, budget=0.5, keep=keep)
    assert keep.read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["out.bits.json"]


def test_progress_is_told(model: Any) -> None:
    told: list[tuple[int, int, str]] = []
    plan_bits(model, additive(table(model)), budget="3 bits", progress=lambda *s: told.append(s))
    assert [done for done, _, _ in told] == list(range(1, len(told) + 1))
    assert told[0][2] == "unquantized"
    assert told[1] == (2, told[0][1], "model.layers.0.self_attn.q_proj qint2")
    assert len(told) <= told[0][1]


# ---- real weights


def texts(n: int = 3) -> list[Text]:
    draw = random.Random(0)
    made = [tuple(draw.randrange(4, 260) for _ in range(12 + at)) for at in range(n)]
    return [Text(ids, 4, len(ids)) for ids in made]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_planned_and_comes_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    score = Divergence(model, texts())
    found: BitPlan = plan_bits(model, score, budget="4 bits", options=("qint2", "qint8"), swaps=1)
    assert found.unquantized == 0.0
    assert all(why["qint2"] > why["qint8"] > 0 for why in found.why.values())
    loaded = load_weights(model, tokenizer=tiny_tokenizer(), weights=found.plan)
    assert score(loaded.model) == found.measured
    save_weights(loaded, tmp_path / "small")
    again = load_weights(tmp_path / "small")
    assert torch.equal(logits_of(again.model), logits_of(loaded.model))
    assert again.weights == {n: k for n, k in found.plan.items() if k is not None}


def test_in_bfloat16_the_kernels_that_serve_are_scored() -> None:
    model = tiny_model("llama", torch.bfloat16)
    score = Divergence(model, texts())
    found = plan_bits(model, score, budget=0.3, options=("qint2", "qint4"), swaps=2)
    loaded = load_weights(model, tokenizer=tiny_tokenizer(), weights=found.plan)
    assert score(loaded.model) == found.measured


def test_another_optimizer_is_used(model: Any) -> None:
    score, name = Divergence(model, texts()), "model.layers.0.mlp.down_proj"
    plain = plan_bits(model, score, budget=0.99, options=("qint2", None), swaps=0)
    clipped = plan_bits(
        model,
        score,
        budget=0.99,
        options=("qint2", None),
        swaps=0,
        optimizer=clip_optimizer,
    )
    assert clipped.why[name]["qint2"] != plain.why[name]["qint2"]
