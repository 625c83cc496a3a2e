"""The pooled hidden state of an answer is transformers' own, however the row was decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_help import LOG, request
from families import FAMILIES, tiny_model, tiny_tokenizer
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    PretrainedConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from bitcal_integrations.decide.stop import StopPlan, StopRule
from bitcal_integrations.decode import hidden
from bitcal_integrations.decode.batch import Batch
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.onward import Onward
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.run import generate, steps
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Generation, Request, make_request

LAYER = 2
PROMPTS = ("Hello there, this is", "A", "What is the capital of France? Well", "abc abc")
LENGTHS = (9, 3, 14, 6)


@pytest.fixture(scope="module")
def net() -> Net:
    return Net(tiny_model("llama", layers=3, hidden=128), tiny_tokenizer())


@pytest.fixture(scope="module")
def letters() -> Net:
    """Says nothing but letters, so that each token is a character."""
    model, tokenizer = tiny_model("llama", layers=3, hidden=128), tiny_tokenizer()
    spelt = {i: tokenizer.decode([i]) for i in range(272)}
    model.generation_config.suppress_tokens = [i for i, s in spelt.items() if not s.isalpha()]
    return Net(model, tokenizer)


def asked(**options: Any) -> list[Request]:
    lengths = zip(PROMPTS, LENGTHS, strict=True)
    return [make_request(p, **{"max_new_tokens": n, **options}) for p, n in lengths]


def decode(net: Net, requests: Sequence[Request]) -> list[Row]:
    rows = [Row(net, one) for one in requests]
    for _ in steps(net, rows):
        pass
    return rows


@torch.no_grad()
def by_hand(net: Net, row: Row, tokens: Sequence[int] | None = None, layer: int = LAYER) -> Any:
    """The mean of transformers' hidden states where these new tokens were chosen from."""
    ids = torch.tensor([row.ids])
    states = net.model(ids, output_hidden_states=True).hidden_states[layer][0]
    which = range(row.new_tokens) if tokens is None else tokens
    return states[[row.prompt_tokens - 1 + t for t in which]].float().mean(0).numpy()


def middle(text: str, ended: bool = True) -> str | None:
    """An answer of two characters in the middle of the text, once six are there."""
    return text[2:4] if len(text) >= 6 else None


# ---- what it is ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_transformers_gives_pooled_by_hand(family: str) -> None:
    net = Net(tiny_model(family, layers=3, hidden=128), tiny_tokenizer())
    for row in decode(net, asked(hidden_layer=LAYER)):
        found = row.generation().hidden
        assert found is not None
        assert (found.dtype, found.shape) == (np.float32, (128,))
        np.testing.assert_allclose(found, by_hand(net, row), atol=2e-5)


def test_only_the_tokens_of_the_answer_count(letters: Net) -> None:
    one = make_request("Hello", max_new_tokens=12, parser=middle, hidden_layer=1)
    (row,) = decode(letters, [one])
    generation = row.generation()
    assert (generation.finish, generation.n_tokens, len(generation.raw)) == ("answer", 6, 6)
    np.testing.assert_allclose(generation.hidden, by_hand(letters, row, [2, 3], 1), atol=2e-5)
    assert not np.allclose(generation.hidden, by_hand(letters, row, layer=1), atol=1e-3)


def test_without_an_answer_all_tokens_count(net: Net) -> None:
    (row,) = decode(net, [make_request("Hi", max_new_tokens=7, parser="gsm8k", hidden_layer=LAYER)])
    assert row.generation().answer is None
    np.testing.assert_allclose(row.generation().hidden, by_hand(net, row), atol=2e-5)


def test_the_usual_layer_is_two_thirds_up(net: Net) -> None:
    stack = [torch.nn.ModuleList([torch.nn.Identity()] * n) for n in (1, 2, 3, 4, 32)]
    assert [hidden.chosen(layers, 0) for layers in stack] == [1, 1, 2, 3, 21]
    usual, named = generate(net, [make_request("Hi", max_new_tokens=3, hidden_layer=n)
                                  for n in (0, 2)])  # fmt: skip
    assert np.array_equal(usual.hidden, named.hidden)


