"""`bitcal ask`: the answer on stdout as it comes, everything about it on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitcal_integrations import Record, load
from bitcal_integrations.cli.ask import summary
from bitcal_integrations.types import Confidence, Generation, Request, Timing

from .conftest import Bitcal, start

SHORT = ("--max-new-tokens", 12)


def test_the_answer_alone_is_on_stdout(bitcal: Bitcal, folder: Path) -> None:
    with load(str(folder)) as model:
        text = model.ask("Hello", max_new_tokens=12).text
    result = bitcal("ask", folder, "Hello", *SHORT)
    assert result.exit_code == 0
    assert result.stdout == text + "\n"
    line = result.stderr.strip()
    assert "\n" not in line
    assert "confidence unknown: " in line
    assert "raw score 0." in line
    assert " tokens/s" in line
    assert "\x1b" not in result.output


def test_json_is_a_record(bitcal: Bitcal, folder: Path) -> None:
    result = bitcal("ask", folder, "Hello", *SHORT, "--json")
    record = Record.from_dict(json.loads(result.stdout))
    assert record.request.prompt == "Hello"
    assert record.generation.n_tokens == 12
    assert record.confidence.value is None
    assert record.confidence.reason


def test_the_prompt_can_come_from_stdin(bitcal: Bitcal, folder: Path) -> None:
    result = bitcal("ask", folder, "-", *SHORT, "--json", stdin="From a pipe")
    assert json.loads(result.stdout)["request"]["prompt"] == "From a pipe"


def test_options_reach_the_request(bitcal: Bitcal, folder: Path) -> None:
    options = ("--temperature", 0.5, "--top-p", 0.9, "--seed", 3, "--parser", "first_line", "--raw")
    result = bitcal(
        "ask", folder, "Hello", *SHORT, *options, "--stop", "A", "--stop", "B", "--json"
    )
    request = json.loads(result.stdout)["request"]
    wanted = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "chat": False, "stop": ["A", "B"]}
    assert {name: request[name] for name in wanted} == wanted
    assert request["parser"] == "first_line"


@pytest.mark.parametrize("weights", ["none", "qint8", "qint4"])
def test_weights(weights: str, bitcal: Bitcal, folder: Path) -> None:
    assert bitcal("ask", folder, "Hello", *SHORT, "--weights", weights).exit_code == 0


def test_text_comes_before_the_end(folder: Path) -> None:
    """The first character is there while the process still generates."""
    process = start("ask", folder, "Hi", "--temperature", "1", "--seed", "1", *SHORT)
    assert process.stdout is not None
    assert process.stdout.read(1)
    assert process.poll() is None
    process.communicate(timeout=30)
    assert process.returncode == 0


def record(confidence: Confidence) -> Record:
    return Record(
        Request("Why?"),
        Generation("So.", "stop", n_tokens=10),
        confidence,
        timing=Timing(total=2.0),
    )


def test_summary_by_hand() -> None:
    unknown = summary(record(Confidence(raw=0.5, reason="no profile")))
    assert unknown == (
        "confidence unknown: no profile | raw score 0.50 | finish stop | 10 tokens | 5.0 tokens/s"
    )
    known = summary(record(Confidence(value=0.8, low=0.7, high=0.9)))
    assert known.startswith("confidence 0.80 (0.70 to 0.90) | finish stop")
