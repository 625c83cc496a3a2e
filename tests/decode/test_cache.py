"""Rows of a cache leave, join and are cut without a change to what the model says."""

from __future__ import annotations

import pytest
import torch
from families import tiny_tokenizer
from transformers import MllamaForCausalLM
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from bitcal_integrations.decode import cache as kv
from bitcal_integrations.decode.batch import Batch
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.types import make_request


@pytest.fixture(scope="module")
def of_images() -> Net:
    """A model with a layer that looks at images, and holds nothing where there is none."""
    config = MllamaTextConfig(
        vocab_size=384, hidden_size=64, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, cross_attention_layers=[1], pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    return Net(MllamaForCausalLM(config).eval(), tiny_tokenizer())


@pytest.mark.parametrize("kind", ["net", "of_images"])
def test_rows_join_and_leave_at_any_time(kind: str, request: pytest.FixtureRequest) -> None:
    net = request.getfixturevalue(kind)
    requests = [
        make_request("A rather long prompt to begin with", max_new_tokens=25),
        make_request("B", max_new_tokens=6),
        make_request("C and some more words", max_new_tokens=12),
    ]
    alone = []
    for one in requests:
        row = Row(net, one)
        batch = Batch(net)
        batch.admit([row])
        while batch.rows:
            batch.step()
        alone.append(row.output_ids)
    rows = [Row(net, one) for one in requests]
    batch = Batch(net)
    for row in rows:
        batch.admit([row])
        for _ in range(4):
            batch.step()
    widths = []
    while batch.rows:
        batch.step()
        widths.append(batch._mask.shape)
    assert [row.output_ids for row in rows] == alone
    for row in rows:
        assert row.finish == "length"
    assert {w[0] for w in widths if len(w) > 1} <= {1, 2, 3}


def test_a_batch_drops_columns_that_only_a_gone_row_needed(net: Net) -> None:
    rows = [Row(net, make_request("long " * 30, max_new_tokens=2))]
    rows.append(Row(net, make_request("s", max_new_tokens=20)))
    batch = Batch(net)
    batch.admit(rows)
    batch.step()
    assert batch.rows == [rows[1]]
    assert batch._mask.shape == (1, rows[1].prompt_tokens + 2)
    assert batch._cache.get_seq_length() == rows[1].prompt_tokens + 1


def test_an_evicted_row_goes_on_where_it_was(net: Net) -> None:
    whole = Row(net, make_request("Resume me", max_new_tokens=12))
    batch = Batch(net)
    batch.admit([whole])
    while batch.rows:
        batch.step()
    row = Row(net, make_request("Resume me", max_new_tokens=12))
    batch.admit([row])
    batch.step()
    batch.admit(batch.evict())
    while batch.rows:
        batch.step()
    assert row.output_ids == whole.output_ids


def test_bytes_per_token_are_those_of_the_cache(net: Net) -> None:
    _, cache, _ = net.prefill(torch.ones(2, 10, dtype=torch.long), torch.ones(2, 10).long())
    assert kv.bytes_held(cache) == 20 * net.kv_bytes_per_token
