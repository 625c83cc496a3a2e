"""What cannot be loaded or saved: one clear line each, and nothing half-loaded stays in memory."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families import save_tiny, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from bitcal_integrations.errors import BitcalError, LoadError, SaveError
from bitcal_integrations.quantize import _dtype, _store
from bitcal_integrations.quantize.weights import load_weights, save_weights


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


def models_alive() -> int:
    gc.collect()
    return sum(issubclass(type(o), PreTrainedModel) for o in gc.get_objects())


def refused(match: str, *args: Any, **options: Any) -> str:
    """The message of the LoadError; it is one line and holds no model."""
    before = models_alive()
    with pytest.raises(LoadError, match=match) as caught:
        load_weights(*args, **options)
    assert models_alive() == before, "a half-loaded model is still in memory"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder() -> None:
    assert "config.json" in refused("folder './no/such/model' does not exist", "./no/such/model")
    refused("folder 'a/b/c' does not exist", "a/b/c")
    refused("folder 'nowhere' does not exist", Path("nowhere"))
    refused("the name of the model is empty", "")


def test_a_file_is_not_a_folder(folder: Path) -> None:
    refused("is a file, not a model folder", str(folder / "config.json"))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    message = refused("there is no config.json", tmp_path)
    assert str(tmp_path) in message
    assert "model.safetensors" in message


def test_a_hub_id_that_cannot_be_fetched() -> None:
    refused("'nobody/no-such-model' is not a folder here and could not be", "nobody/no-such-model")


def test_hub_files_are_those_the_index_names(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot is read like a folder, and its commit becomes the revision."""
    import huggingface_hub

    snapshot = tmp_path / "snapshots" / ("c" * 40)
    shutil.copytree(llama, snapshot)
    asked: list[list[str]] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    loaded = load_weights("someone/model", weights="qint8")
    assert asked[1] == ["model.safetensors"]
    assert not any(p.endswith((".bin", ".py")) for patterns in asked for p in patterns)
    assert (loaded.source, loaded.revision) == ("someone/model", "c" * 40)
    assert (loaded.parts["model"], loaded.parts["revision"]) == ("someone/model", "c" * 40)
    load_weights("someone/model", trust_remote_code=True)
    assert "*.py" in asked[2]


def test_a_revision_of_a_folder(folder: Path) -> None:
    refused("revision='main' belongs to a hub id", folder, revision="main")


@pytest.mark.parametrize("weights", ["int4", "qint3", 4, {"*": "q4"}, ["qint8"]])
def test_an_unknown_weight_type(folder: Path, weights: Any) -> None:
    message = refused("is not a weight type", folder, weights=weights)
    assert "qint8, qint4, qint2, qfloat8" in message


def test_an_unknown_dtype_or_device(folder: Path) -> None:
    refused("dtype='int8' is not known: use 'auto', 'bfloat16'", folder, dtype="int8")
    refused("device='tpu' cannot be used", folder, device="tpu")


def test_a_pattern_that_matches_nothing(folder: Path) -> None:
    refused("'.mlpp.' of the plan matches no linear layer", folder, weights={"*mlpp*": "qint8"})


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_damaged_json(folder: Path, name: str) -> None:
    (folder / name).write_text('{"model_type": "lla')
    refused(f"{name}' is not readable JSON", folder)


@pytest.mark.parametrize("keep", [4, 100, 5000])
def test_a_truncated_weight_file(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused("model.safetensors' cannot be read, it may be truncated", folder)


def test_a_truncated_file_of_ours(folder: Path, tmp_path: Path) -> None:
    save_weights(load_weights(folder, weights="qint8"), tmp_path / "saved")
    file = tmp_path / "saved" / "bitcal-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused("it may be truncated", tmp_path / "saved")
    file.unlink()
    refused("weight file 'bitcal-00001.safetensors' is missing", tmp_path / "saved")
    (tmp_path / "saved" / _store.MANIFEST).write_text("[]")
    refused("holds no JSON object", tmp_path / "saved")


def test_a_manifest_of_another_format(folder: Path, tmp_path: Path) -> None:
    save_weights(load_weights(folder, weights="qint8"), tmp_path / "saved")
    path = tmp_path / "saved" / _store.MANIFEST
    good = json.loads(path.read_text())
    for change, words in (
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"files": ["../bitcal-00001.safetensors"]}, "names a file outside its folder"),
        ({"weights": {"lm_head": "q9"}}, "names the weight type 'q9'"),
        ({"weights": {"model.nothing": "qint8"}}, "model.nothing"),
        ({"parts": None}, "has no valid 'parts'"),
    ):
        path.write_text(json.dumps({**good, **change}))
        refused(words, tmp_path / "saved")


