"""The memory report counts real bytes, each once; one case is derived by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, save_tiny, tiny_model, tiny_tokenizer

from bitcal_integrations.quantize.weights import load_weights, memory_report


def test_a_case_by_hand(llama: Path) -> None:
    """One layer, hidden 256, 2 of 4 heads for keys and values, vocabulary 272, bfloat16."""
    report = memory_report(load_weights(llama, weights="qint4", dtype="bfloat16"))
    weights = 2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 256
    scales = weights // 128 * 2 * 2  # one scale and one shift of 2 bytes per group
    assert report["linears"] == {
        "qint4": {
            "bytes": weights // 2 + scales,
            "weights": weights,
            "bits_per_weight": 4.25,
        }
    }
    assert report["embeddings"] == 272 * 256 * 2
    assert report["head"]["bfloat16"]["bytes"] == 272 * 256 * 2
    assert report["head"]["bfloat16"]["bits_per_weight"] == 16
    assert report["kv_bytes_per_token"] == 2 * 2 * 64 * 2
    assert report["one_scale_per_row"] == 0
    parts = report["embeddings"] + report["other"]
    parts += report["linears"]["qint4"]["bytes"] + report["head"]["bfloat16"]["bytes"]
    assert report["total"] == parts


@pytest.mark.parametrize("family", FAMILIES)
def test_the_total_is_all_tensors_once(family: str) -> None:
    model = tiny_model(family, torch.bfloat16)
    report = memory_report(load_weights(model, tokenizer=tiny_tokenizer()))
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    assert report["total"] == sum(t.numel() * t.element_size() for t in tensors.values())
    assert report["kv_bytes_per_token"] > 0
    assert json.loads(json.dumps(report)) == report


def test_a_tied_head_is_counted_as_embedding(tied: Path) -> None:
    report = memory_report(load_weights(tied, weights="qint8"))
    assert report["head"] == {}
    report = memory_report(load_weights(tied, weights="qint8", exclude=None))
    assert list(report["head"]) == ["qint8"]


@pytest.mark.parametrize(("hidden", "rows"), [(64, 7), (256, 0)])
def test_b17_layers_without_groups_are_counted(tmp_path: Path, hidden: int, rows: int) -> None:
    folder = save_tiny(tmp_path, hidden=hidden)
    assert memory_report(load_weights(folder, weights="qint4"))["one_scale_per_row"] == rows
    assert memory_report(load_weights(folder, weights="qint8"))["one_scale_per_row"] == 0


def test_fewer_bits_take_fewer_bytes(llama: Path) -> None:
    totals = [
        memory_report(load_weights(llama, weights=kind))["total"]
        for kind in (None, "qint8", "qint4", "qint2")
    ]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 4
