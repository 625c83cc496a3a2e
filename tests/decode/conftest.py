"""A small model behind a Net, shared by the tests of the decode loop."""

from __future__ import annotations

import pytest
from families import tiny_model, tiny_tokenizer

from bitcal_integrations.decode.net import Net


@pytest.fixture(scope="session")
def net() -> Net:
    model = tiny_model("llama", layers=2)
    model.config.max_position_embeddings = 2048  # one character is one token: texts are long
    return Net(model, tiny_tokenizer())


@pytest.fixture(scope="session")
def chat_net(net: Net) -> Net:
    return Net(net.model, tiny_tokenizer(chat=True))