def test_a_missing_shard(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path, max_shard_size="400KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    good = index.read_text()
    index.write_text(good.replace("model-00002", "../model-00002"))
    refused("which is not a file beside it", tmp_path)
    index.write_text(good)
    next(tmp_path.glob("model-00002*")).unlink()
    refused("the weight file 'model-00002-of-.*' is missing", tmp_path)


def test_an_index_that_names_what_no_shard_holds(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="400KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["model.extra"] = next(iter(data["weight_map"].values()))
    index.write_text(json.dumps(data))
    refused("names 'model.extra': no file holds it", tmp_path)
    index.write_text("{}")
    refused("has no weight_map", tmp_path)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    refused("there are no weights in", folder)
    torch.save(tensors, folder / "pytorch_model.bin")
    refused("'pytorch_model.bin', a pickle that can run code", folder)


def test_remote_code_needs_trust(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Custom"}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_weights(folder).weights == {}  # transformers knows this architecture itself
    config["model_type"] = "custom"
    (folder / "config.json").write_text(json.dumps(config))
    message = refused(r"\(model_type 'custom'\) runs its own Python code", folder)
    assert "trust_remote_code=True" in message


def test_an_architecture_that_writes_no_text(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vit"}')
    refused("model_type 'vit'", folder)
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    refused("model_type 'no-such-type'", folder)


def test_a_missing_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused("no tokenizer can be loaded from", folder)
    refused("tokenizer=int is not a tokenizer", folder, tokenizer=3)
    assert load_weights(folder, tokenizer=tiny_tokenizer()).weights == {}


def test_a_saved_folder_is_not_quantized_again(folder: Path, tmp_path: Path) -> None:
    save_weights(load_weights(folder, weights="qint8"), tmp_path / "saved")
    assert load_weights(tmp_path / "saved", weights="qint8").weights
    for weights in ("qint4", None, {"*mlp*": "qint8"}):
        refused("was asked for and the folder holds qint8", tmp_path / "saved", weights=weights)
    save_weights(load_weights(folder), tmp_path / "plain")
    assert load_weights(tmp_path / "plain", weights=None).weights == {}
    refused("the folder holds no quantized layer", tmp_path / "plain", weights="qint8")


def test_a_foreign_folder_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    loaded = load_weights(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(SaveError, match="was not written by this package"):
        save_weights(loaded, tmp_path / "mine")
    (tmp_path / "file").write_text("keep")
    with pytest.raises(SaveError):
        save_weights(loaded, tmp_path / "file")
    with pytest.raises(SaveError, match="cannot write"):
        save_weights(loaded, tmp_path / "file" / "below")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_a_failed_save_leaves_the_old_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_weights(folder, weights="qint8")
    save_weights(loaded, tmp_path / "saved")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(_store, "save_file", full)
    with pytest.raises(SaveError, match="No space left"):
        save_weights(loaded, tmp_path / "saved")
    assert load_weights(tmp_path / "saved").weights == loaded.weights
    assert {p.name for p in tmp_path.iterdir()} == {"copy", "saved"}


def test_an_error_is_of_one_root(tmp_path: Path) -> None:
    with pytest.raises(BitcalError) as caught:
        load_weights(tmp_path)
    assert caught.value.__context__ is None


def test_too_little_memory(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nand much more")

    monkeypatch.setattr("bitcal_integrations.quantize.weights.load_float", full)
    message = refused("there is not enough memory to load the model: CUDA out of memory", llama)
    assert "qint4" in message


def test_dtype_auto_says_why(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_weights(llama)
    assert (loaded.dtype, loaded.device) == ("bfloat16", "cpu")
    assert "the checkpoint is stored in float32" in loaded.dtype_reason
    assert load_weights(llama, dtype="float32").dtype_reason == "float32 was asked for"
    assert load_weights(llama, dtype=torch.float16, weights="qint4").dtype == "float16"
    monkeypatch.setattr(_dtype, "bfloat16_problem", lambda device: "no such kernel")
    loaded = load_weights(llama)
    assert loaded.dtype == "float32"
    assert "bfloat16 does not work on cpu: no such kernel" in loaded.dtype_reason


def test_bfloat16_is_tried_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise RuntimeError("kernel is missing\nwith a long trace")

    monkeypatch.setattr(torch, "_weight_int4pack_mm_for_cpu", missing)
    problem = _dtype.bfloat16_problem.__wrapped__(torch.device("cpu"))
    assert problem == "kernel is missing"


def test_the_same_folder_elsewhere_is_the_same_model(llama: Path, tmp_path: Path) -> None:
    first = load_weights(llama, weights="qint8").parts
    shutil.copytree(llama, tmp_path / "elsewhere")
    assert load_weights(tmp_path / "elsewhere", weights="qint8").parts == first
    assert json.loads(json.dumps(first)) == first
    assert str(llama) not in json.dumps(first)
    assert load_weights(llama, weights="qint4").parts != first
    assert load_weights(llama, weights="qint8", dtype="float32").parts != first
    other = load_weights(save_tiny(tmp_path / "other", seed=1), weights="qint8").parts
    assert other["model"] != first["model"]
    assert {**other, "model": first["model"]} == first


def test_one_changed_value_changes_the_identity(folder: Path) -> None:
    before = load_weights(folder).parts["model"]
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert load_weights(folder).parts["model"] != before
