"""`bitcal stop-bench` on the built-in model, what it draws, what it refuses."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from stop_help import simulated

from bitcal_integrations.bench.stops import BASELINES, Options, StopStudy, study
from bitcal_integrations.cli.stop_bench import draw, losses_of
from bitcal_integrations.tiny.tasks import stream

from .conftest import Bitcal

COMMAND = "stop-bench"
HOW = ("--weights", "qint4", "--parser", "tiny", "--grader", "tiny", "--max-new-tokens", 60)
ABOUT = {"model": "m", "weights": "qint4", "examples": 1200, "without_a_run": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shortest word problems: one operation each."""
    path = tmp_path_factory.mktemp("data") / "math.jsonl"
    rows = []
    for question in stream("math", "calibration", 4):
        if question.steps == 1:
            rows.append({"messages": list(question.messages), "gold": question.gold})
        if len(rows) == 60:
            break
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def made(
    data: Path, bitcal_once: Bitcal, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str]:
    """(kept runs, numbers, what was printed)."""
    folder = tmp_path_factory.mktemp("made")
    runs, numbers = folder / "runs.jsonl", folder / "numbers.json"
    result = bitcal_once(
        COMMAND, "bitcal-tiny", "--data", data, *HOW, "--runs", runs, "--json", numbers
    )
    assert result.exit_code == 0, result.output
    return runs, numbers, result.stdout


def test_it_compares_rules_and_says_what_is_promised(made: tuple[Path, Path, str]) -> None:
    runs, numbers, shown = made
    assert "60 examples, 0 without a run; 30 to choose and certify, 30 to test" in shown
    for name in (*BASELINES, "conservative", "balanced", "fast"):
        assert f"\n{name}" in shown
    assert "fast: no early stop is promised" in shown  # 18 runs are too few for that
    assert "too few" in shown
    assert "certify, at the largest loss: shuffled nothing, constant nothing" in shown
    found = json.loads(numbers.read_text())
    assert found["about"]["weights"] == "qint4"
    assert found["about"]["closing"] == "#### "
    assert {line["rule"] for line in found["lines"]} >= set(BASELINES)
    assert len(runs.read_text().splitlines()) == 61


def test_a_second_run_asks_nothing_and_says_the_same(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal, tmp_path: Path
) -> None:
    runs, numbers, shown = made
    before, again = runs.read_bytes(), tmp_path / "numbers.json"
    result = bitcal(COMMAND, "bitcal-tiny", "--data", data, *HOW, "--runs", runs, "--json", again)
    assert result.exit_code == 0, result.output
    assert runs.read_bytes() == before
    assert json.loads(again.read_text())["lines"] == json.loads(numbers.read_text())["lines"]
    assert result.stdout.splitlines()[:-1] == shown.splitlines()[:-1]  # the last names the file


def test_runs_that_were_made_in_another_way_are_refused(
    made: tuple[Path, Path, str], data: Path, bitcal: Bitcal
) -> None:
    result = bitcal(
        COMMAND, "bitcal-tiny", "--data", data, *HOW, "--runs", made[0], "--spacing", "8"
    )
    assert result.exit_code == 1
    assert "made with another spacing: 'line', now 8" in result.stderr


