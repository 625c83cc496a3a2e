"""Arrows between the parts of the package go one way, and heavy packages stay where they belong.

Imports are read from the source, those inside functions included. An import that only the type
checker sees runs nothing, so it may also go sideways, but not up.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import bitcal_integrations

PACKAGE = "bitcal_integrations"
ROOT = Path(__file__).parents[1] / PACKAGE

LAYERS = (
    ("compat", "errors", "lazy", "options", "request", "types", "tiny/assets"),
    ("registry", "metrics", "grading", "dataset", "canary", "toolcalls"),
    ("signals", "kept", "gate", "paired", "seen"),
    ("features", "calibrators"),
    ("decide",),
    ("quantize", "decode"),
    ("engines",),
    ("profile", "fitted"),
    ("assess", "budget", "studied"),
    ("asker",),
    ("model",),
    ("answered", "kept_runs", "shared", "voting"),
    ("fit",),
    ("bits", "recalibrate", "study", "repair", "recovery", "stopping", "verdict"),
    ("chains",),
    ("monitor", "report", "testing", "tiny", "bench"),
    ("langchain", "llama_index"),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# (file, part it imports) -> why the arrow inside one layer is right
SIDEWAYS = {
    ("types.py", "request"): "a Record holds its Request, and both are imported from there",
    ("request.py", "errors"): "a Request refuses bad options when it is made",
    ("request.py", "options"): "a Request refuses bad options when it is made",
    ("options.py", "errors"): "what is refused is refused with an error",
}

TORCH_PARTS = {"quantize", "decode", "engines", "study", "repair", "bench", "tiny"}
FRAMEWORKS = {
    "langchain": "langchain",
    "langchain_core": "langchain",
    "langgraph": "langchain",
    "llama_index": "llama_index",
}
FRAMEWORK_FILES = {
    "testing/llama_index_conformance.py": "llama_index",
    "testing/_llama_index_answers.py": "llama_index",
    "testing/_llama_index_help.py": "llama_index",
}


@dataclass(frozen=True)
class Import:
    """One imported module, its line, and whether only the type checker sees it."""

    module: str
    line: int
    types_only: bool


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import of a file, wherever it stands; `from package import name` gives both."""
    yield from _walk(ast.parse(source), file, types_only=False)


def _walk(node: ast.AST, file: str, types_only: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk(child, file, True)
        for child in node.orelse:
            yield from _walk(child, file, types_only)
        return
    yield from (Import(name, node.lineno, types_only) for name in _modules(node, file))
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, file, types_only)


def _modules(node: ast.AST, file: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            folder = [PACKAGE, *Path(file).parent.parts]
            folder = folder[: len(folder) - node.level + 1]
            base = ".".join([*folder, *([base] if base else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = ast.unparse(node.func)
        if called.endswith(("import_module", "__import__")) and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def part_of(file: str) -> str:
    """The part of the layer order that a file belongs to."""
    if file == "tiny/assets.py":
        return "tiny/assets"
    return Path(file).parts[0].removesuffix(".py")


def target_of(module: str) -> str | None:
    """The part that an imported name of this package belongs to; None for other packages."""
    names = module.split(".")
    if names[0] != PACKAGE:
        return None
    if names[1:3] == ["tiny", "assets"]:
        return "tiny/assets"
    if len(names) == 1 or names[1] == "__version__":
        return "errors"  # the package itself loads nothing
    return bitcal_integrations._HOME.get(names[1], names[1])


def offences(file: str, source: str) -> list[str]:
    """What is wrong with a file's imports, one line each, beginning with the file's name."""
    found = []
    for item in imports_of(source, file):
        why = _arrow(file, item) or _third_party(file, item)
        if why:
            found.append(f"{file}:{item.line} imports {item.module}: {why}")
    return found


def _arrow(file: str, item: Import) -> str:
    own, target = part_of(file), target_of(item.module)
    if target is None or target == own or own in ("__init__", "__main__"):
        return ""
    if {own, target} <= {"tiny", "tiny/assets"} and own == "tiny":
        return ""
    for part in (own, target):
        if part not in LEVEL:
            return f"{part!r} has no place in the layer order"
    if LEVEL[target] > LEVEL[own]:
        return f"{target!r} lies above {own!r}"
    sideways = LEVEL[target] == LEVEL[own] and not item.types_only
    if sideways and (file, target) not in SIDEWAYS:
        return f"{target!r} lies in the same layer as {own!r}"
    return ""


def _third_party(file: str, item: Import) -> str:
    own, package = part_of(file), item.module.split(".")[0]
    if package == "torch" and own not in TORCH_PARTS and not item.types_only:
        return f"torch stays inside {', '.join(sorted(TORCH_PARTS))}"
    if package not in FRAMEWORKS or FRAMEWORK_FILES.get(file) == package:
        return ""
    home = FRAMEWORKS[package]
    return "" if own == home else f"only {home}/ knows this framework"


FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("file", FILES)
def test_imports_go_down(file: str) -> None:
    assert part_of(file) in LEVEL, f"{file} has no place in the layer order"
    assert not offences(file, (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("pair", SIDEWAYS)
def test_every_exception_is_still_needed(pair: tuple[str, str]) -> None:
    file, target = pair
    found = imports_of((ROOT / file).read_text(encoding="utf-8"), file)
    assert target in {target_of(item.module) for item in found}


@pytest.mark.parametrize(
    ("file", "source", "why"),
    [
        ("errors.py", "def f():\n    from bitcal_integrations.model import load", "above"),
        ("errors.py", "from . import model", "above"),
        ("signals/_a.py", "from ..decode import loop", "above"),
        ("metrics.py", "from bitcal_integrations import load", "above"),
        ("metrics.py", "import bitcal_integrations.grading", "same layer"),
        ("metrics.py", "from importlib import import_module as i\nimport torch.nn", "torch"),
        ("decode/loop.py", "importlib.import_module('langchain_core')", "knows"),
        ("model.py", "from llama_index.core import Settings", "knows"),
        ("decode/loop.py", "if TYPE_CHECKING:\n    from ..model import load", "above"),
    ],
)
def test_an_offender_is_found_and_named(file: str, source: str, why: str) -> None:
    (line,) = offences(file, source)
    assert line.startswith(file)
    assert why in line


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("metrics.py", "if TYPE_CHECKING:\n    import torch\n    from . import grading"),
        ("quantize/a.py", "import torch\nfrom bitcal_integrations.tiny.assets import MODEL_DIR"),
        ("tiny/tasks.py", "from . import facts, assets"),
        ("cli/ask.py", "from bitcal_integrations import load, __version__"),
        ("testing/llama_index_conformance.py", "import llama_index.core"),
    ],
)
def test_what_is_allowed_passes(file: str, source: str) -> None:
    assert offences(file, source) == []
