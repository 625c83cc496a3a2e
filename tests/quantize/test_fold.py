"""Folds change the layers and not what the model computes; what does not allow it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, logits_of, tiny_config, tiny_model
from transformers import AutoModelForCausalLM

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize import fold


def with_biases(model: Any) -> Any:
    """Random numbers in place of the zeros that new biases hold."""
    source = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=source)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_learned_folds_keep_what_the_model_computes(family: str) -> None:
    model = with_biases(tiny_model(family, layers=2))
    before = logits_of(model)
    pairs = fold.require_foldable(model)
    assert len(pairs) == 2
    for pair in pairs:
        old = pair.value.weight.clone()
        found = fold.learn_fold(pair, steps=25)
        assert found.after < found.before
        fold.fold(pair, found.matrices)
        assert (pair.value.weight - old).abs().max() > 0.01
    assert (logits_of(model) - before).abs().max() < 1e-4
    assert fold.foldable(model)[1] == {}


@pytest.mark.parametrize("own", [{"new_decoder_architecture": True, "num_kv_heads": 2}, {}])
def test_the_other_layouts_of_falcon(own: dict[str, Any]) -> None:
    config = tiny_config("falcon")
    config.update({"multi_query": False, **own})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    before = logits_of(model)
    (pair,) = fold.require_foldable(model)
    fold.fold(pair, fold.random_orthogonal(*pair.rows.shape, seed=3))
    assert (logits_of(model) - before).abs().max() < 1e-4


def test_in_bfloat16_it_is_as_exact_as_the_type() -> None:
    model = tiny_model("llama", torch.bfloat16)
    before = logits_of(model).float()
    (pair,) = fold.require_foldable(model)
    fold.fold(pair, fold.random_orthogonal(*pair.rows.shape, seed=3))
    assert pair.value.weight.dtype is torch.bfloat16
    assert (logits_of(model).float() - before).abs().max() < 0.02 * before.abs().max() + 0.01


def test_learning_beats_a_random_turn_and_turns_are_orthogonal() -> None:
    (pair,) = fold.require_foldable(tiny_model("qwen2"))
    random, learned = (fold.learn_fold(pair, seed=5, steps=n) for n in (0, 60))
    assert learned.after < 0.95 * random.after
    eye = torch.eye(pair.rows.shape[1]).expand(pair.rows.shape[0], -1, -1)
    assert torch.allclose(learned.matrices.mT @ learned.matrices, eye, atol=1e-5)


def test_same_seed_same_result() -> None:
    (pair,) = fold.require_foldable(tiny_model("llama"))
    one, two, other = (fold.learn_fold(pair, seed=s, steps=5).matrices for s in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)


def test_cayley_by_hand() -> None:
    """The skew matrix [[0, -t], [t, 0]] gives the turn by the angle 2 atan t."""
    turn = fold.cayley(torch.tensor([[[0.0, -0.5], [0.5, 0.0]]]))  # its skew part has t = 1
    assert torch.allclose(turn, torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]]), atol=1e-6)


def gated_llama(layers: int) -> Any:
    """A Llama whose first layer has a gate between the values and the output layer."""
    model = tiny_model("llama", layers=layers)
    attention = model.model.layers[0].self_attn
    gate = torch.linspace(0.1, 2.0, 256)

    class GatedAttention(type(attention)):  # type: ignore[misc]
        pass

    attention.__class__ = GatedAttention
    # this hook comes before the one that looks at what arrives, as a gate in forward would
    attention.o_proj.register_forward_pre_hook(lambda _, inputs: (inputs[0] * gate,))
    return model


def test_gated_attention_is_refused_and_left_as_it_was() -> None:
    model = gated_llama(layers=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(LoadError, match="GatedAttention does more with its values than mix them"):
        fold.require_foldable(model)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_where_a_model_mixes_only_the_gated_layers_are_left_out() -> None:
    model = gated_llama(layers=2)
    pairs, skipped = fold.foldable(model)
    assert [pair.name for pair in pairs] == ["model.layers.1.self_attn"]
    assert list(skipped) == ["model.layers.0.self_attn"]


def test_an_architecture_without_value_layers_is_refused() -> None:
    model = tiny_model("llama")
    attention = model.model.layers[0].self_attn
    attention.w_values = attention.v_proj
    del attention.v_proj
    with pytest.raises(LoadError, match="LlamaAttention with q_proj, k_proj, o_proj, w_values"):
        fold.require_foldable(model)
