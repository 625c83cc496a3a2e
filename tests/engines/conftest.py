"""A small model behind an engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from families import tiny_model, tiny_tokenizer

from bitcal_integrations.decode.net import Net
from bitcal_integrations.engines.local import LocalEngine


@pytest.fixture(scope="session")
def net() -> Net:
    model = tiny_model("llama", layers=2)
    model.config.max_position_embeddings = 4096
    return Net(model, tiny_tokenizer())


@pytest.fixture
def engine(net: Net) -> Iterator[LocalEngine]:
    engine = LocalEngine(net)
    yield engine
    engine.close()
