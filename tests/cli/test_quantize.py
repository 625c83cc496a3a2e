"""`bitcal quantize` writes a folder that `bitcal ask` answers from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitcal_integrations.cli._memory import rows

from .conftest import Bitcal


@pytest.mark.parametrize("weights", ["qint8", "qint4"])
def test_quantize_then_ask(weights: str, bitcal: Bitcal, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "small"
    made = bitcal("quantize", folder, "--weights", weights, "--out", out)
    assert made.exit_code == 0, made.output
    assert f"linears ({weights})" in made.stdout
    assert f"written to {out}" in made.stdout
    assert f"bitcal ask {out}" in made.stdout
    assert sorted(p.suffix for p in out.iterdir() if p.suffix == ".safetensors")
    fresh = bitcal("ask", folder, "Hello", "--weights", weights, "--max-new-tokens", 12)
    again = bitcal("ask", out, "Hello", "--max-new-tokens", 12)
    assert again.exit_code == 0, again.output
    assert again.stdout == fresh.stdout


def test_exclude_may_be_repeated(bitcal: Bitcal, folder: Path, tmp_path: Path) -> None:
    patterns = ("--exclude", "*lm_head", "--exclude", "*mlp*")
    made = bitcal("quantize", folder, "--weights", "qint8", "--out", tmp_path / "out", *patterns)
    assert "linears (qint8)" in made.stdout
    assert "linears (bfloat16)" in made.stdout or "linears (float32)" in made.stdout


def test_rows_by_hand() -> None:
    """100 weights of 2 bytes were 200 bytes; the total before counts what did not change."""
    part = {"qint4": {"bytes": 56, "weights": 100, "bits_per_weight": 4.5}}
    report = {"linears": part, "head": {}, "embeddings": 10, "other": 0, "total": 66}
    linears, embeddings, total = rows(report, "float16")
    assert (linears.before, linears.after, linears.bits) == (200, 56, 4.5)
    assert embeddings.before == embeddings.after == 10
    assert (total.before, total.after) == (210, 66)
