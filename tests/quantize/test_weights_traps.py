"""Every trap of quanto and transformers that the loader owns has a test that fails without it."""

from __future__ import annotations

import copy
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families import logits_of, save_quanto, save_tiny, tiny_config, tiny_model, tiny_tokenizer
from optimum.quanto import QuantizedModelForCausalLM, freeze, qint4, qint8, quantize
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize import _shim
from bitcal_integrations.quantize._build import empty_model
from bitcal_integrations.quantize.weights import load_weights, save_weights

WEIGHTS = "bitcal-00001.safetensors"


@pytest.fixture
def saved(llama: Path, tmp_path: Path) -> Path:
    save_weights(load_weights(llama, weights="qint8", dtype="bfloat16"), tmp_path / "saved")
    return tmp_path / "saved"


def inner(model: Any) -> list[torch.Tensor]:
    found = []
    for _, module in _shim.quantized_modules(model):
        found += [getattr(owner, name) for owner, name in _shim.inner_tensors(module.weight)]
    return found


def rewrite(folder: Path, change: Any) -> None:
    """Apply a change to the stored tensors."""
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


# B1: the packed int8 kernel crashes the process on unaligned weights.


def test_b1_every_loaded_tensor_is_aligned(saved: Path) -> None:
    raw = (saved / WEIGHTS).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    for pad in (1, 5):  # bytes of padding move every tensor in the file
        header = raw[8 : 8 + size] + b" " * pad
        moved = len(header).to_bytes(8, "little") + header + raw[8 + size :]
        (saved / WEIGHTS).write_bytes(moved)
        tensors = inner(load_weights(saved).model)
        assert tensors
        assert all(t.data_ptr() % 16 == 0 for t in tensors)


def test_b1_an_object_is_aligned_in_place() -> None:
    model = tiny_model("llama", torch.bfloat16)
    quantize(model, weights=qint8, exclude="*lm_head")
    freeze(model)
    weight = model.model.layers[0].mlp.up_proj.weight
    memory = torch.empty(weight._data.numel() + 4, dtype=torch.int8)
    shifted = memory[4:].view_as(weight._data).copy_(weight._data)
    weight._data = shifted
    assert weight._data.data_ptr() % 16
    loaded = load_weights(model, tokenizer=tiny_tokenizer())
    assert all(t.data_ptr() % 16 == 0 for t in inner(loaded.model))


# B2: a folder with quantized tensors and no map of their types.


def test_b2_quanto_tensors_without_a_map_are_refused(tmp_path: Path) -> None:
    for kind in (qint8, qint4):
        model = tiny_model("llama")
        quantize(model, weights=kind, exclude="*lm_head")
        freeze(model)
        model.save_pretrained(tmp_path / kind.name)
        tiny_tokenizer().save_pretrained(tmp_path / kind.name)
        with pytest.raises(LoadError, match="no map of their types"):
            load_weights(tmp_path / kind.name)


def test_b2_transformers_cannot_mistake_our_folder_for_its_own(saved: Path) -> None:
    with pytest.raises(OSError, match="no file named"):
        AutoModelForCausalLM.from_pretrained(saved)


# B3: quanto loads with missing tensors and says nothing.


@pytest.mark.parametrize(
    "key",
    [
        "model.norm.weight",
        "model.layers.0.mlp.up_proj.weight._data",
        "model.layers.0.mlp.up_proj.weight._scale",
        "model.layers.0.mlp.up_proj.input_scale",
    ],
)
def test_b3_a_missing_tensor_is_named(saved: Path, key: str) -> None:
    rewrite(saved, lambda tensors: tensors.pop(key))
    with pytest.raises(LoadError, match=f"1 missing .{key}"):
        load_weights(saved)


def test_b3_an_unexpected_tensor_is_named(saved: Path) -> None:
    rewrite(saved, lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(LoadError, match=r"1 unexpected .extra"):
        load_weights(saved)


def test_b3_a_wrong_shape_is_named(saved: Path) -> None:
    key = "model.layers.0.mlp.up_proj.weight._data"
    rewrite(saved, lambda tensors: tensors.update({key: tensors[key][:8].clone()}))
    with pytest.raises(LoadError, match=r"up_proj.weight._data' has shape \(8, 256\)"):
        load_weights(saved)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_b3_holds_for_float_checkpoints(llama: Path, tmp_path: Path, change: str) -> None:
    folder = Path(shutil.copytree(llama, tmp_path / "copy"))
    tensors = load_file(folder / "model.safetensors")
    if change == "missing":
        del tensors["model.norm.weight"]
    elif change == "unexpected":
        tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(2)
    else:
        tensors["model.norm.weight"] = torch.zeros(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"model.norm.weight|model.layers.1.mlp.up_proj.weight"):
        load_weights(folder)


# B4: transformers renames GPT-NeoX's head when it saves.


def test_b4_our_folder_keeps_the_names_of_the_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "raw", "gpt_neox")
    assert "embed_out.weight" in load_file(folder / "model.safetensors")
    loaded = load_weights(folder, weights="qint8")
    save_weights(loaded, tmp_path / "saved")
    assert "lm_head.weight" in load_file(tmp_path / "saved" / WEIGHTS)
    again = load_weights(tmp_path / "saved").model
    assert torch.equal(logits_of(loaded.model), logits_of(again))


