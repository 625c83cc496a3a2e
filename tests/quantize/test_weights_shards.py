"""Quantization while reading: the peak of memory, the fallback, and what is reported."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families import VOCAB, logits_of, save_tiny, tiny_config, tiny_model, tiny_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize import _plan, _shards
from bitcal_integrations.quantize.weights import load_weights, save_weights

MB = 1024**2


@pytest.mark.parametrize("family", ["llama", "phi", "gpt_neox"])
def test_one_layer_in_float_at_a_time(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a layer is frozen, no earlier layer's float weight is alive."""
    tiny_model(family, layers=3).save_pretrained(tmp_path, max_shard_size="600KB")
    tiny_tokenizer().save_pretrained(tmp_path)
    most: list[int] = []
    earlier = set(_float_matrices())
    quantize = _plan.quantize_linear

    def watched(model: Any, name: str, kind: str) -> None:
        now = _float_matrices()
        most.append(sum(size for where, size in now.items() if where not in earlier))
        quantize(model, name, kind)

    monkeypatch.setattr(_shards, "quantize_linear", watched)
    loaded = load_weights(tmp_path, weights="qint8")
    layers = [loaded.model.get_submodule(name) for name in loaded.weights]
    assert len(most) == len(layers)
    # a layer may wait for its bias while the next one arrives
    assert max(most) <= 2 * max(layer.weight.numel() for layer in layers)


def _float_matrices() -> dict[int, int]:
    """Address -> size of every float matrix in memory, embeddings and scales apart."""
    return {
        o.data_ptr(): o.numel()
        for o in gc.get_objects()
        if type(o) in (torch.Tensor, torch.nn.Parameter)
        and o.ndim == 2
        and o.is_floating_point()
        and o.device.type == "cpu"
        and o.shape[0] != VOCAB
        and o.shape[1] > 1
    }


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A folder of 150 MB in several files, a tiny one, and the bytes of the first."""
    folder = tmp_path_factory.mktemp("big")
    config = tiny_config("llama", hidden=1024, layers=5)
    config.intermediate_size = 1536
    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tensors = {k: torch.empty(v.shape).uniform_(-0.05, 0.05) for k, v in model.state_dict().items()}
    model.load_state_dict(tensors, assign=True)
    model.save_pretrained(folder, max_shard_size="20MB")
    tiny_tokenizer().save_pretrained(folder)
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    return folder, save_tiny(tmp_path_factory.mktemp("warm")), size


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_the_peak_is_one_file_and_the_quantized_model(big: tuple[Path, Path, int]) -> None:
    folder, warm, size = big
    root = Path(__file__).parents[2]
    command = [sys.executable, str(Path(__file__).with_name("measure_peak.py"))]
    run = subprocess.run(
        [*command, "ours", str(folder), str(warm), "qint8", "bfloat16"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    seen = json.loads(run.stdout.splitlines()[-1])
    quantized = size / 4  # one byte for four, the small rest included
    assert size > 120 * MB
    assert seen["anonymous"] < quantized + 20 * MB + 24 * MB, seen
    assert seen["anonymous"] < 0.8 * size / 2, "not even the bfloat16 model was there as a whole"


def test_progress_is_told(llama: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    load_weights(llama, weights="qint8", progress=lambda *args: seen.append(args))
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total, _ in seen} == {len(seen)}
    assert "model.norm.weight" in {label for _, _, label in seen}


def test_later_patterns_win_and_exclude_wins_over_all(llama: Path) -> None:
    plan = {"*": "qint8", "*mlp*": "qint4", "*down_proj": None, "*lm_head": "qint8"}
    weights = load_weights(llama, weights=plan, exclude=None).weights
    kinds = {name.rpartition(".")[2]: kind for name, kind in weights.items()}
    assert kinds["q_proj"] == kinds["lm_head"] == "qint8"
    assert kinds["up_proj"] == "qint4"
    assert "down_proj" not in kinds
    weights = load_weights(llama, weights="qint8", exclude=["*lm_head", "*mlp*"]).weights
    assert {name.split(".")[3] for name in weights} == {"self_attn"}


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_renamed_tensors_are_still_read_shard_by_shard(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPT-NeoX names its head otherwise on disk; a base model has no prefix on disk."""
    folder = save_tiny(tmp_path, family, dtype=torch.float32)
    monkeypatch.setattr(_shards, "_load_whole", None)
    if family == "llama":
        tensors = load_file(folder / "model.safetensors")
        bare = {k.removeprefix("model."): v for k, v in tensors.items()}
        save_file(bare, folder / "model.safetensors", metadata={"format": "pt"})
    model = load_weights(folder, dtype="float32").model
    assert torch.equal(logits_of(model), logits_of(tiny_model(family)))


def test_merged_tensors_are_left_to_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Mixtral's experts are one tensor each on disk and one for all in the model."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=272, **sizes, **heads)).eval()
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert any("experts.1." in key for key in load_file(tmp_path / "model.safetensors"))
    with caplog.at_level(logging.INFO):
        loaded = load_weights(tmp_path, dtype="float32")
    assert "not loaded shard by shard: transformers converts its tensors" in caplog.text
    assert torch.equal(logits_of(model), logits_of(loaded.model))
    told: list[str] = []
    report = lambda done, total, label: told.append(label)  # noqa: E731
    quantized = load_weights(tmp_path, weights="qint8", progress=report)
    assert list(quantized.weights) == told
    assert told


def test_the_fallback_checks_its_tensors_too(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    MixtralForCausalLM(MixtralConfig(vocab_size=272, **sizes, **heads)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"1 missing .model.norm.weight"):
        load_weights(tmp_path)


@pytest.mark.parametrize("equal", [True, False])
def test_a_checkpoint_that_stores_the_tied_head_too(
    tied: Path, tmp_path: Path, equal: bool
) -> None:
    """Equal: they are tied. Different: transformers does not tie them, and neither do we."""
    tensors = load_file(tied / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embedding.clone() if equal else embedding.flip(0).contiguous()
    for file in tied.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_weights(tmp_path, dtype="float32")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits_of(loaded.model), logits_of(reference))
    head = loaded.model.get_output_embeddings().weight
    assert (head is loaded.model.get_input_embeddings().weight) is equal
    save_weights(loaded, tmp_path / "saved")
    assert torch.equal(logits_of(reference), logits_of(load_weights(tmp_path / "saved").model))


def test_buffers_of_old_checkpoints_are_ignored(llama: Path, tmp_path: Path) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(
        logits_of(load_weights(tmp_path).model), logits_of(load_weights(llama).model)
    )
