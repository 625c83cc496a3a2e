"""Models that this loop would serve wrongly are found when they are loaded."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from bitcal_integrations.decode.net import Net
from bitcal_integrations.engines._ticket import Outcome, collect
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.errors import LoadError
from bitcal_integrations.types import make_request


def sharpened(kind: str, **config) -> torch.nn.Module:
    """A random model whose answer depends on its context."""
    torch.manual_seed(0)
    made = AutoConfig.for_model(kind, vocab_size=272, bos_token_id=1, eos_token_id=2, **config)
    model = AutoModelForCausalLM.from_config(made).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_families_pass(family: str, dtype: torch.dtype) -> None:
    net = Net(tiny_model(family, dtype), tiny_tokenizer())
    assert net.joinable
    assert net.max_rows is None


def test_a_state_that_is_not_carried_is_refused() -> None:
    model = sharpened("rwkv", hidden_size=64, num_hidden_layers=2, context_length=512)
    with pytest.raises(LoadError, match="other logits with its cache"):
        Net(model, tiny_tokenizer())


def test_a_cache_that_is_not_used_is_refused() -> None:
    model = sharpened("xlnet", d_model=64, n_layer=2, n_head=4, d_inner=64)
    with pytest.raises(LoadError, match="does not use the cache"):
        Net(model, tiny_tokenizer())


class PadAware(torch.nn.Module):
    """An embedding whose padding leaks into every other token of its row."""

    def __init__(self, inner: torch.nn.Embedding) -> None:
        super().__init__()
        self.inner, self.weight = inner, inner.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.inner(ids) * (1 + (ids == 0).sum(-1))[:, None, None]


def test_a_model_that_padding_changes_is_served_one_by_one() -> None:
    model = tiny_model("opt", layers=2)
    decoder = model.model.decoder
    decoder.embed_tokens = PadAware(decoder.embed_tokens)
    net = Net(model, tiny_tokenizer())
    assert net.max_rows == 1
    requests = [make_request(p, max_new_tokens=4) for p in ("x", "a longer prompt")]
    engine = LocalEngine(net)
    try:
        results = [*collect(engine, requests), *(collect(engine, [r])[0] for r in requests)]
        texts = [r.generation.raw for r in results if isinstance(r, Outcome)]
        assert texts[:2] == texts[2:]
        assert "one row at a time" in engine.report()["batching"]
        assert engine.report()["largest_batch"] == 1
    finally:
        engine.close()
