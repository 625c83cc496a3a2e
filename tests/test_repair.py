"""`repair="data-free"` from load to a saved folder: every family, every way in, cut and resumed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, logits_of, save_tiny, tiny_model, tiny_tokenizer
from transformers import MambaConfig, MambaForCausalLM
from typer.testing import CliRunner

from bitcal_integrations import load
from bitcal_integrations.cli import app
from bitcal_integrations.errors import BadRequest, LoadError
from bitcal_integrations.quantize import align, data_free
from bitcal_integrations.quantize.weights import load_weights, save_weights
from bitcal_integrations.repair import STEPS, Repair, forget, kept_beside, summary

QUICK = Repair(("fold", "clip", "align"), fold_steps=15)


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _few_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "ROWS", 6)
    monkeypatch.setattr(align, "TOKENS", 24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("llama"), layers=2)


@torch.no_grad()
def error_of(model: Any, original: Any) -> float:
    """The relative squared error of all quantized weights."""
    floats = dict(original.named_parameters())
    off, size = 0.0, 0.0
    for name, module in model.named_modules():
        if hasattr(module, "weight_qtype"):
            weight = floats[f"{name}.weight"].float()
            off += float((module.weight.dequantize().float() - weight).square().sum())
            size += float(weight.square().sum())
    return off / size


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_repaired_and_comes_back_bit_for_bit(family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "float", family)
    want = logits_of(tiny_model(family))
    plain = load_weights(folder, weights="qint2", dtype="float32")
    found = load_weights(folder, weights="qint2", dtype="float32", repair=QUICK)
    assert found.repaired is not None
    layers = len(found.weights)
    assert [line.split(",")[0] for line in summary(found.repaired)] == [
        "fold: 1 of 1",
        f"clip: {layers} of {layers}",
        f"align: {layers} of {layers}",
    ]
    got = logits_of(found.model)
    assert (got - want).norm() < 0.85 * (logits_of(plain.model) - want).norm()
    save_weights(found, tmp_path / "small")
    again = load_weights(tmp_path / "small", repair=QUICK)
    assert torch.equal(logits_of(again.model), got)
    assert again.parts == found.parts
    assert again.parts["repair"] == QUICK.parts()
    assert {k for k in plain.parts if plain.parts[k] != found.parts[k]} == {"repair"}


@pytest.mark.parametrize("weights", ["qint8", "qint4", "qint2"])
def test_clipping_alone_never_raises_the_error_of_the_weights(weights: str, folder: Path) -> None:
    original = tiny_model("llama", layers=2)
    plain = load_weights(folder, weights=weights, dtype="float32")
    found = load_weights(folder, weights=weights, dtype="float32", repair=Repair(("clip",)))
    assert error_of(found.model, original) <= error_of(plain.model, original)
    for before, after in found.repaired["clip"].values():  # type: ignore[index]
        assert after <= before


def test_what_the_report_says_is_what_the_weights_are(folder: Path) -> None:
    original = tiny_model("llama", layers=2)
    name = "model.layers.0.mlp.up_proj"
    found = load_weights(folder, weights="qint2", dtype="float32", repair=Repair(("clip",)))
    weight = dict(original.named_parameters())[f"{name}.weight"].detach()
    back = found.model.get_submodule(name).weight.dequantize().detach()
    off = float((back - weight).square().sum() / weight.square().sum())
    assert found.repaired["clip"][name][1] == pytest.approx(off, rel=1e-4)  # type: ignore[index]


def test_in_bfloat16_the_rounded_codes_survive_freezing(folder: Path, tmp_path: Path) -> None:
    """Rounded pairs pass through quanto's own rounding, which must find the same codes."""
    for weights in ("qint2", "qint4"):
        found = load_weights(folder, weights=weights, dtype="bfloat16", repair=QUICK)
        original = tiny_model("llama", torch.bfloat16, layers=2)
        plain = load_weights(folder, weights=weights, dtype="bfloat16")
        want = logits_of(original).float()
        off = [(logits_of(m.model).float() - want).norm() for m in (plain, found)]
        assert off[1] < off[0]
        save_weights(found, tmp_path / weights)
        again = load_weights(tmp_path / weights)
        assert torch.equal(logits_of(again.model), logits_of(found.model))


def test_same_seed_same_weights_another_seed_others(folder: Path) -> None:
    one, two, other = (
        load_weights(folder, weights="qint2", dtype="float32", repair=Repair(seed=s, fold_steps=5))
        for s in (1, 1, 2)
    )
    assert torch.equal(logits_of(one.model), logits_of(two.model))
    assert not torch.equal(logits_of(one.model), logits_of(other.model))
    assert one.parts != other.parts


def test_a_model_object_is_repaired_in_place() -> None:
    model = tiny_model("llama")
    found = load_weights(model, tokenizer=tiny_tokenizer(), weights="qint2", repair=QUICK)
    assert found.model is model
    assert found.parts["repair"] == QUICK.parts()


