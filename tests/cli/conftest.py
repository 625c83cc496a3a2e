"""A tiny random model on disk, and `bitcal` in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from families import save_tiny
from typer.testing import CliRunner, Result

from bitcal_integrations.cli import app

Bitcal = Callable[..., Result]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer with random weights and a byte tokenizer."""
    return save_tiny(tmp_path_factory.mktemp("model") / "llama")


def run(*arguments: object, stdin: str | None = None) -> Result:
    """`bitcal` with these arguments in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


@pytest.fixture
def bitcal() -> Bitcal:
    return run


@pytest.fixture(scope="session")
def bitcal_once() -> Bitcal:
    """The same, for what a whole module shares."""
    return run


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """`bitcal` as a process of its own, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "bitcal_integrations", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "80", "PYTHONUNBUFFERED": "1"},
        **options,
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    import torch  # not at the top: the tests of processes need none of it

    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny matrices are slower on two busy threads than on one
    yield
    torch.set_num_threads(before)
