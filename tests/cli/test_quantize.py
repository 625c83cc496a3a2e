"""`bitcal quantize` writes a folder that `bitcal ask` answers from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitcal_integrations.cli._memory import rows
from bitcal_integrations.cli._out import claimed

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


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*given: object, **options: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("bitcal_integrations.model.load", load)


@pytest.mark.usefixtures("no_loading")
def test_what_could_not_be_written_is_refused_before_the_work(
    bitcal: Bitcal, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    for out, words in (
        ("full", "is not empty and was not written by this package"),
        ("full/mine", "is not empty and was not written by this package"),
        ("full/mine/new", "cannot write beside"),
    ):
        made = bitcal("quantize", folder, "--out", tmp_path / out, "--budget", "3 bits")
        assert made.exit_code == 1
        assert words in made.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine"]


@pytest.mark.usefixtures("no_loading")
def test_two_commands_do_not_write_one_folder(bitcal: Bitcal, folder: Path, tmp_path: Path) -> None:
    with claimed(str(tmp_path / "out")):
        made = bitcal("quantize", folder, "--out", tmp_path / "out", "--repair", "data-free")
    assert made.exit_code == 1
    assert made.stderr.startswith("error: another process writes a model to ")
    assert list(tmp_path.iterdir()) == []


def test_a_step_without_work_says_so(bitcal: Bitcal, folder: Path, tmp_path: Path) -> None:
    line = ("--weights", "qint8", "--repair", "data-free", "--out", tmp_path / "out")
    made = bitcal("quantize", folder, *line)
    assert made.exit_code == 0, made.output
    assert "fold: nothing to do, no layer that it works on has less than 8 bits" in made.stdout


def test_rows_by_hand() -> None:
    """100 weights of 2 bytes were 200 bytes; the total before counts what did not change."""
    part = {"qint4": {"bytes": 56, "weights": 100, "bits_per_weight": 4.5}}
    report = {"linears": part, "head": {}, "embeddings": 10, "other": 0, "total": 66}
    linears, embeddings, total = rows(report, "float16")
    assert (linears.before, linears.after, linears.bits) == (200, 56, 4.5)
    assert embeddings.before == embeddings.after == 10
    assert (total.before, total.after) == (210, 66)
