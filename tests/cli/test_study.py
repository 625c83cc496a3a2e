"""`bitcal study` on the built-in model: a table, a page, a CSV, kept answers, one-line errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bitcal_integrations.answered import read_answers
from bitcal_integrations.tiny.tasks import questions

from .conftest import Bitcal

HOW = (
    "--parser", "tiny", "--grader", "tiny", "--max-new-tokens", 40, "--dtype", "float32",
    "--weights", "none,qint2",
)  # fmt: skip
N = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "facts.jsonl"
    rows = [
        {"messages": list(q.messages), "gold": q.gold}
        for q in questions("facts", "test", N, seed=5)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def made(
    data: Path, bitcal_once: Bitcal, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("made") / "study"
    result = bitcal_once("study", "bitcal-tiny", "--data", data, *HOW, "--out", out)
    assert result.exit_code == 0, result.output
    return out, result.stdout


def test_it_prints_a_table_and_writes_a_page(made: tuple[Path, str]) -> None:
    out, shown = made
    assert shown.startswith("bitcal-tiny: 2 variants, 40 questions: 20 to fit each calibrator")
    assert "qint2 against none: share right worse" in shown
    assert "groups to measure are few" in shown
    assert f"written to {out / 'study.html'} and {out / 'study.csv'}" in shown
    assert (out / "study.html").read_text().startswith("<!DOCTYPE html>")
    rows = list(csv.DictReader((out / "study.csv").read_text().splitlines()))
    assert [row["name"] for row in rows] == ["none", "qint2"]
    for row in rows:
        line = next(line for line in shown.splitlines() if line.startswith(row["name"]))
        assert f"{float(row['brier_raw']):.4f}" in line
        assert f"{100 * float(row['accuracy']):.1f}" in line


def test_a_second_run_asks_nothing_again(
    made: tuple[Path, str], data: Path, bitcal: Bitcal
) -> None:
    out, shown = made
    kept = [out / "answers" / f"{name}.jsonl" for name in ("none", "qint2")]
    before = [path.read_bytes() for path in kept]
    assert [len(read_answers(path)) for path in kept] == [N, N]
    result = bitcal("study", "bitcal-tiny", "--data", data, *HOW, "--out", out)
    assert result.exit_code == 0, result.output
    assert [path.read_bytes() for path in kept] == before
    end = shown.index("minus none")  # above it stands the speed, which is measured again
    assert result.stdout[result.stdout.index("minus none") :] == shown[end:]


@pytest.mark.parametrize(
    ("options", "offender"),
    [
        (("--weights", "none,qint3"), "qint3"),
        (("--weights", "none,,qint4"), "--weights 'none,,qint4' is not allowed"),
        (("--repair", "magic"), "magic"),
        (("--fit-share", "1"), "fit_share=1.0"),
        (("--data", "no/such/data.jsonl"), "no/such/data.jsonl"),
        (("--grader", "nonsense"), "nonsense"),
        (("--parser", "nonsense"), "nonsense"),
        (("--method", "nonsense"), "nonsense"),
        (("--dtype", "float31"), "error: dtype='float31' is not known"),
        (("--device", "nowhere"), "error: device='nowhere' cannot be used"),
        (("--out", "{data}"), "is a file; it must be a folder"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: tuple[str, str], offender: str, data: Path, bitcal: Bitcal
) -> None:
    result = bitcal("study", "bitcal-tiny", "--data", data, *(o.format(data=data) for o in options))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert offender in result.stderr


@pytest.mark.parametrize("options", [("--data", "no/such/data.jsonl"), ("--weights", "qint3")])
def test_a_refused_study_leaves_no_folder(
    options: tuple[str, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    line = ("bitcal-tiny", "--data", data, "--out", tmp_path / "new", *options)
    assert bitcal("study", *line).exit_code == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "new").mkdir()
    assert bitcal("study", *line).exit_code == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "new"], "what the user made stays"