# ---- however it was decoded ------------------------------------------------------------------


def test_alone_and_among_eight_it_is_the_same(net: Net) -> None:
    requests = [*asked(hidden_layer=LAYER), *asked(hidden_layer=1)]
    together = generate(net, requests)
    for one, mine in zip(requests, together, strict=True):
        (alone,) = generate(net, [one])
        np.testing.assert_allclose(mine.hidden, alone.hidden, atol=2e-5)


def test_rows_that_come_later_or_are_put_out_and_back_keep_theirs(net: Net) -> None:
    rows = [Row(net, one) for one in asked(hidden_layer=LAYER)]
    batch = Batch(net)
    batch.admit(rows[:2])
    batch.step()
    batch.admit(rows[2:])  # others are under way
    batch.step()
    batch.admit(batch.evict())  # as after a failed forward
    while batch.rows:
        batch.step()
    for row in rows:
        np.testing.assert_allclose(row.generation().hidden, by_hand(net, row), atol=2e-5)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 3}])
def test_trial_answers_that_are_taken_back_leave_no_trace(net: Net, options: dict) -> None:
    how = {"max_new_tokens": 40, "hidden_layer": LAYER, **options}
    bare = generate(net, [make_request(p, **how) for p in PROMPTS])
    plans = [LOG if i % 2 else None for i in range(len(PROMPTS))]
    tried = generate(net, [make_request(p, early_stop=plan, **how)
                           for p, plan in zip(PROMPTS, plans, strict=True)])  # fmt: skip
    assert any(generation.checkpoints for generation in tried)
    for plain, watched in zip(bare, tried, strict=True):
        np.testing.assert_allclose(watched.hidden, plain.hidden, atol=2e-5)


def test_a_text_that_ends_with_a_trial_answer_has_none(letters: Net) -> None:
    rule = StopRule("settled", "trial_probability", 0.0)
    plan = StopPlan(closing="Answer:", spacing=5, answer_tokens=8, settled=rule)
    (settled,) = generate(letters, [request("Hello", plan, hidden_layer=LAYER)])
    assert settled.finish == "settled"
    assert settled.hidden is None


def test_a_row_that_was_cancelled_keeps_what_it_has(net: Net) -> None:
    (row, *_) = rows = [Row(net, one) for one in asked(hidden_layer=LAYER)]
    batch = Batch(net)
    batch.admit(rows)
    batch.step()
    row.cancel()
    batch.remove([row])
    np.testing.assert_allclose(row.generation().hidden, by_hand(net, row), atol=2e-5)


def test_a_text_in_pieces_has_none_and_one_that_needed_no_second_has_it(net: Net) -> None:
    one = make_request("Hello", max_new_tokens=8, hidden_layer=LAYER)
    (whole,) = generate(net, [one])
    for sizes in ((8,), (3, 5)):
        text = Onward(one, net.tokenizer)
        for size in sizes:
            text.take(*generate(net, [text.further(size)]), size)
        found = text.generation().hidden
        assert (found is None) == (len(sizes) > 1)
        assert found is None or np.array_equal(found, whole.hidden)


def small_t5() -> Any:
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=272, d_model=32, d_kv=8, d_ff=32, num_layers=3, num_decoder_layers=2,
            num_heads=4, decoder_start_token_id=0, eos_token_id=2, pad_token_id=0,
        )
    ).eval()  # fmt: skip


def small_mamba() -> Any:
    torch.manual_seed(0)
    return MambaForCausalLM(
        MambaConfig(
            vocab_size=272, hidden_size=32, num_hidden_layers=3, state_size=4,
            eos_token_id=2, pad_token_id=0, bos_token_id=1,
        )
    ).eval()  # fmt: skip


