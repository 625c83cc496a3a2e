"""calibrate, evaluate, report, label, plan: from labelled examples to a page, on the real tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitcal_integrations.answered import read_answers
from bitcal_integrations.cli.label import _judged
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny.tasks import questions

from .conftest import Bitcal

QINT4 = ("--weights", "qint4", "--dtype", "float32")
HOW = ("--parser", "tiny", "--grader", "tiny", "--max-new-tokens", 60)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "facts.jsonl"
    rows = [
        {"messages": list(q.messages), "gold": q.gold, "kind": q.bucket}
        for q in questions("facts", "calibration", 160, seed=3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def made(
    data: Path, bitcal_once: Bitcal, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path, str]]:
    """(profile, kept answers, what was printed) of one run of calibrate."""
    folder = tmp_path_factory.mktemp("made")
    profile, answers = folder / "profile.json", folder / "answers.jsonl"
    result = bitcal_once(
        "calibrate", "bitcal-tiny", "--data", data, *QINT4, *HOW, "--out", profile,
        "--answers", answers,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return profile, answers, result.stdout


def test_calibrate_writes_a_profile_and_says_what_it_promises(
    made: tuple[Path, Path, str],
) -> None:
    path, answers, shown = made
    task = Profile.load(path).task()
    assert sum(task.counts[p] for p in ("fit", "certify", "report")) > 150
    assert len(read_answers(answers)) == 160
    assert "160 examples: 80 to fit" in shown
    for word in ("calibrator", "base rate", "raw score", "calibrated", "changed between batch 1"):
        assert word in shown
    assert str(task.certificates[0]) in shown


def test_a_second_run_asks_nothing_again_and_gives_the_same(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    profile, answers, _ = made
    before = answers.read_bytes()
    again = tmp_path / "again.json"
    result = bitcal(
        "calibrate", "bitcal-tiny", "--data", data, *QINT4, *HOW, "--out", again,
        "--answers", answers,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert answers.read_bytes() == before
    assert again.read_text() == profile.read_text()


def test_evaluate_with_the_profile_and_a_report(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    result = bitcal(
        "evaluate", "bitcal-tiny", "--data", data, *QINT4, "--profile", made[0],
        "--max-new-tokens", 60, "--group-by", "kind", "--report", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "160 examples, 160 judged" in result.stdout
    assert "calibrated" in result.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_report_from_kept_answers(
    made: tuple[Path, Path, str], bitcal: Bitcal, tmp_path: Path
) -> None:
    profile, answers, _ = made
    page = tmp_path / "page.html"
    result = bitcal("report", answers, "--out", page, "--profile", profile, "--title", "Facts")
    assert result.exit_code == 0, result.output
    assert "Facts" in page.read_text()
    assert "160" in bitcal("report", answers, "--markdown").stdout
    assert bitcal("report", tmp_path / "none.jsonl").exit_code == 1


def test_label_keeps_verdicts(
    data: Path, bitcal: Bitcal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, answers = tmp_path / "few.jsonl", tmp_path / "answers.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()[:4]]
    few.write_text("".join(json.dumps({"prompt": r["messages"]}) + "\n" for r in rows))
    run = ("evaluate", "bitcal-tiny", "--data", few, *QINT4, *HOW, "--profile", "none")
    result = bitcal(*run, "--answers", answers)
    assert "no verdicts" in result.stderr
    said = bitcal("label", answers, stdin="r\nmaybe\nw\ns\nq\n")
    assert said.exit_code == 0, said.output
    assert "'maybe' is none of r, w, s, q" in said.stdout
    assert "2 judged, 2 left" in said.stdout
    assert sorted(str(r.correct) for r in read_answers(answers)) == [
        "False", "None", "None", "True",
    ]  # fmt: skip
    rest = bitcal("label", answers, stdin="r\nr\n")
    assert "2 judged, 0 left" in rest.stdout
    assert "nothing to judge" in bitcal("label", answers).stdout
    assert "4 judged: 3 right" in bitcal(*run, "--answers", answers).stdout


def test_the_end_of_the_input_ends_labelling(made: tuple[Path, Path, str]) -> None:
    from bitcal_integrations.cli._show import console

    rows = read_answers(made[1])[:3]
    assert list(_judged(console(quiet=True), rows, lambda: "")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("calibrate", "bitcal-tiny", "--data", "{data}"), "'bitcal-tiny' is not a folder"),
        (("evaluate", "bitcal-tiny", "--data", "none.jsonl"), "'none.jsonl' cannot be read"),
        (("plan", "--max-error", "2"), "2"),
        (
            ("evaluate", "bitcal-tiny", "--data", "{data}", "--grader", "fair"),
            "'fair' is not a grader",
        ),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...], words: str, data: Path, bitcal: Bitcal
) -> None:
    result = bitcal(*(a.format(data=data) for a in arguments))
    assert result.exit_code == 1
    assert words in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_plan_counts_labels(bitcal: Bitcal) -> None:
    """0.9 ** 22 < 0.1 < 0.9 ** 21: with fewer than 22 right answers nothing can be promised."""
    found = json.loads(bitcal("plan", "--max-error", 0.1, "--delta", 0.1, "--json").stdout)
    assert found["at_least"] == 22
    assert found["certify"] > 22
    shown = bitcal("plan").stdout
    assert "22 labels if every answer" in shown
