"""Ctrl-C while `bitcal stop-bench` logs runs: one line, code 130, and what was logged is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from bitcal_integrations.kept_runs import read_runs
from bitcal_integrations.tiny.tasks import stream

from .conftest import Bitcal

# The command itself, which says when the fifth run is kept and then holds still.
CHILD = """
import sys
from bitcal_integrations.cli import main
from bitcal_integrations.kept_runs import RunStore

add = RunStore.add

def told(store, *run, **more):
    add(store, *run, **more)
    if store._file and len(store.rows) == 5:
        print("five", flush=True)
        sys.stdin.readline()

RunStore.add = told
main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_what_was_logged_is_kept_and_gone_on_from(tmp_path: Path, bitcal: Bitcal) -> None:
    data, runs = tmp_path / "data.jsonl", tmp_path / "runs.jsonl"
    short = [q for q in islice(stream("math", "calibration", 4), 400) if q.steps == 1][:40]
    data.write_text("".join(json.dumps({"prompt": q.prompt, "gold": q.gold}) + "\n" for q in short))
    command = ("stop-bench", "bitcal-tiny", "--data", str(data), "--weights", "none")
    command += ("--parser", "tiny", "--grader", "tiny", "--max-new-tokens", "40")
    command += ("--runs", str(runs))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "five\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err.split()) == (130, "", ["interrupted"])
    kept = read_runs(runs)
    assert len(kept) == 5
    before = runs.read_bytes()
    result = bitcal(*command)
    assert result.exit_code == 0, result.output
    assert "40 examples, 0 without a run" in result.stdout
    assert runs.read_bytes().startswith(before)
    assert [run.id for run in read_runs(runs)[:5]] == [run.id for run in kept]