def test_caches_that_cannot_be_joined_are_read_too() -> None:
    net = Net(small_mamba(), tiny_tokenizer())
    for one in asked(hidden_layer=LAYER):  # padding changes a little of what this model says
        (row,) = decode(net, [one])
        want = by_hand(net, row, layer=LAYER - 1)  # its list begins behind the first layer
        np.testing.assert_allclose(row.generation().hidden, want, atol=2e-5)


@torch.no_grad()
def test_an_encoder_decoder_is_read_in_its_decoder() -> None:
    net = Net(small_t5(), tiny_tokenizer())
    assert len(net.layers) == 2
    for row in decode(net, asked(hidden_layer=1)):
        out = net.model(
            input_ids=torch.tensor([row.ids[: row.prompt_tokens]]),
            decoder_input_ids=torch.tensor([[0, *row.output_ids[:-1]]]),
            output_hidden_states=True,
        )
        want = out.decoder_hidden_states[1][0].mean(0).numpy()
        np.testing.assert_allclose(row.generation().hidden, want, atol=2e-5)


# ---- only where it is asked for --------------------------------------------------------------


def test_where_no_row_asks_no_layer_is_touched(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: Any) -> None:
        raise AssertionError("a layer was touched")

    for layer in net.layers:
        monkeypatch.setattr(layer, "register_forward_hook", touched)
    found = generate(net, asked())
    assert [generation.hidden for generation in found] == [None] * len(found)
    with pytest.raises(AssertionError, match="touched"):
        generate(net, asked(hidden_layer=LAYER))


def test_in_a_batch_only_those_that_ask_have_one(net: Net) -> None:
    requests = [replace(r, hidden_layer=LAYER if i % 2 else None) for i, r in enumerate(asked())]
    alike, before = generate(net, asked()), [len(layer._forward_hooks) for layer in net.layers]
    for i, (found, plain) in enumerate(zip(generate(net, requests), alike, strict=True)):
        assert (found.hidden is not None) == bool(i % 2)
        assert found == plain  # the text and its numbers are what they are without
    assert [len(layer._forward_hooks) for layer in net.layers] == before


def test_it_stays_out_of_what_is_written(net: Net) -> None:
    (generation,) = generate(net, [make_request("Hi", max_new_tokens=2, hidden_layer=LAYER)])
    assert "hidden" not in generation.to_dict()
    assert Generation.from_dict(generation.to_dict()).hidden is None
    assert "hidden" not in repr(generation)


# ---- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [4, 99])
def test_a_layer_that_is_not_there_is_refused(net: Net, layer: int) -> None:
    with pytest.raises(BadRequest, match=f"hidden_layer={layer} .* layers 1 to 3"):
        Row(net, make_request("Hi", hidden_layer=layer))


@pytest.mark.parametrize("layer", [-1, 1.5, True, "2"])
def test_what_is_no_layer_is_refused(layer: Any) -> None:
    with pytest.raises(BadRequest, match=r"hidden_layer=.*the number of a layer"):
        make_request("Hi", hidden_layer=layer)


class Odd(torch.nn.Module):
    """A model whose layers cannot be told: no list of them, or two."""

    def __init__(self, lists: int) -> None:
        super().__init__()
        self.config = PretrainedConfig(num_hidden_layers=2)
        for n in range(lists):
            inner = torch.nn.ModuleList([torch.nn.ModuleList([torch.nn.Identity()] * 2)] * 2)
            self.add_module(f"stack{n}", inner)


def test_a_model_whose_layers_cannot_be_told_is_refused() -> None:
    for lists in (0, 2):
        with pytest.raises(BadRequest, match=f"Odd cannot be read: it has {lists} lists of 2"):
            hidden.layers_of(Odd(lists))


def test_lists_inside_a_layer_are_no_layers() -> None:
    model = Odd(1)
    assert hidden.layers_of(model) is model.get_submodule("stack0")