def test_b4_quantos_own_renamed_folder_is_refused(tmp_path: Path) -> None:
    save_quanto("gpt_neox", tmp_path)
    with pytest.raises(LoadError, match=r"1 missing \(lm_head.weight\), 1 unexpected \(embed_out"):
        load_weights(tmp_path)


@pytest.mark.parametrize("family", ["llama", "gemma2", "opt"])
def test_a_folder_that_quanto_saved_loads(family: str, tmp_path: Path) -> None:
    model = save_quanto(family, tmp_path)
    loaded = load_weights(tmp_path)
    assert set(loaded.weights.values()) == {"qint4"}
    assert torch.equal(logits_of(model), logits_of(loaded.model))


# B5: a model built on the meta device has random rotary frequencies.


def test_b5_an_empty_model_has_its_real_buffers() -> None:
    for family in ("llama", "gemma2", "phi", "opt", "gpt_neox"):
        for dtype in (torch.float32, torch.bfloat16):
            empty = empty_model(tiny_config(family), dtype)
            real = dict(tiny_model(family, dtype).named_buffers())
            assert all(p.device.type == "meta" for p in empty.parameters())
            for name, buffer in empty.named_buffers():
                assert buffer.dtype == real[name].dtype
                assert torch.equal(buffer, real[name]), (family, name)


# B6: inference tensors break the int4 path; B9: no dtype change after quantization.


def test_b6_weights_are_no_inference_tensors(llama: Path) -> None:
    loaded = load_weights(llama, weights="qint4", dtype="float32")
    assert not any(t.is_inference() for t in [*inner(loaded.model), *loaded.model.parameters()])
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training


def test_b9_a_stored_dtype_is_kept(saved: Path) -> None:
    assert load_weights(saved).dtype == load_weights(saved, dtype="bfloat16").dtype == "bfloat16"
    with pytest.raises(LoadError, match=r"'float32' was asked for .* stored in bfloat16"):
        load_weights(saved, dtype="float32")


def test_b9_an_object_keeps_its_dtype() -> None:
    model = tiny_model("llama")
    with pytest.raises(LoadError, match="'bfloat16' was asked for and the model is in float32"):
        load_weights(model, dtype="bfloat16", tokenizer=tiny_tokenizer())


def test_b9_a_model_of_two_dtypes_is_refused() -> None:
    model = tiny_model("llama", torch.bfloat16)
    quantize(model, weights=qint8, exclude="*lm_head")
    freeze(model)
    model.model.embed_tokens.float()
    with pytest.raises(LoadError, match="quantized for bfloat16 and the embedding is in float32"):
        load_weights(model, tokenizer=tiny_tokenizer())


# B7 and B8: quantized models cannot be deep-copied, and must not be pickled.


def test_b7_a_copy_is_the_thing_itself(llama: Path) -> None:
    loaded = load_weights(llama, weights="qint8")
    assert copy.deepcopy(loaded) is loaded
    assert copy.copy(loaded) is loaded
    assert copy.deepcopy({"a": [loaded]})["a"][0] is loaded
    assert "LlamaForCausalLM" not in repr(loaded)


def test_b8_pickling_says_what_to_do_instead(llama: Path) -> None:
    with pytest.raises(TypeError, match="save_weights"):
        pickle.dumps(load_weights(llama))


def test_b8_quantos_wrapper_is_taken_off() -> None:
    wrapped = QuantizedModelForCausalLM.quantize(tiny_model("llama"), weights=qint8)
    loaded = load_weights(wrapped, tokenizer=tiny_tokenizer())
    assert type(loaded.model).__name__ == "LlamaForCausalLM"
    assert loaded.source == "QuantizedModelForCausalLM"


# The smoke forward.


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(saved: Path, bad: float) -> None:
    rewrite(saved, lambda tensors: tensors["model.norm.weight"].fill_(bad))
    with pytest.raises(LoadError, match="NaN or infinite logits in the first forward"):
        load_weights(saved)
