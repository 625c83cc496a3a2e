"""calibrate, evaluate, report, label, plan: from labelled examples to a page, on the real tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bitcal_integrations.answered import read_answers
from bitcal_integrations.cli.evaluate import unknown
from bitcal_integrations.cli.label import Shown, _judged
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny.tasks import questions
from bitcal_integrations.types import Confidence

from .conftest import Bitcal

QINT4 = ("--weights", "qint4", "--dtype", "float32")
TO = ("--data", "{data}", "--out", "none.json")
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
    assert "all 3 hold at once with probability 0.9" in shown
    assert "each is held to 0.1 / 3 = 0.0333" in shown


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


def test_the_profile_of_another_model_makes_room_and_is_kept(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    """Its tasks were measured for hours, maybe, and cannot stand in a file with these."""
    there, few = tmp_path / "profile.json", tmp_path / "few.jsonl"
    there.write_bytes(made[0].read_bytes())
    few.write_text("".join(line + "\n" for line in data.read_text().splitlines()[:24]))
    result = bitcal(
        "calibrate", "bitcal-tiny", "--weights", "none", "--dtype", "float32", "--data", few,
        "--from", made[0], "--no-labels", "--source", made[1], "--out", there,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (kept,) = (path for path in tmp_path.glob("*.json") if path != there)
    assert kept.read_bytes() == made[0].read_bytes()
    assert Profile.load(there).parts["weights"] != Profile.load(kept).parts["weights"]
    assert "the profile that was there is of another model (weights is" in result.stdout
    assert result.stdout.endswith(f"now {kept}\n")


def test_a_profile_is_carried_to_another_weight_type(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    """By prompts alone, with the kept answers of the first type beside; then by forty labels."""
    moved, few, adapted = (tmp_path / name for name in ("moved.json", "few.jsonl", "adapted.json"))
    run = ("calibrate", "bitcal-tiny", "--weights", "qint8", "--dtype", "float32")
    result = bitcal(
        *run, "--data", data, "--from", made[0], "--no-labels", "--source", made[1], "--out", moved
    )
    assert result.exit_code == 0, result.output
    origin = Profile.load(made[0]).fingerprint
    assert f"carried over from the profile {origin}" in result.stdout
    assert "160 examples: 0 to fit, 0 to certify, 0 to report" in result.stdout
    assert "transferred without labels by quantiles of 160 rows" in result.stdout
    assert "no certificate" in result.stdout
    few.write_text("".join(line + "\n" for line in data.read_text().splitlines()[:40]))
    result = bitcal(*run, "--data", few, "--from", moved, "--out", adapted)
    assert result.exit_code == 0, result.output
    task = Profile.load(adapted).task()
    assert (task.counts["fit"], task.calibrator.adapted) == (40, 40)
    assert task.transferred_from == origin
    assert task.parser == "tiny"


def test_evaluate_with_the_profile_and_a_report(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    result = bitcal(
        "evaluate", "bitcal-tiny", "--data", data, *QINT4, "--profile", made[0],
        "--max-new-tokens", 60, "--group-by", "kind", "--report", page,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "left out: 120 of 160 examples, because this profile was made on them" in result.stdout
    assert "(80 to fit and 40 to certify)" in result.stdout
    assert "40 examples, 40 judged" in result.stdout
    assert "calibrated" in result.stdout
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert "Left out, because calibration or certificates were made on them" in page.read_text()


def test_why_most_confidences_are_unknown(made: tuple[Path, Path, str]) -> None:
    row = read_answers(made[1])[0]
    why = ["", "cut", "no number", "no number"]
    rows = [
        replace(row, confidence=Confidence(value=None if reason else 0.5, reason=reason))
        for reason in why
    ]
    assert unknown(rows[:1]) == "confidence unknown for 0"
    assert unknown(rows[2:]) == "confidence unknown for 2 (no number)"
    assert unknown(rows) == "confidence unknown for 3 (most often, 2 times, no number)"


def test_report_from_kept_answers(
    made: tuple[Path, Path, str], bitcal: Bitcal, tmp_path: Path
) -> None:
    profile, answers, _ = made
    page = tmp_path / "page.html"
    result = bitcal("report", answers, "--out", page, "--profile", profile, "--title", "Facts")
    assert result.exit_code == 0, result.output
    assert "Facts" in page.read_text()
    assert "160" in bitcal("report", answers, "--markdown").stdout
    shown = bitcal("report", answers, "--markdown", "--profile", profile).stdout
    assert "40 answers in " in shown
    assert "80 of the fit part" in shown
    assert "40 of the certify part" in shown
    assert "no profile" not in shown
    other = tmp_path / "other.json"
    data = json.loads(profile.read_text())
    data["parts"]["dtype"] = "float16"
    other.write_text(json.dumps(data))
    foreign = bitcal("report", answers, "--markdown", "--profile", other).stdout
    assert "the profile is of another model: dtype is" in foreign
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


def test_from_prompts_without_labels_to_a_profile(
    data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    """evaluate, label, calibrate as the last line of label says it, then report."""
    prompts, answers, profile = (tmp_path / n for n in ("p.jsonl", "a.jsonl", "profile.json"))
    rows = [json.loads(line) for line in data.read_text().splitlines()[:24]]
    prompts.write_text("".join(json.dumps({"prompt": r["messages"]}) + "\n" for r in rows))
    asked = ("bitcal-tiny", "--data", prompts, *QINT4)
    how = ("--parser", "tiny", "--max-new-tokens", 60)
    said = bitcal("evaluate", *asked, *how, "--answers", answers).stderr
    assert f"judge them with bitcal label {answers}" in " ".join(said.split())
    judged = bitcal("label", answers, stdin="r\nw\nr\n" * 7 + "q\n")
    assert "21 judged, 3 left" in judged.stdout
    next_step = judged.stdout[judged.stdout.index("bitcal calibrate MODEL") :].split()[3:]
    assert next_step[:3] == ["--data", "FILE", "--answers"]
    result = bitcal("calibrate", *asked, *next_step[2:], "--out", profile)
    assert result.exit_code == 0, result.output
    assert "24 examples:" in result.stdout
    assert "3 without a verdict" in result.stdout
    assert sum(Profile.load(profile).task().counts[p] for p in ("fit", "certify", "report")) == 21
    again = bitcal("evaluate", *asked, "--profile", profile, *how, "--answers", answers)
    assert again.exit_code == 0, again.output
    assert "left out:" in again.stdout


def test_the_end_of_the_input_ends_labelling(made: tuple[Path, Path, str]) -> None:
    from bitcal_integrations.cli._show import console

    rows = [Shown(r.prompt, r.text) for r in read_answers(made[1])[:3]]
    assert list(_judged(console(quiet=True), rows, lambda: "")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("calibrate", "bitcal-tiny", "--data", "{data}"), "'bitcal-tiny' is not a folder"),
        (("calibrate", "bitcal-tiny", *TO, "--no-labels"), "belong to --from"),
        (("calibrate", "bitcal-tiny", *TO, "--from", "p", "--source", "a"), "to --no-labels"),
        (("calibrate", "bitcal-tiny", *TO, "--from", "p", "--max-error", ".3"), "--max-error is"),
        (("calibrate", "bitcal-tiny", *TO, "--from", "p", "--teacher", "same"), "--teacher is"),
        (
            ("calibrate", "bitcal-tiny", *TO, "--from", "p", "--no-labels", "--group-id", "k"),
            "--group-id is not allowed here: with --from no label is used",
        ),
        (("evaluate", "bitcal-tiny", "--data", "none.jsonl"), "'none.jsonl' cannot be read"),
        (("plan", "--max-error", "2"), "2"),
        (("calibrate", "bitcal-tiny", *TO, "--method", "magic"), "'magic'"),
        (("calibrate", "bitcal-tiny", *TO, "--max-error", "2"), "max_error=2.0"),
        (("calibrate", "bitcal-tiny", *TO, "--delta", "0"), "delta=0.0"),
        (
            ("calibrate", "no-such-model", "--data", "d", "--out", "/no/p.json"),
            "there is no folder '/no'",
        ),
        (("calibrate", "no-such-model", "--data", "d", "--out", "{data}"), "not a whole profile"),
        (
            ("evaluate", "no-such-model", "--data", "d", "--report", "/no/r.html"),
            "there is no folder",
        ),
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
    from bitcal_integrations.decide import labels_needed

    found = json.loads(bitcal("plan", "--max-error", 0.1, "--delta", 0.1, "--json").stdout)
    assert found["at_least"] == 33  # calibrate certifies three rates at once: 0.9 ** 32 > 0.1 / 3
    assert found["certify"] == labels_needed(0.1, 0.1, coverage=0.5, simultaneous=3)
    assert found["at_least"] < found["certify"] < found["certify_unranked"]
    shown = bitcal("plan", "--targets", 1).stdout
    assert "22 labels if every answer" in shown
