"""An error is one line and a code; Ctrl-C ends at once; usage errors are typer's."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitcal_integrations.errors import BitcalError

from .conftest import Bitcal, start


def shell_code(process: subprocess.Popen[str]) -> int:
    """The exit code as a shell shows it.

    CPython ends itself with SIGINT when the interrupt has passed through an `exec` on its way up,
    even though it was caught; shells show both as 130.
    """
    code = process.returncode
    return code if code >= 0 else 128 - code


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "offender"),
    [
        (("ask", "no/such/folder-or-hub-id", "Hello"), "no/such/folder-or-hub-id"),
        (("ask", "{folder}", "Hello", "--weights", "qint5"), "qint5"),
        (("ask", "{folder}", "Hello", "--dtype", "int7"), "int7"),
        (("ask", "{folder}", "Hello", "--device", "abacus"), "abacus"),
        (("ask", "{folder}", "Hello", "--max-new-tokens", "0"), "max_new_tokens=0"),
        (("ask", "{folder}", "Hello", "--temperature", "-1"), "temperature=-1"),
        (("ask", "{folder}", "Hello", "--parser", "nonsense"), "nonsense"),
        (("ask", "{folder}", "x" * 600), "600"),
        (("quantize", "{folder}", "--weights", "qint5", "--out", "{out}"), "qint5"),
        (("quantize", "no/such/folder-or-hub-id", "--out", "{out}"), "no/such/folder"),
        (("doctor", "no/such/folder-or-hub-id"), "no/such/folder"),
    ],
)
def test_an_error_is_one_line_and_code_1(
    arguments: tuple[str, ...], offender: str, bitcal: Bitcal, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = bitcal(*(a.format(folder=folder, out=out) for a in arguments))
    assert result.exit_code == 1
    line = one_line(result.stderr)
    assert line.startswith("error: ")
    assert offender in line
    assert "Traceback" not in result.output
    assert not out.exists()


def test_debug_lets_the_error_through(bitcal: Bitcal, folder: Path) -> None:
    result = bitcal("--debug", "ask", folder, "Hello", "--weights", "qint5")
    assert isinstance(result.exception, BitcalError)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    process = start("--debug", "ask", tmp_path, "Hello")
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" in shown
    assert "LoadError" in shown


@pytest.mark.parametrize("arguments", [("nonsense",), ("ask",), ("ask", "m", "p", "--nonsense")])
def test_wrong_usage_is_code_2(arguments: tuple[str, ...], bitcal: Bitcal) -> None:
    result = bitcal(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr


def test_helper_files_are_not_commands(bitcal: Bitcal) -> None:
    assert bitcal("_show").exit_code == 2


def test_version(bitcal: Bitcal) -> None:
    assert bitcal("--version").stdout == "bitcal 0.1.0\n"


def test_interrupt_ends_at_once_with_130(folder: Path) -> None:
    process = start("ask", folder, "Hello", "--temperature", "1", "--max-new-tokens", "400")
    assert process.stdout is not None
    process.stdout.read(1)  # it is generating now
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, shown = process.communicate(timeout=30)
    assert shell_code(process) == 130
    assert one_line(shown) == "interrupted"
    assert time.monotonic() - began < 5


def test_interrupt_while_importing() -> None:
    process = start("doctor")
    assert process.stdout is not None
    assert process.stdout.readline() == "versions\n"
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    assert shell_code(process) == 130
    assert one_line(shown) == "interrupted"


def test_a_reader_that_leaves_is_no_error(folder: Path) -> None:
    command = f"{sys.executable} -m bitcal_integrations --help | head -1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.startswith("Usage: bitcal")
    assert run.stderr == ""
