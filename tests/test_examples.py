"""Every file of examples/ runs to its end in a fresh process.

The ones for a framework are run, and read, by tests/adapters/.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
ELSEWHERE = ("langchain_", "llama_index_")
EXAMPLES = sorted(p for p in FOLDER.glob("*.py") if not p.name.startswith(ELSEWHERE))


def test_examples_were_found() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip()
    assert "Warning" not in run.stderr
