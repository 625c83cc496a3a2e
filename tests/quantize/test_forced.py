"""Scores on fixed texts equal what torch gives, text by text, and 0 where nothing has changed."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from families import FAMILIES, tiny_model

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize import forced
from bitcal_integrations.quantize.forced import Brier, Divergence, Text
from bitcal_integrations.quantize.plan_bits import quantized

LAYER = "model.layers.0.mlp.down_proj"


def texts(right: bool = False) -> list[Text]:
    draw = random.Random(1)
    made = []
    for length, start, end in [(9, 3, 9), (31, 20, 25), (14, 1, 14), (10, 9, 10)]:
        ids = tuple(draw.randrange(4, 260) for _ in range(length))
        made.append(Text(ids, start, end, bool(draw.random() < 0.5) if right else None))
    return made


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("llama")


@torch.no_grad()
def logprobs(model: Any, text: Text) -> torch.Tensor:
    """What is expected before every token that is scored, in double precision."""
    logits = model(input_ids=torch.tensor([text.ids])).logits[0, text.start - 1 : text.end - 1]
    return logits.double().log_softmax(-1)


def test_divergence_is_that_of_torch(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forced, "LIKELIEST", 1000)  # all of the vocabulary
    score = Divergence(model, texts())
    before = torch.cat([logprobs(model, t) for t in texts()])
    assert score(model) == 0.0
    with quantized(model, {LAYER: "qint2"}):
        now = torch.cat([logprobs(model, t) for t in texts()])
        expected = torch.nn.functional.kl_div(now, before, log_target=True, reduction="batchmean")
        assert score(model) == pytest.approx(float(expected), rel=1e-3)


def test_what_is_not_among_the_likeliest_counts_as_one(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forced, "LIKELIEST", 5)
    score = Divergence(model, texts())
    total, n = 0.0, 0
    with quantized(model, {LAYER: "qint2"}):
        found = score(model)
        after = [logprobs(model, t).exp() for t in texts()]
    for text, now in zip(texts(), after, strict=True):
        for p, q in zip(logprobs(model, text).exp(), now, strict=True):
            top = p.argsort(descending=True)[:5]
            p, q = (torch.cat([x[top], 1 - x[top].sum()[None]]) for x in (p, q))
            total, n = total + float((p * (p / q).log()).sum()), n + 1
    assert found == pytest.approx(total / n, rel=1e-3)


def test_unlike_models_have_a_finite_divergence() -> None:
    """One is sure of one token, the other of another: float32 alone would overflow."""
    before = torch.tensor([[0.0, -200.0, -200.0]]).log_softmax(-1)
    now = torch.tensor([[-200.0, 0.0, -200.0]]).log_softmax(-1)
    assert forced._divergence(before, now) == pytest.approx(200.0)
    assert forced._divergence(before, before) == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_together_as_alone(family: str) -> None:
    """Texts of a batch are padded, which must not be seen; for each of the architectures."""
    model, asked = tiny_model(family), texts(right=True)
    alone = [logprobs(model, t) for t in asked]
    expected = []
    for text, mine in zip(asked, alone, strict=True):
        said = mine.gather(1, torch.tensor(text.ids[text.start : text.end])[:, None])
        expected.append((float(said.mean().exp()) - float(bool(text.right))) ** 2)
    assert Brier(model, asked)(model) == pytest.approx(sum(expected) / 4, rel=1e-4)
    first = Divergence(model, asked)
    assert len(first.batches) > 1
    wanted = torch.cat([before[:, 0] for _, before in first.wanted]).double().sort().values
    best = torch.cat([mine.max(-1).values for mine in alone]).sort().values
    torch.testing.assert_close(wanted, best, rtol=1e-4, atol=1e-4)


def test_batches_are_bounded(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Divergence(model, texts())
    monkeypatch.setattr(forced, "LOGITS", 1)
    single = Divergence(model, texts())
    assert [len(batch) for batch in single.batches] == [1, 1, 1, 1]
    with quantized(model, {LAYER: "qint4"}):
        assert single(model) == pytest.approx(whole(model), rel=1e-3)


def test_what_cannot_be_scored(model: Any) -> None:
    with pytest.raises(BadRequest, match="right"):
        Brier(model, texts())
    for nothing in ([], [Text((5, 6), 0, 2)], [Text((5, 6), 2, 2)], [Text((5, 6), 1, 3)]):
        with pytest.raises(BadRequest, match="no text"):
            Divergence(model, nothing)


def test_a_broken_model_has_no_score(model: Any) -> None:
    score = Divergence(model, texts())
    other = tiny_model("llama")
    other.get_submodule(LAYER).weight.data.fill_(float("nan"))
    assert score(other) != score(other)
