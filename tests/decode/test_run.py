"""The loop gives what transformers' own `generate` gives, alone and in mixed batches."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, tiny_model, tiny_tokenizer
from transformers import (
    GenerationConfig,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.run import generate, steps, stream
from bitcal_integrations.errors import LoadError
from bitcal_integrations.types import Generation, Step, make_request

PROMPTS = (("Hello there, this is", 20), ("A", 7), ("What is the capital of France? Well", 33))


def decode(net: Net, requests: list) -> list[Row]:
    rows = [Row(net, request) for request in requests]
    for _ in steps(net, rows):
        pass
    return rows


def reference(net: Net, row: Row, **options):
    """`generate` on one row alone: its new ids and the log-probabilities from its raw logits."""
    ids = torch.tensor([row.ids[: row.prompt_tokens]])
    out = net.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=row.request.max_new_tokens,
        eos_token_id=sorted(net.eos),
        pad_token_id=net.pad,
        return_dict_in_generate=True,
        output_logits=True,
        **{"do_sample": False, **options},
    )
    start = 1 if net.encoder_decoder else ids.shape[1]
    new = out.sequences[0, start:].tolist()
    logits = [step[0].float() for step in out.logits]
    return new, logits


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_batch_equals_generate_row_by_row(family: str) -> None:
    net = Net(tiny_model(family, layers=2), tiny_tokenizer())
    rows = decode(net, [make_request(p, max_new_tokens=n) for p, n in PROMPTS])
    assert net.joinable
    for row in rows:
        new, logits = reference(net, row)
        assert row.output_ids == new
        for step, raw in zip(row.steps, logits, strict=True):
            logprob = torch.log_softmax(raw, -1)
            top2 = logprob.topk(2).values
            assert step.logprob == pytest.approx(float(logprob[step.token_id]), abs=1e-4)
            assert step.margin == pytest.approx(float(top2[0] - top2[1]), abs=1e-4)
            assert step.logsumexp == pytest.approx(float(raw.logsumexp(-1)), abs=1e-4)
            entropy = torch.special.entr(logprob.exp()).sum()
            assert step.entropy == pytest.approx(float(entropy), abs=1e-4)
        assert row.raw == net.decode(new)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_sliding_windows_are_served_beyond_the_window(family: str) -> None:
    model = tiny_model(family, layers=2)
    model.config.sliding_window = 8
    net = Net(model, tiny_tokenizer())
    assert net.joinable
    rows = decode(net, [make_request(p, max_new_tokens=30) for p, _ in PROMPTS])
    for row in rows:
        assert row.output_ids == reference(net, row)[0]


@pytest.mark.parametrize("seed", range(4))
def test_sampling_equals_generate_under_one_seed(net: Net, seed: int) -> None:
    options = {"temperature": 0.8, "top_p": 0.9}
    (row,) = decode(net, [make_request("Hello", max_new_tokens=12, seed=seed, **options)])
    torch.manual_seed(seed)
    assert row.output_ids == reference(net, row, do_sample=True, **options)[0]


def test_a_seeded_row_is_the_same_alone_and_in_a_batch(net: Net) -> None:
    requests = [make_request(p, max_new_tokens=9, temperature=1.0, seed=5) for p, _ in PROMPTS]
    together = [row.output_ids for row in decode(net, requests)]
    assert together == [decode(net, [r])[0].output_ids for r in requests]


def test_the_models_own_processors_apply_as_in_generate() -> None:
    model = tiny_model("llama", layers=2)
    model.generation_config = GenerationConfig(
        eos_token_id=2, pad_token_id=0, repetition_penalty=1.8, no_repeat_ngram_size=2
    )
    net = Net(model, tiny_tokenizer())
    rows = decode(net, [make_request(p, max_new_tokens=n) for p, n in PROMPTS])
    plain = decode(Net(tiny_model("llama", layers=2), tiny_tokenizer()), [rows[0].request])
    assert rows[0].output_ids != plain[0].output_ids
    for row in rows:
        new, logits = reference(net, row)
        assert row.output_ids == new
        raw = torch.log_softmax(logits[3], -1)[new[3]]  # signals come before the processors
        assert row.steps[3].logprob == pytest.approx(float(raw), abs=1e-4)


def small_t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=272, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4,
        decoder_start_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config).eval()


def small_mamba() -> MambaForCausalLM:
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=272, hidden_size=32, num_hidden_layers=1, state_size=4,
        eos_token_id=2, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip
    return MambaForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("make", "word"), [(small_t5, "encoder-decoder"), (small_mamba, "LinearAttentionLayer")]
)
def test_caches_that_cannot_be_joined_fall_back_to_a_plain_batch(make, word: str) -> None:
    net = Net(make(), tiny_tokenizer())
    assert not net.joinable
    assert word in net.batching
    rows = decode(net, [make_request(p, max_new_tokens=n) for p, n in PROMPTS[:2]])
    for row in rows:
        assert row.output_ids == reference(net, row)[0]


def test_every_eos_of_the_set_ends_a_text(net: Net) -> None:
    (row,) = decode(net, [make_request("Hi", max_new_tokens=4)])
    second = row.output_ids[1]
    model = tiny_model("llama", layers=2)
    model.generation_config.eos_token_id = [2, second]
    (stopped,) = decode(Net(model, tiny_tokenizer()), [make_request("Hi", max_new_tokens=4)])
    assert stopped.finish == "stop"
    assert stopped.output_ids == row.output_ids[: row.output_ids.index(second) + 1]


def test_steps_stream_and_generate_are_folds_of_one_loop(net: Net) -> None:
    request = make_request("Fold", max_new_tokens=6)
    *streamed, last = list(stream(net, request))
    assert isinstance(last, Generation)
    assert all(isinstance(s, Step) for s in streamed)
    assert "".join(s.text for s in streamed) == last.raw
    assert generate(net, [request]) == [last]
    assert [(s.token_id, s.text, s.logprob) for s in last.steps] == [
        (s.token_id, s.text, s.logprob) for s in streamed
    ]


def test_top_logprobs_only_where_asked(net: Net) -> None:
    requests = [make_request("a", max_new_tokens=2, top_logprobs=k) for k in (0, 3)]
    none, three = generate(net, requests)
    assert none.steps[0].top == ()
    (first, first_logprob), *rest = three.steps[0].top
    assert len(rest) == 2
    assert first == three.steps[0].token_id
    assert first_logprob == pytest.approx(three.steps[0].logprob, abs=1e-5)


def test_a_pad_token_beyond_the_embedding_is_not_used() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    while tokenizer.pad_token_id < 272:
        tokenizer.add_tokens([f"more{len(tokenizer)}"])
        tokenizer.add_special_tokens({"pad_token": f"[PAD{len(tokenizer)}]"})
    net = Net(tiny_model("llama"), tokenizer)
    assert net.pad < 272
    assert len(decode(net, [make_request(p, max_new_tokens=3) for p, _ in PROMPTS])) == 3


class Adapted(torch.nn.Module):
    """What peft's models look like from outside."""

    def __init__(self, base, learns_prompt: bool) -> None:
        from types import SimpleNamespace

        super().__init__()
        self.peft_config = {
            "default": SimpleNamespace(is_prompt_learning=learns_prompt, peft_type="PROMPT_TUNING")
        }
        self._base = base

    def get_base_model(self):
        return self._base


def test_an_adapter_is_served_through_its_base_and_virtual_tokens_are_refused() -> None:
    base = tiny_model("llama")
    assert Net(Adapted(base, False), tiny_tokenizer()).model is base
    with pytest.raises(LoadError, match="PROMPT_TUNING"):
        Net(Adapted(base, True), tiny_tokenizer())


def test_an_eos_of_the_tokenizer_alone_counts() -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    assert Net(model, tiny_tokenizer()).eos == {2}
