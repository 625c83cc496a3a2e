"""Alignment: the target by hand, sequences from a seed, layers run one by one, and refusals."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, logits_of, tiny_model

from bitcal_integrations.quantize import align


@pytest.fixture(autouse=True)
def _few_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "ROWS", 4)
    monkeypatch.setattr(align, "TOKENS", 12)


def test_a_case_by_hand() -> None:
    """The inputs at hand are half of the float ones, so the weight has to double, less the hold."""
    wanted = torch.tensor([[[2.0], [4.0]]])
    gram, cross = align._moments([(wanted, wanted / 2)])
    assert gram.item() == pytest.approx(1 + align.DAMP)
    assert cross.item() == pytest.approx(2 + align.DAMP)
    target = align._target(torch.tensor([[3.0]]), gram, cross)
    assert target.item() == pytest.approx(3 * (2 + align.DAMP) / (1 + align.DAMP))


def test_equal_inputs_leave_a_weight_where_it_is() -> None:
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor([[1.0, -2.0, 0.5]])
    assert torch.allclose(align._target(weight, *align._moments([(x, x)])), weight)


def test_sequences_come_from_the_seed() -> None:
    model = tiny_model("llama")
    one, two, other = (align.sequences(model, seed) for seed in (1, 1, 2))
    assert [t.shape for t in one] == [(4, 12), (4, 12)]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[1], other[1])
    assert (one[1][:, 0] == model.config.bos_token_id).all()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_layer_is_met_in_order_and_nothing_changes_without_rounding(family: str) -> None:
    model = tiny_model(family, layers=2)
    before = logits_of(model)
    names = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    names -= {"lm_head", "embed_out"}
    met: list[str] = []

    def rounder(name: str, target: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        met.append(name)
        return target

    align.align(model, names, rounder)
    assert set(met) == names
    assert len(met) == len(names)
    assert [".1." in name for name in met] == sorted(".1." in name for name in met)
    assert (logits_of(model) - before).abs().max() < 1e-3


@torch.no_grad()
def test_later_layers_make_up_for_earlier_ones() -> None:
    """The first layer loses a part of each weight; aimed layers end nearer to the float model."""
    model, blind = tiny_model("llama", layers=2), tiny_model("llama", layers=2)
    want = logits_of(model)
    names = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)} - {"lm_head"}

    def lossy(name: str, target: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        return 0.7 * target if "layers.0.self_attn" in name else target

    align.align(model, names, lossy)
    for name in names:
        if "layers.0.self_attn" in name:
            blind.get_submodule(name).weight.data *= 0.7
    off = [float((logits_of(m) - want).norm()) for m in (model, blind)]
    assert off[0] < off[1]


def test_a_model_that_does_more_between_its_layers_is_left_alone() -> None:
    model = tiny_model("llama", layers=2)
    model.model.layers[1].register_forward_pre_hook(
        lambda _, args, kwargs: ((args[0] * 2, *args[1:]), kwargs), with_kwargs=True
    )
    with pytest.raises(align.NotAlignable, match="LlamaDecoderLayer gets more than the layer"):
        align.align(model, {"model.layers.0.mlp.up_proj"}, lambda *_: torch.zeros(()))


def test_a_model_without_a_list_of_layers_is_left_alone() -> None:
    model = tiny_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(align.NotAlignable, match="no list of decoder layers"):
        align._decoder_layers(model)
