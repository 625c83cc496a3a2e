"""The LlamaIndex examples: short, and what each of them prints about the built-in model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("llama_index_*.py"))


def lines_of(name: str, folder: Path) -> list[str]:
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / f"llama_index_{name}.py")],
        cwd=folder, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Warning" not in run.stderr
    return run.stdout.splitlines()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 60


def test_rag_fallback(tmp_path: Path) -> None:
    lines = lines_of("rag_fallback", tmp_path)
    germany, bhutan = lines[0].split(), lines[2]
    assert germany[:2] == ["Germany", "Berlin"]
    assert "given by heart" in lines[0]
    assert "given looked up" in bhutan
    assert "Thimphu" in bhutan


def test_corrective_rag(tmp_path: Path) -> None:
    lines = lines_of("corrective_rag", tmp_path)
    assert lines[0].startswith("Germany  Berlin")
    assert lines[0].count("accept") == 1
    assert "escalate" not in lines[0]
    assert lines[1].startswith("Bhutan   Thimphu")
    assert "escalate: unknown" in lines[1]  # nothing was found in the notes
    assert lines[1].count("accept") == 1


def test_multi_step(tmp_path: Path) -> None:
    lines = lines_of("multi_step", tmp_path)
    assert lines[0].startswith("Germany  Berlin")
    assert "settled" in lines[0]
    assert lines[2].startswith("Libya    Tripoli")
    assert "hopeless" in lines[2]
    assert "num_steps" in lines[3]


def test_agent_hands_over(tmp_path: Path) -> None:
    lines = lines_of("agent_hands_over", tmp_path)
    assert lines[0].startswith("Germany: Berlin (by the small agent")
    assert lines[1].startswith("Bhutan: not certain enough")
    assert lines[2] == "Bhutan: Thimphu (by the large agent, confidence 0.97)"


def test_stream(tmp_path: Path) -> None:
    lines = lines_of("stream", tmp_path)
    assert lines[0].startswith("What is the capital of Torvaland? Kresta")
    assert "right with probability 0.9" in lines[0]
