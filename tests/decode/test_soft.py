"""Soft tokens are served as if they were tokens, and their slope is the true one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, tiny_model, tiny_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from bitcal_integrations.decode import run, soft
from bitcal_integrations.decode.net import Net
from bitcal_integrations.errors import BadRequest, PromptTooLong
from bitcal_integrations.quantize.weights import load_weights
from bitcal_integrations.request import SoftRequest
from bitcal_integrations.types import Generation, make_request

OPTIONS: dict[str, Any] = {"max_new_tokens": 3, "loop_stop": False}
AHEAD, PROMPT = "Be sure. ", "Is it right?"


def embeddings(net: Net, text: str) -> torch.Tensor:
    ids = torch.tensor(net.tokenizer(text, add_special_tokens=False)["input_ids"])
    found: torch.Tensor = net.model.get_input_embeddings()(ids).detach().to(torch.float32)
    return found


def numbers(generation: Generation) -> list[tuple[int, float, float]]:
    return [(s.token_id, s.logprob, s.entropy) for s in generation.steps]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Net:
    """Each family with its quantized layers in float32, where quanto's own backward runs."""
    kind = "qint8" if request.param == "falcon" else "qint2"
    model = load_weights(tiny_model(request.param), weights=kind, tokenizer=tiny_tokenizer())
    return Net(model.model, model.tokenizer)


def test_embeddings_of_tokens_say_what_the_tokens_say(family: Net) -> None:
    soft.check_soft(family)
    behind = SoftRequest(PROMPT, soft=embeddings(family, AHEAD), **OPTIONS)
    whole = make_request(AHEAD + PROMPT, **OPTIONS)
    by_soft, by_tokens = run.generate(family, [behind])[0], run.generate(family, [whole])[0]
    assert numbers(by_soft) == numbers(by_tokens)
    assert by_soft.prompt_tokens == by_tokens.prompt_tokens


def test_the_slope_is_the_true_one_and_the_model_stays_as_it_is(family: Net) -> None:
    ids = [family.pad] * 4 + list(family.encode(make_request(PROMPT)).ids)
    prompts = soft.Prompts(family, [ids, ids[:-3]], [70, 80])
    before = {
        name: p.detach().to(torch.float32).sum() for name, p in family.model.named_parameters()
    }
    start = embeddings(family, "Sure").requires_grad_()
    (slope,) = torch.autograd.grad(prompts.loss(start, [0, 1]), [start])
    step = slope / slope.norm() * 1e-3 * start.norm()
    with torch.no_grad():
        ends = [float(prompts.loss(start + way * step, [0, 1])) for way in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(float((slope * step).detach().sum()), rel=0.02)
    for name, parameter in family.model.named_parameters():
        assert parameter.grad is None
        assert torch.equal(parameter.detach().to(torch.float32).sum(), before[name])


@torch.no_grad()
def test_a_model_that_padding_changes_is_trained_one_by_one(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [net.pad] * 4 + list(net.encode(make_request(PROMPT)).ids)
    prompts = soft.Prompts(net, [ids, ids[:-3]], [70, 80])
    together = prompts.loss(embeddings(net, "Sure"), [0, 1])
    seen: list[int] = []
    first = net.first
    monkeypatch.setattr(net, "max_rows", 1)
    monkeypatch.setattr(net, "first", lambda ids, *more: seen.append(len(ids)) or first(ids, *more))
    alone = prompts.loss(embeddings(net, "Sure"), [0, 1])
    assert seen == [1, 1]
    assert float(alone) == pytest.approx(float(together), abs=1e-4)


def test_rows_with_and_without_soft_tokens_share_a_batch(net: Net) -> None:
    first = SoftRequest(PROMPT, soft=embeddings(net, AHEAD), **OPTIONS)
    second = SoftRequest("Why?", soft=embeddings(net, "x"), **OPTIONS)
    requests = [first, make_request("What is it?", **OPTIONS), second]
    together = run.generate(net, requests)
    for one, alone in zip(together, (run.generate(net, [r])[0] for r in requests), strict=True):
        assert one.text == alone.text
        for mine, its in zip(one.steps, alone.steps, strict=True):
            assert mine.logprob == pytest.approx(its.logprob, abs=1e-4)


def test_a_prompt_without_soft_tokens_is_served_as_ever(net: Net) -> None:
    plain = make_request(PROMPT, **OPTIONS)
    none = torch.zeros((0, soft.width(net)))
    bare = SoftRequest(PROMPT, soft=none, **OPTIONS)
    assert numbers(run.generate(net, [plain])[0]) == numbers(run.generate(net, [bare])[0])


def test_it_goes_on_after_it_was_put_off(net: Net) -> None:
    from bitcal_integrations.decode.batch import Batch
    from bitcal_integrations.decode.row import Row

    request = SoftRequest(PROMPT, soft=embeddings(net, AHEAD), **OPTIONS)
    row, batch = Row(net, request), Batch(net)
    batch.admit([row])
    batch.admit(batch.evict())
    while batch.rows:
        batch.step()
    through = run.generate(net, [request])[0]
    assert row.generation().text == through.text
    assert [s.token_id for s in row.steps] == [s.token_id for s in through.steps]


def test_soft_tokens_take_their_place_in_the_context(net: Net) -> None:
    many = torch.zeros((net.context or 0, soft.width(net)))
    with pytest.raises(PromptTooLong):
        run.generate(net, [SoftRequest(PROMPT, soft=many)])


def test_what_cannot_be_served_is_refused(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadRequest, match="and has none"):
        net.encode(SoftRequest(PROMPT))
    config = T5Config(
        vocab_size=272, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    encoder = Net(T5ForConditionalGeneration(config).eval(), tiny_tokenizer())
    with pytest.raises(BadRequest, match="T5ForConditionalGeneration reads its prompt with"):
        soft.check_soft(encoder)
    model = net.model
    inner = model.prepare_inputs_for_generation
    monkeypatch.setattr(
        model, "prepare_inputs_for_generation",
        lambda ids, inputs_embeds=None, **more: inner(ids + (inputs_embeds is not None), **more),
    )  # fmt: skip
    with pytest.raises(BadRequest, match="other logits for the embeddings"):
        soft.check_soft(net)

    def no_embeddings(ids: Any, inputs_embeds: Any = None, **more: Any) -> Any:
        if inputs_embeds is not None:
            raise ValueError("tokens only")
        return inner(ids, **more)

    monkeypatch.setattr(model, "prepare_inputs_for_generation", no_embeddings)
    with pytest.raises(BadRequest, match=r"takes no embeddings in place of tokens.*tokens only"):
        soft.check_soft(net)


def test_words_are_told_apart_by_one_token(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    assert net.decode(soft.told_apart(net, ("False", "True"))) == "FT"
    assert net.decode(soft.told_apart(net, ("so wrong", "so right"))) == "wr"
    with pytest.raises(BadRequest, match="tell so and so apart"):
        soft.told_apart(net, ("so", "so"))


def test_a_text_is_where_it_begins(net: Net) -> None:
    found = soft.begin_as(net, "abc", 5)
    assert torch.equal(found, embeddings(net, "abcab"))
