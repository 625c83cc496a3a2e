"""The examples for LangChain run on the built-in model and say what they promise to say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("langchain_*.py"))

# example -> what its output must hold
SAYS = {
    "langchain_agent_with_tool": [
        "{'numbers': ['1234', '567', '89']}",
        "Together that makes 1890.",
    ],
    "langchain_early_stop": ["settled: int4", "saved: 2 steps"],
    "langchain_fallback_chain": ["int4 1.00", "of 8 were answered by int4 alone"],
    "langchain_parser_behind_gate": ["(right:"],
    "langchain_rag_when_unsure": ["France     Paris      sure    from memory", "-> after reading"],
    "langchain_stream": ["#### 42", "right with probability 1.00, by the profile"],
}


def test_every_example_is_known() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 60


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_says_it(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path))
    said = capsys.readouterr().out
    for words in SAYS[path.stem]:
        assert words in said