@pytest.mark.parametrize(
    ("options", "offender"),
    [
        (("--preset", "quick"), "--preset 'quick' is not one of conservative, balanced, fast"),
        (("--level", "won"), "--level 'won' is not one of settled, hopeless"),
        (("--spacing", "word"), "--spacing 'word' is not line, sentence or a number of tokens"),
        (("--spacing", "0"), "--spacing '0'"),
        (("--delta", "1"), "--delta 1 is not allowed"),
        (("--seed", "-3"), "--seed -3 is not allowed"),
        (("--test-share", "0"), "--test-share 0 is not allowed"),
        (("--runs", "no/such/runs.jsonl"), "no/such"),
        (("--json", "no/such/numbers.json"), "no/such"),
        (("--data", "no/such/data.jsonl"), "no/such/data.jsonl"),
        (("--weights", "qint5"), "qint5"),
        (("--grader", "nonsense"), "nonsense"),
        (("--parser", "nonsense"), "nonsense"),
    ],
)
def test_what_cannot_be_is_one_line(
    options: tuple[str, str], offender: str, data: Path, bitcal: Bitcal
) -> None:
    result = bitcal(COMMAND, "bitcal-tiny", "--data", data, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert offender in result.stderr


def test_an_unknown_closing_text_is_asked_for(data: Path, bitcal: Bitcal) -> None:
    result = bitcal(COMMAND, "bitcal-tiny", "--data", data, "--parser", "regex:= (.*)")
    assert result.exit_code == 1
    assert "closing" in result.stderr


def shown(found: StopStudy) -> str:
    out = io.StringIO()
    draw(Console(file=out, width=80, highlight=False, emoji=False, markup=False), found)
    return out.getvalue()


@pytest.fixture(scope="module")
def certified() -> StopStudy:
    options = Options(draws=50, how={"simultaneous": True})
    return replace(study(simulated(1200), options), about=ABOUT)


def test_the_table_fits_eighty_columns(certified: StopStudy) -> None:
    table = shown(certified).splitlines()[1 : 2 + len(certified.lines)]
    assert len(table) == 1 + len(certified.lines)
    assert all(len(line) <= 80 for line in table)
    for line, row in zip(certified.lines, table[1:], strict=True):
        assert row.startswith(line.rule)
        assert f"{100 * line.saved.value:.1f} ±" in row


def test_a_promise_is_told_with_its_evidence(certified: StopStudy) -> None:
    text = shown(certified)
    fast = certified.certificates["fast"]
    assert f"fast: {fast}" in text
    line = next(line for line in certified.lines if line.rule == "fast")
    assert f"on the test runs: {100 * line.premature.value:.1f} ±" in text
    kept = sum(certificate.plan is not None for certificate in certified.certificates.values())
    assert kept > 1
    assert f"all {kept} promises hold at once with probability 0.9" in text
    assert "constant nothing" in text


def test_without_labels_it_says_what_is_unknown() -> None:
    found = study(simulated(1200, labels=False), Options(draws=50, baselines=("L0",)))
    text = shown(replace(found, about=ABOUT))
    assert "right and lost are unknown" in text
    assert "ending early changes the answer of at most 5%" in text


def test_each_level_tells_what_it_lost_by_itself() -> None:
    how = {"levels": ("settled", "hopeless"), "scores": ["logprob", "trial_probability"]}
    found = study(simulated(1200), Options(draws=50, baselines=("L0",), how=how))
    text, fast = shown(replace(found, about=ABOUT)), found.lines[-1]
    assert fast.lost["settled"].value > 0
    total = fast.lost["settled"].value + fast.lost["hopeless"].value
    assert total == pytest.approx(fast.premature.value)
    settled, given_up = (f"{100 * fast.lost[k].value:.1f} ±" for k in ("settled", "hopeless"))
    assert f"on the test runs: {settled}" in text
    assert "% lost by settling, " + given_up in text


def test_too_few_examples_are_refused_before_a_model_is_loaded(
    bitcal: Bitcal, tmp_path: Path
) -> None:
    data = tmp_path / "few.jsonl"
    data.write_text("".join(f'{{"prompt": "{i}?", "gold": "{i}"}}\n' for i in range(39)))
    result = bitcal(COMMAND, "no/such/model", "--data", data)
    assert result.exit_code == 1
    assert "19 runs to choose rules and 20 to test them are too few" in result.stderr


def test_presets_by_name() -> None:
    assert losses_of(None) == {"conservative": 0.01, "balanced": 0.02, "fast": 0.05}
    assert losses_of(["fast"]) == {"fast": 0.05}
