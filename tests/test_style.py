"""The habits of the code base as checks: lint, format, types, size, and what is never written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILE_LINES, BODY_LINES = 300, 40

# name -> why it may be longer; an entry that is no longer needed fails its test
LONG_FILES: dict[str, str] = {}
LONG_BODIES: dict[str, str] = {}

SKIPPED = {"__pycache__", "build", "dist", "venv"}
TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".yml", ".yaml", ""}


def files(*suffixes: str) -> list[Path]:
    """The files of the tree with one of these suffixes, without caches and hidden folders."""
    found = [path for path in ROOT.rglob("*") if path.is_file() and path.suffix in suffixes]
    return sorted(path for path in found if not _hidden(path.relative_to(ROOT)))


def _hidden(path: Path) -> bool:
    folders = path.parts[:-1]
    return any(p in SKIPPED or (p.startswith(".") and p != ".ci") for p in folders)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tool_runs_clean(command: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def test_files_are_short() -> None:
    sizes = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in files(".py")}
    long = {name: n for name, n in sizes.items() if n > FILE_LINES}
    assert not {n: k for n, k in long.items() if n not in LONG_FILES}, "does it hold two things?"
    assert set(LONG_FILES) <= set(long), "no longer needed in LONG_FILES"


def test_functions_are_short() -> None:
    long = {}
    for path in files(".py"):
        if path.is_relative_to(ROOT / "bitcal_integrations"):
            for name, lines in bodies(path.read_text("utf-8")):
                if lines > BODY_LINES:
                    long[f"{name_of(path)}:{name}"] = lines
    assert not {n: k for n, k in long.items() if n not in LONG_BODIES}
    assert set(LONG_BODIES) <= set(long), "no longer needed in LONG_BODIES"


def bodies(source: str) -> Iterator[tuple[str, int]]:
    """Each function and how many lines it does things on: signature and docstring apart."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", files(".py"), ids=name_of)
def test_every_module_says_what_it_does(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{name_of(path)}: no docstring"


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
# A training run's own checkpoint, read with weights_only=True; it is never part of a release.
UNSAFE_ALLOWED = {"bitcal_integrations/tiny/train.py": {"torch.load", "torch.save"}}
UNSAFE_CALLS = {"torch.load", "torch.save", "joblib.load", "joblib.dump"}


def unsafe(source: str) -> list[str]:
    """Where a source reads or writes a format that can run code.

    Tests may pickle an object of their own to show that a class refuses it, or comes through a
    process pool whole; the package may not.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_CALLS:
            found.append(ast.unparse(node))
    return found


def test_nothing_that_can_run_code_is_loaded_or_saved() -> None:
    package = [p for p in files(".py") if p.is_relative_to(ROOT / "bitcal_integrations")]
    found = {name_of(path): set(unsafe(path.read_text("utf-8"))) for path in package}
    assert {name: what for name, what in found.items() if what} == UNSAFE_ALLOWED


def test_torch_load_is_always_weights_only() -> None:
    calls = [
        ast.unparse(node)
        for path in files(".py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert all("weights_only=True" in call for call in calls), calls


def test_the_unsafe_is_recognised() -> None:
    assert unsafe("def f():\n    import pickle\n    torch.load('x')") == ["pickle", "torch.load"]


# Written in pieces, so that this file does not match itself.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~-])/(?:" + "|".join(("work", "home", "root", "tmp", "opt", "mnt", "Users")) + r")/\w"
)


def test_no_path_of_a_machine_is_named() -> None:
    found = {}
    for path in files(*TEXT):
        hits = MACHINE_PATHS.findall(path.read_text("utf-8", errors="replace"))
        if hits:
            found[name_of(path)] = hits
    assert not found
