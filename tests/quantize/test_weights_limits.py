"""What quanto cannot do is refused or replaced: activations, Conv1D, odd shapes, a compiler."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from families import save_quanto, save_tiny, tiny_model, tiny_tokenizer
from optimum.quanto import freeze, qint8, quantize
from optimum.quanto.library.extensions import get_extension
from optimum.quanto.tensor.packed import pack_weights

from bitcal_integrations.errors import LoadError, NotQuantized
from bitcal_integrations.quantize import _shim, _store
from bitcal_integrations.quantize.weights import load_weights, save_weights

# B12: activations; B13: nothing to quantize; B14: shapes that a kernel refuses; B16: the head.


def test_b12_quantized_activations_are_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    quantize(model, weights=qint8, activations=qint8)
    freeze(model)
    with pytest.raises(LoadError, match="activations"):
        load_weights(model, tokenizer=tiny_tokenizer())
    save_quanto("llama", tmp_path)
    entries = json.loads((tmp_path / _store.QUANTO_MAP).read_text())
    entries["lm_head"] = {"weights": "qint8", "activations": "qint8"}
    (tmp_path / _store.QUANTO_MAP).write_text(json.dumps(entries))
    with pytest.raises(LoadError, match=r"'lm_head'.*activations"):
        load_weights(tmp_path)


def test_b13_nothing_to_quantize_names_the_class(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=272, n_embd=32, n_layer=1, n_head=2)).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    for source in (tmp_path, model):
        with pytest.raises(NotQuantized, match="GPT2LMHeadModel"):
            load_weights(source, weights="qint8", tokenizer=tiny_tokenizer())
    assert load_weights(tmp_path, weights=None).weights == {}


def test_b14_outputs_that_int4_cannot_pack_get_int8(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny(tmp_path / "raw", vocab=265)
    with caplog.at_level(logging.WARNING):
        loaded = load_weights(folder, weights="qint4", dtype="bfloat16", exclude=None)
    assert loaded.weights["lm_head"] == "qint8"
    assert loaded.weights["model.layers.0.mlp.up_proj"] == "qint4"
    assert "lm_head gets qint8" in caplog.text
    save_weights(loaded, tmp_path / "saved")
    assert load_weights(tmp_path / "saved", weights="qint4", exclude=None).weights == loaded.weights
    plain = load_weights(folder, weights="qint4", dtype="float32", exclude=None)
    assert plain.weights["lm_head"] == "qint4"


def test_b16_the_head_stays_float_unless_asked(llama: Path) -> None:
    assert "lm_head" not in load_weights(llama, weights="qint8").weights
    assert "lm_head" in load_weights(llama, weights="qint8", exclude=None).weights


# The C++ extension that quanto compiles into site-packages.


def test_no_extension_is_ever_compiled(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from optimum.quanto.library.extensions import extension

    def compile_nothing(*_: Any, **__: Any) -> None:
        raise AssertionError("quanto started a compiler")

    monkeypatch.setattr(extension, "load", compile_nothing)
    assert get_extension("quanto_cpp").lib.unpack is _shim.unpack
    for kind in ("qint4", "qint2"):
        assert load_weights(llama, weights=kind, dtype="float32").weights


@pytest.mark.parametrize("bits", [2, 4])
def test_unpack_undoes_quantos_packing(bits: int) -> None:
    values = torch.arange(264, dtype=torch.uint8).reshape(33, 8) % 2**bits
    packed = pack_weights(values, bits)
    ours = _shim.unpack(packed, bits)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours[:33], values)