def test_a_cut_repair_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_weights(folder, weights="qint2", dtype="float32", repair=QUICK)
    keep = replace(QUICK, keep=tmp_path / "state")

    def cut(done: int, total: int, label: str) -> None:
        if label.startswith("fold") and "layers.1" in label:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_weights(folder, weights="qint2", dtype="float32", repair=keep, progress=cut)
    assert len(list((tmp_path / "state").glob("*.fold.safetensors"))) == 2

    def learned_twice(*_: Any, **__: Any) -> None:
        raise AssertionError("a fold that is kept was learned again")

    monkeypatch.setattr(data_free.fold, "learn_fold", learned_twice)
    found = load_weights(folder, weights="qint2", dtype="float32", repair=keep)
    assert torch.equal(logits_of(found.model), logits_of(whole.model))
    assert found.parts == whole.parts
    again = load_weights(folder, weights="qint2", dtype="float32", repair=keep)
    assert torch.equal(logits_of(again.model), logits_of(whole.model))


def test_what_is_kept_counts_for_its_own_weights_only(folder: Path, tmp_path: Path) -> None:
    keep = Repair(fold_steps=5, keep=tmp_path / "state")
    load_weights(folder, weights="qint2", dtype="float32", repair=keep)
    other = save_tiny(tmp_path / "other", layers=2, seed=9)
    fresh = load_weights(other, weights="qint2", dtype="float32", repair=Repair(fold_steps=5))
    found = load_weights(other, weights="qint2", dtype="float32", repair=keep)
    assert torch.equal(logits_of(found.model), logits_of(fresh.model))


def test_a_damaged_file_is_made_again(folder: Path, tmp_path: Path) -> None:
    keep = Repair(("fold", "clip"), fold_steps=5, keep=tmp_path / "state")
    whole = load_weights(folder, weights="qint2", dtype="float32", repair=keep)
    for path in (tmp_path / "state").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    found = load_weights(folder, weights="qint2", dtype="float32", repair=keep)
    assert torch.equal(logits_of(found.model), logits_of(whole.model))


def test_progress_counts_every_layer(folder: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    load_weights(folder, weights="qint2", repair=QUICK, progress=lambda *step: seen.append(step))
    mine = [step for step in seen if step[2].startswith(("fold ", "align ", "freeze "))]
    assert mine[-1][0] == mine[-1][1] == 2 + 14 + 14
    assert [done for done, _, _ in mine] == sorted(done for done, _, _ in mine)


def test_a_plan_repairs_its_low_layers(folder: Path) -> None:
    plan = {"*": "qint8", "*.o_proj": "qint2", "*.mlp.*": None}
    found = load_weights(folder, weights=plan, dtype="float32", repair=QUICK)
    assert set(found.weights.values()) == {"qint8", "qint2"}
    assert found.repaired is not None
    assert len(found.repaired["fold"]) == 2
    assert set(found.repaired["align"]) == {f"model.layers.{i}.self_attn.o_proj" for i in (0, 1)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"repair": "magic"}, "repair='magic' is not known: use None or 'data-free'"),
        ({"repair": 3}, "repair=3"),
        ({"repair": "data-free", "weights": None}, "weights=None quantizes nothing"),
        ({"repair": "data-free"}, "weights='auto' quantizes nothing"),
    ],
)
def test_what_cannot_be_done_is_said(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        load_weights(folder, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"steps": ("fold", "glue")}, "'glue' is no step"), ({"seed": -1}, "seed=-1")],
)
def test_a_repair_checks_itself(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Repair(**options)


def test_a_step_without_work_says_why() -> None:
    every = Repair(STEPS, fold_steps=15)
    config = MambaConfig(vocab_size=272, hidden_size=128, num_hidden_layers=1, state_size=8)
    mamba = load_weights(
        MambaForCausalLM(config).eval(), tokenizer=tiny_tokenizer(), weights="qint2", repair=every
    )
    assert mamba.repaired["clip"].keys() == mamba.weights.keys()
    for step in ("fold", "round"):
        assert mamba.repaired[step] == {"": "there are no value and output layers to pair"}
    llama = load_weights(tiny_model("llama"), tokenizer=tiny_tokenizer(), weights="qint8",
                         repair=every)  # fmt: skip
    for step in ("fold", "round", "align"):
        assert "has less than 8 bits" in llama.repaired[step][""]


def test_quantized_weights_are_not_repaired(folder: Path, tmp_path: Path) -> None:
    plain = load_weights(folder, weights="qint2")
    save_weights(plain, tmp_path / "small")
    with pytest.raises(LoadError, match="already quantized"):
        load_weights(tmp_path / "small", repair="data-free")
    with pytest.raises(LoadError, match="already quantized"):
        load_weights(plain.model, tokenizer=tiny_tokenizer(), repair="data-free")


def test_load_takes_it_and_the_fingerprint_has_it(folder: Path) -> None:
    with (
        load(folder, weights="qint2", repair=QUICK) as found,
        load(folder, weights="qint2") as plain,
    ):
        assert found.fingerprint_parts["repair"]["name"] == "data-free"
        assert found.fingerprint_parts != plain.fingerprint_parts
        assert found.report()["repair"] == QUICK.parts()
        assert plain.report()["repair"] is None


def test_what_is_kept_beside_is_forgotten(tmp_path: Path) -> None:
    kept = kept_beside(tmp_path / "out")
    assert kept is not None
    assert kept.parts() == Repair().parts()
    Path(str(kept.keep)).mkdir()
    forget(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    forget(tmp_path / "out")


def test_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    line = ["quantize", str(folder), "--weights", "qint2", "--out", str(out)]
    run = CliRunner().invoke(app, [*line, "--repair", "data-free"])
    assert run.exit_code == 0, run.output
    assert "fold: 2 of 2" in run.output
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    assert load_weights(out).parts["repair"]["name"] == "data-free"
