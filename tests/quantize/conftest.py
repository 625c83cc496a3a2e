"""Shared by the loader's tests: one thread, and folders that are written once."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from families import save_tiny


@pytest.fixture(autouse=True, scope="package")
def _quick() -> Iterator[None]:
    # tiny matrices are slower on two busy threads than on one
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # the collector, which errors run, need not walk through all of torch each time
    import bitcal_integrations.quantize.weights  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 Llama folder; read only."""
    return save_tiny(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 2 folder, whose head is its embedding; read only."""
    return save_tiny(tmp_path_factory.mktemp("tied"), "gemma2")
