"""A model object that the user holds is wrapped as it is, and described for the fingerprint."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from families import logits_of, tiny_model, tiny_tokenizer
from optimum.quanto import freeze, qint8, quantize

from bitcal_integrations.errors import LoadError, SaveError
from bitcal_integrations.quantize.weights import load_weights, save_weights


@dataclasses.dataclass
class Adapter:
    """What PEFT leaves on a model: a config per adapter."""

    peft_type: str = "LORA"
    r: int = 8
    target_modules: set[str] = dataclasses.field(default_factory=lambda: {"q_proj", "v_proj"})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@pytest.fixture
def model() -> Any:
    return tiny_model("llama", torch.bfloat16)


@pytest.fixture
def frozen(model: Any) -> Any:
    quantize(model, weights=qint8, exclude="*lm_head")
    freeze(model)
    return model


def test_a_plain_model_is_used_as_it_is(model: Any) -> None:
    before = logits_of(model)
    model.train()
    loaded = load_weights(model, tokenizer=tiny_tokenizer())
    assert loaded.model is model
    assert not model.training
    assert torch.equal(before, logits_of(model))
    assert (loaded.source, loaded.weights, loaded.dtype) == ("LlamaForCausalLM", {}, "bfloat16")
    assert loaded.parts["quantization_config"] is None
    assert loaded.parts["adapters"] is None


def test_its_tokenizer_is_needed(model: Any, llama: Path) -> None:
    with pytest.raises(LoadError, match=r"a model object .LlamaForCausalLM. needs its tokenizer"):
        load_weights(model)
    loaded = load_weights(model, tokenizer=llama)
    assert loaded.tokenizer.eos_token == "</s>"
    assert load_weights(model, tokenizer=str(llama)).parts == loaded.parts


def test_a_plain_model_can_be_quantized_in_place(model: Any, tmp_path: Path) -> None:
    loaded = load_weights(
        model, weights={"*": "qint8", "*mlp*": "qint4"}, tokenizer=tiny_tokenizer()
    )
    assert loaded.model is model
    assert set(loaded.weights.values()) == {"qint8", "qint4"}
    save_weights(loaded, tmp_path / "saved")
    again = load_weights(tmp_path / "saved")
    assert again.parts == loaded.parts
    assert torch.equal(logits_of(model), logits_of(again.model))


def test_a_quantized_model_is_not_quantized_again(frozen: Any) -> None:
    before = logits_of(frozen)
    loaded = load_weights(frozen, tokenizer=tiny_tokenizer())
    assert set(loaded.weights.values()) == {"qint8"}
    assert torch.equal(before, logits_of(frozen))
    for weights in ("qint4", "qint8", None):
        with pytest.raises(LoadError, match=r"already quantized \(quanto\)"):
            load_weights(frozen, weights=weights, tokenizer=tiny_tokenizer())


def test_an_unfrozen_model_is_refused(model: Any) -> None:
    quantize(model, weights=qint8)
    with pytest.raises(LoadError, match="quantized but not frozen"):
        load_weights(model, tokenizer=tiny_tokenizer())


def test_it_stays_where_it_is(model: Any) -> None:
    assert load_weights(model, device="cpu", tokenizer=tiny_tokenizer()).device == "cpu"
    with pytest.raises(LoadError, match="device='meta' was asked for and the model is on cpu"):
        load_weights(model, device="meta", tokenizer=tiny_tokenizer())


@pytest.mark.parametrize("thing", [3, None, object(), torch.nn.Linear(2, 2)])
def test_something_else_is_refused(thing: Any) -> None:
    with pytest.raises(LoadError, match="neither a name, a folder nor a transformers model"):
        load_weights(thing, tokenizer=tiny_tokenizer())


def test_adapters_enter_the_fingerprint(model: Any, tmp_path: Path) -> None:
    plain = load_weights(model, tokenizer=tiny_tokenizer()).parts
    model.peft_config = {"default": Adapter()}
    model.active_adapter = "default"
    loaded = load_weights(model, tokenizer=tiny_tokenizer())
    described = loaded.parts["adapters"]
    assert described["active"] == ["default"]
    assert described["configs"]["default"]["target_modules"] == ["q_proj", "v_proj"]
    assert {**loaded.parts, "adapters": None} == plain
    model.peft_config = {"default": Adapter(r=16)}
    assert load_weights(model, tokenizer=tiny_tokenizer()).parts != loaded.parts
    with pytest.raises(LoadError, match=r"already quantized .with adapters."):
        load_weights(model, weights="qint4", tokenizer=tiny_tokenizer())
    with pytest.raises(SaveError, match="it carries adapters"):
        save_weights(loaded, tmp_path / "saved")


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_other_libraries_are_known_by_their_config(model: Any, method: str, tmp_path: Path) -> None:
    model.config.quantization_config = {"quant_method": method, "bits": 4}
    loaded = load_weights(model, tokenizer=tiny_tokenizer())
    assert loaded.parts["quantization_config"] == {"quant_method": method, "bits": 4}
    with pytest.raises(LoadError, match=rf"already quantized \({method}\)"):
        load_weights(model, weights="qint4", tokenizer=tiny_tokenizer())
    with pytest.raises(SaveError, match=f"quantized by {method}"):
        save_weights(loaded, tmp_path / "saved")


def test_a_wrapper_round_the_model_is_taken_off(model: Any) -> None:
    class Wrapper(torch.nn.Module):
        """AWQ's and GPTQ's classes hold the model as `.model`."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.model, self.config = inner, inner.config

    assert load_weights(Wrapper(model), tokenizer=tiny_tokenizer()).model is model


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_model_of_quanto_config(kind: str, llama: Path, tmp_path: Path) -> None:
    """transformers quantizes it itself and then refuses to save it; here it is saved."""
    pytest.importorskip("accelerate")
    from transformers import AutoModelForCausalLM, QuantoConfig

    made = AutoModelForCausalLM.from_pretrained(
        llama, dtype=torch.bfloat16, quantization_config=QuantoConfig(weights=kind)
    )
    before = logits_of(made)
    loaded = load_weights(made, tokenizer=tiny_tokenizer())
    assert set(loaded.weights.values()) == {f"q{kind}"}
    assert loaded.parts["quantization_config"]["weights"] == kind
    assert torch.equal(before, logits_of(loaded.model))
    with pytest.raises(LoadError, match=r"already quantized \(quanto\)"):
        load_weights(made, weights="qint2", tokenizer=tiny_tokenizer())
    save_weights(loaded, tmp_path / "saved")
    again = load_weights(tmp_path / "saved")
    assert again.parts == loaded.parts
    assert torch.equal(before, logits_of(again.model))


def test_a_loaded_object_is_never_copied(model: Any) -> None:
    loaded = load_weights(model, tokenizer=tiny_tokenizer())
    assert copy.deepcopy([loaded])[0].model is model
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.dtype = "float32"  # type: ignore[misc]
