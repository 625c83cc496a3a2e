"""Results kept in a folder: used again for the same inputs, and whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bitcal_integrations.errors import SaveError
from bitcal_integrations.quantize import _kept_layers
from bitcal_integrations.quantize._kept_layers import KeptLayers, Tensors


def ones() -> Tensors:
    return {"w": torch.ones(3)}


def never() -> Tensors:
    raise AssertionError("what is kept was made again")


def test_the_same_inputs_give_what_is_kept(tmp_path: Path) -> None:
    kept = KeptLayers(tmp_path / "keep")
    kept.get("fold", "layer.0", (1, torch.zeros(2)), ones)
    again = kept.get("fold", "layer.0", (1, torch.zeros(2)), never)
    assert torch.equal(again["w"], torch.ones(3))
    other = kept.get("fold", "layer.0", (2, torch.zeros(2)), lambda: {"w": torch.zeros(1)})
    assert other["w"].shape == (1,)
    assert [path.name for path in kept.folder.iterdir()] == ["layer.0.fold.safetensors"]


def test_two_runs_that_keep_the_same_layer_do_not_cut_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one does all it does between our writing and our renaming."""
    save, kept = _kept_layers.save_file, KeptLayers(tmp_path)
    process = os.getpid()

    def meanwhile(*given: Any, **options: Any) -> None:
        save(*given, **options)
        monkeypatch.setattr(_kept_layers, "save_file", save)
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        KeptLayers(tmp_path).get("fold", "a", (1,), ones)

    monkeypatch.setattr(_kept_layers, "save_file", meanwhile)
    assert torch.equal(kept.get("fold", "a", (1,), ones)["w"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.fold.safetensors"]


def test_what_cannot_be_kept_is_one_clear_error(tmp_path: Path) -> None:
    kept = KeptLayers(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SaveError, match=r"cannot keep results in .*gone"):
        kept.get("fold", "a", (1,), ones)
