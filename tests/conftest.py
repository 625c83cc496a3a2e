"""What all tests share: no network, one seed per test, and the option that rewrites README."""

from __future__ import annotations

import os
import random

import pytest

# Set before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models: a second thread costs more than it brings, and much more on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-readme",
        action="store_true",
        help="rewrite README's generated sections (tree, help texts) instead of checking them",
    )


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
