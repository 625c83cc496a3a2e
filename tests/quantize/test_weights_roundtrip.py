"""Save and load give the same bits, for every weight type, family and dtype."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, logits_of, save_tiny
from optimum.quanto import freeze, qtypes, quantize
from transformers import AutoModelForCausalLM

from bitcal_integrations.quantize._store import MANIFEST
from bitcal_integrations.quantize.weights import TYPES, load_weights, save_weights

DTYPES = ("float32", "bfloat16")
MLP = {"falcon": "*mlp*", "opt": "*fc*"}


@pytest.fixture(scope="module", params=[(f, d) for f in FAMILIES for d in DTYPES], ids="-".join)
def raw(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, str]:
    """A folder as transformers writes it, its family and its dtype."""
    family, dtype = request.param
    folder = tmp_path_factory.mktemp(f"{family}-{dtype}")
    return save_tiny(folder, family, dtype=getattr(torch, dtype)), family, dtype


@pytest.mark.parametrize("kind", [*TYPES, None, "mixed"])
def test_the_logits_are_the_same_bits(
    raw: tuple[Path, str, str], kind: str | None, tmp_path: Path
) -> None:
    folder, family, dtype = raw
    weights = {"*": "qint8", MLP.get(family, "*mlp*"): "qint4"} if kind == "mixed" else kind
    loaded = load_weights(folder, weights=weights, dtype=dtype)
    before = logits_of(loaded.model)
    _is_what_quanto_gives(folder, kind, dtype, before)
    save_weights(loaded, tmp_path / "saved")
    again = load_weights(tmp_path / "saved")
    assert torch.equal(before, logits_of(again.model))
    assert before.dtype == getattr(torch, dtype)
    assert (again.weights, again.parts) == (loaded.weights, loaded.parts)
    assert set(again.weights.values()) == (
        {"qint8", "qint4"} if kind == "mixed" else {kind} - {None}
    )


def _is_what_quanto_gives(folder: Path, kind: str | None, dtype: str, logits: torch.Tensor) -> None:
    """Shard by shard is the same as transformers' loading and quanto's own quantization."""
    if kind == "mixed":
        return
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    if kind is not None:
        quantize(model, weights=qtypes[kind], exclude="*lm_head")
        freeze(model)
    assert torch.equal(logits, logits_of(model))


def test_packed_int4_survives_groups_far_from_zero(tmp_path: Path) -> None:
    """quanto's way back from the packed form rounds; uncorrected, some of these weights move."""
    folder = save_tiny(tmp_path / "raw", dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "proj" in name:
                p.add_(torch.randn(p.shape[0], 1, dtype=p.dtype) * torch.rand(p.shape[0], 1) * 0.3)
    model.save_pretrained(folder)
    loaded = load_weights(folder, weights="qint4", dtype="bfloat16")
    save_weights(loaded, tmp_path / "saved")
    again = load_weights(tmp_path / "saved")
    for name in loaded.weights:
        ours = loaded.model.get_submodule(name).weight
        theirs = again.model.get_submodule(name).weight
        assert torch.equal(ours._scale_shift, theirs._scale_shift), name
        assert torch.equal(ours._data._data, theirs._data._data), name


def test_tied_weights_are_stored_once_and_tied_again(tied: Path, tmp_path: Path) -> None:
    save_weights(load_weights(tied, weights="qint8"), tmp_path / "saved")
    model = load_weights(tmp_path / "saved").model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    size = sum(f.stat().st_size for f in (tmp_path / "saved").glob("*.safetensors"))
    embedding = model.lm_head.weight
    linears = sum(m.weight.numel() for n, m in model.named_modules() if n.endswith("_proj"))
    assert size < linears + 1.5 * embedding.numel() * embedding.element_size()


def test_a_quantized_head_is_no_longer_tied(tied: Path, tmp_path: Path) -> None:
    loaded = load_weights(tied, weights="qint8", exclude=None)
    assert loaded.weights["lm_head"] == "qint8"
    assert loaded.model.config.tie_word_embeddings is False, "or tie_weights() would undo it"
    save_weights(loaded, tmp_path / "saved")
    again = load_weights(tmp_path / "saved")
    assert again.model.config.tie_word_embeddings is False
    assert torch.equal(logits_of(loaded.model), logits_of(again.model))


def test_a_big_model_is_stored_in_several_files(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitcal_integrations.quantize import _store

    loaded = load_weights(llama, weights="qint4")
    defaults = _store.save_model.__defaults__
    monkeypatch.setattr(_store.save_model, "__defaults__", (100_000,))
    save_weights(loaded, tmp_path / "saved")
    assert defaults == (_store.SHARD_BYTES,)
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 3
    assert torch.equal(logits_of(loaded.model), logits_of(load_weights(tmp_path / "saved").model))


def test_what_a_folder_of_ours_holds(llama: Path, tmp_path: Path) -> None:
    save_weights(load_weights(llama, weights="qint4"), tmp_path / "saved")
    names = {f.name for f in (tmp_path / "saved").iterdir()}
    assert {"config.json", MANIFEST, "bitcal-00001.safetensors", "tokenizer.json"} <= names
    assert {n.rsplit(".")[-1] for n in names} <= {"json", "safetensors", "jinja"}
    manifest = json.loads((tmp_path / "saved" / MANIFEST).read_text())
    assert manifest["format"] == 1
    assert {"torch", "transformers", "optimum-quanto"} <= set(manifest["versions"])


def test_generation_defaults_and_chat_template_travel(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "raw", chat=True)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 3]}')
    loaded = load_weights(folder)
    save_weights(loaded, tmp_path / "saved")
    for weights in (loaded, load_weights(tmp_path / "saved")):
        assert weights.model.generation_config.eos_token_id == [2, 3]
        assert "assistant" in weights.tokenizer.chat_template
        assert weights.tokenizer.decode(weights.tokenizer("Grüße 1+1").input_ids) == "Grüße 1+1"


def test_a_model_can_be_saved_over_its_own_folder(llama: Path, tmp_path: Path) -> None:
    save_weights(load_weights(llama, weights="qint8"), tmp_path / "saved")
    loaded = load_weights(tmp_path / "saved")
    before = logits_of(loaded.model)
    save_weights(loaded, tmp_path / "saved")
    assert torch.equal(before, logits_of(load_weights(tmp_path / "saved").model))
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]
