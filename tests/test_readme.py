"""README is output: its tree, help texts and commands are those of the disk, its code runs.

`pytest tests/test_readme.py --update-readme` writes the generated sections.
"""

from __future__ import annotations

import ast
import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bitcal_integrations.registry import names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PACKAGE = "bitcal_integrations"

# The order of the journey; what is not named here comes after, by name.
STAGES = (
    "__init__ __main__ lazy request types errors compat registry grading metrics quantize decode "
    "engines signals features calibrators gate paired decide canary profile assess budget asker "
    "toolcalls model shared voting dataset seen kept kept_runs answered fitted fit recalibrate "
    "stopping studied study repair recovery bits verdict chains langchain llama_index monitor "
    "report testing tiny bench cli"
).split()

PURPOSES = {
    ".ci/run": "README's two commands in a fresh virtual environment",
    ".gitignore": "what git leaves out",
    "CHANGELOG.md": "what changed, for users",
    "LICENSE": "MIT",
    "README.md": "this page",
    "pyproject.toml": "name, dependencies with the reason for each bound, tool settings",
    "bitcal_integrations/": "the package, in the order of the journey",
    "bitcal_integrations/py.typed": "says that the package carries its types",
    "bitcal_integrations/tiny/countries.json": "the facts about countries, with their populations",
    "bitcal_integrations/tiny/model/": "weights, tokenizer, training curve and model card",
    "bitcal_integrations/tiny/profiles/": "what was measured, per weight type and dtype",
    "examples/": "programs to start from; the tests run them",
    "tests/": "mirrors the package, folder by folder",
}

TOP = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore", ".ci", PACKAGE)


# ---- the tree


def tree() -> str:
    """One line per file or folder of the disk, in the order of the journey, with its purpose."""
    lines: list[tuple[str, str]] = []
    on_disk = {p.name for p in ROOT.iterdir() if not _ignored(p)}
    for name in sorted(on_disk, key=lambda n: (TOP.index(n) if n in TOP else len(TOP), n)):
        path = ROOT / name
        if name == ".ci":
            lines.append((".ci/run", PURPOSES[".ci/run"]))
        elif path.is_dir():
            lines += _folder(path, 0)
        else:
            lines.append((name, purpose(path)))
    width = max(len(name) for name, _ in lines)
    return "```text\n" + "\n".join(f"{n:<{width}}  {p}".rstrip() for n, p in lines) + "\n```"


def _folder(path: Path, depth: int) -> list[tuple[str, str]]:
    """A folder and what is in it; a folder of tests, or without code, is one line."""
    indent = "  " * depth
    lines = [(f"{indent}{path.name}/", purpose(path))]
    is_test_folder = path.parent == ROOT / "tests"
    if is_test_folder or not any(path.glob("*.py")):
        return lines
    inside = [p for p in path.iterdir() if not _ignored(p) and not _is_shown_by_folder(p)]
    for entry in sorted(inside, key=_place):
        if entry.is_dir():
            lines += _folder(entry, depth + 1)
        else:
            lines.append((f"{indent}  {entry.name}", purpose(entry)))
    return lines


def _is_shown_by_folder(path: Path) -> bool:
    return path.name == "__init__.py" and path.parent != ROOT / PACKAGE


def _ignored(path: Path) -> bool:
    hidden = path.name.startswith(".") and path.name not in (".ci", ".gitignore")
    empty = path.is_dir() and not any(p.is_file() for p in path.rglob("*") if p.suffix != ".pyc")
    return hidden or empty or path.name in ("__pycache__", "build", "dist")


def _place(path: Path) -> tuple[int, bool, str]:
    stage = path.name.removesuffix(".py")
    known = path.parent == ROOT / PACKAGE and stage in STAGES
    return (STAGES.index(stage) if known else len(STAGES), path.is_dir(), path.name)


def purpose(path: Path) -> str:
    """The first sentence of the docstring, or what PURPOSES says."""
    name = path.relative_to(ROOT).as_posix() + ("/" if path.is_dir() else "")
    if name in PURPOSES:
        return PURPOSES[name]
    source = path / "__init__.py" if path.is_dir() else path
    if source.suffix == ".py" and source.is_file():
        text = ast.get_docstring(ast.parse(source.read_text("utf-8"))) or ""
        first = text.partition("\n")[0].partition(". ")[0].rstrip(".")
        assert first, f"{name}: the docstring of {source.name} says nothing"
        return first
    if path.is_dir() and path.is_relative_to(ROOT / "tests"):
        return f"tests of {path.name}/"
    raise AssertionError(f"say what {name} is for: PURPOSES in {Path(__file__).name}")


# ---- the help texts


def help_texts() -> str:
    """What `bitcal --help` and the help of every command print, 80 columns wide."""
    blocks = []
    for command in ([], *([name.replace("_", "-")] for name in names("cli"))):
        line = ["bitcal", *command, "--help"]
        run = subprocess.run(
            [sys.executable, "-m", PACKAGE, *line[1:]],
            env={**os.environ, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        blocks.append(f"```text\n$ {' '.join(line)}\n{run.stdout.rstrip()}\n```")
    return "\n\n".join(blocks)


@pytest.mark.parametrize(("section", "make"), [("tree", tree), ("help", help_texts)])
def test_generated_section(section: str, make, request: pytest.FixtureRequest) -> None:
    page = README.read_text("utf-8")
    before, start, rest = page.partition(f"<!-- {section}:start -->\n")
    written, end, after = rest.partition(f"<!-- {section}:end -->")
    assert all((start, end)), f"README has lost the markers of its section {section!r}"
    fresh = make() + "\n"
    if request.config.getoption("--update-readme"):
        README.write_text(before + start + fresh + end + after, "utf-8")
    else:
        assert written == fresh, "run: pytest tests/test_readme.py --update-readme"


# ---- the commands and the code


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)


def test_the_two_commands_are_one_line_each_and_what_ci_runs() -> None:
    demo, check = (block.strip() for block in blocks("sh")[:2])
    assert demo == "pip install -e . && bitcal demo"
    assert check == "pip install -e '.[test]' && pytest"
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert re.findall(r'^run "(.*)"$', script, re.M) == [check, demo]
    assert "set -euo pipefail" in script
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_readme_has_code() -> None:
    assert len(blocks("python")) >= 3


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[0])
def test_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if ">>>" not in code:
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
        return
    session = doctest.DocTestParser().get_doctest(code, {}, "README.md", "README.md", 0)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, out=said.append)
    assert not said, "".join(said)
