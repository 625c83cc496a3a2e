"""`bitcal quantize --recover`: what the gate said is shown, and the folder holds what it kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitcal_integrations.cli import _recover
from bitcal_integrations.quantize.weights import load_weights

from .conftest import Bitcal


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows = [{"prompt": f"Say {n}.", "gold": str(n)} for n in range(124)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens: the default of 512 is for real answers."""
    monkeypatch.setattr(_recover, "LONGEST", 4)


def test_a_model_without_right_answers_keeps_its_gains(
    bitcal: Bitcal, folder: Path, data: Path, tmp_path: Path
) -> None:
    """Random weights are right about nothing, so that nothing can get better beyond doubt."""
    line = ["quantize", folder, "--weights", "qint8", "--dtype", "float32"]
    made = bitcal(*line, "--out", tmp_path / "out", "--recover", data, "--grader", "exact")
    assert made.exit_code == 0, made.output
    (told,) = [x for x in made.stdout.splitlines() if x.startswith("recover: ")]
    assert told.startswith("recover: not kept, held-out Brier changed by")
    assert "31 questions), 31 prompts" in told
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing stays beside it"
    plain = bitcal(*line, "--out", tmp_path / "plain")
    assert plain.exit_code == 0, plain.output
    assert "recover" not in plain.stdout
    one, two = (load_weights(tmp_path / name) for name in ("out", "plain"))
    assert one.parts == two.parts
    assert "recover" not in one.parts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recover", "nowhere.jsonl"], "the examples 'nowhere.jsonl' cannot be read"),
        (["--parser", "choice"], "--parser belongs to --budget"),
        (["--teacher", "other"], "--teacher belongs to --recover"),
        (["--recover", "few", "--grader", "foo"], "'foo' is not a grader"),
        (["--recover", "few", "--parser", "foo"], "'foo' is not a parser"),
        (["--recover", "few", "--weights", "none"], "--weights none gives others"),
    ],
)
def test_a_mistake_is_said_before_anything_is_loaded(
    bitcal: Bitcal, tmp_path: Path, options: list[str], words: str
) -> None:
    made = bitcal("quantize", "no/such/model", "--out", tmp_path / "out", *options)
    assert made.exit_code == 1
    assert words in " ".join(made.output.split())


def test_too_few_examples_are_refused_first(bitcal: Bitcal, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"prompt": "Say 1.", "gold": "1"}\n')
    made = bitcal("quantize", "no/such/model", "--out", tmp_path / "out", "--recover", few)
    assert made.exit_code == 1
    assert "1 groups with right answers would be held out, and 30 are needed" in " ".join(
        made.output.split()
    )
    assert not (tmp_path / "out").exists()


def test_a_quantized_folder_learns_from_the_teacher_that_is_named(
    bitcal: Bitcal, folder: Path, data: Path, tmp_path: Path
) -> None:
    small, line = tmp_path / "small", ("--recover", data, "--grader", "exact")
    assert bitcal("quantize", folder, "--weights", "qint8", "--out", small).exit_code == 0
    run = ("quantize", small, "--weights", "auto", "--out", tmp_path / "out", *line)
    made = bitcal(*run)
    assert made.exit_code == 1
    assert "does not say what it was quantized from: name the unquantized" in made.stderr
    made = bitcal(*run, "--teacher", folder)
    assert made.exit_code == 0, made.output
    assert "recover: not kept" in made.stdout
