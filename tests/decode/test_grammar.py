"""Schemas in the decode loop: batches, stops, reasoning, budgets, sampling."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import tiny_model, tiny_tokenizer
from grammar_help import PERSON, TOOLS, grammars_of, problems, value_of
from tokenizers import AddedToken
from transformers import BartConfig, BartForConditionalGeneration

from bitcal_integrations.decode._tool_text import HERMES
from bitcal_integrations.decode.constraint import Constraint
from bitcal_integrations.decode.grammar import MOST_GRAMMARS, Grammars
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.run import generate, steps
from bitcal_integrations.errors import BadRequest, MissingExtra
from bitcal_integrations.types import Generation, make_request


def say(net: Net, prompt: str = "Hi", **options: Any) -> Generation:
    return generate(net, [make_request(prompt, **options)])[0]


# ---- schemas in the loop -----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0, 1.3])
def test_a_model_that_knows_nothing_gives_valid_json(net: Net, temperature: float) -> None:
    for limit in (19, 45):
        said = say(
            net, response_schema=PERSON, max_new_tokens=limit, temperature=temperature, seed=1
        )
        assert problems(PERSON, value_of(said.text)) == []
        assert said.finish == "stop"
        assert said.n_tokens <= limit


def test_rows_with_and_without_a_grammar_say_the_same_together_as_alone(net: Net) -> None:
    requests = [
        make_request("One", response_schema=PERSON, max_new_tokens=32),
        make_request("The second", max_new_tokens=12),
        make_request("3", response_schema=PERSON, max_new_tokens=28, temperature=0.9, seed=4),
        make_request("Four of them", tools=TOOLS, tool_choice="say", max_new_tokens=64),
        make_request("5", temperature=0.7, seed=2, max_new_tokens=9),
    ]
    for together, request in zip(generate(net, requests), requests, strict=True):
        alone = generate(net, [request])[0]
        assert (together.raw, together.finish) == (alone.raw, alone.finish)
        pairs = zip(together.steps, alone.steps, strict=True)
        assert all(a.forced == b.forced and abs(a.logprob - b.logprob) < 1e-4 for a, b in pairs)


def test_the_signals_are_those_of_the_unconstrained_distribution(net: Net) -> None:
    request = make_request("Hi", response_schema=PERSON, max_new_tokens=40)
    row = Row(net, request)
    for _ in steps(net, [row]):
        pass
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        raw = net.model(ids).logits[0].float().log_softmax(-1)
    for index, step in enumerate(row.steps):
        expected = raw[row.prompt_tokens + index - 1, step.token_id]
        assert step.logprob == pytest.approx(float(expected), abs=1e-3)


def test_a_loop_or_half_an_answer_does_not_cut_a_constrained_text(net: Net) -> None:
    schema = {"type": "array", "items": {"const": 1}, "minItems": 52, "maxItems": 52}
    said = say(net, response_schema=schema, max_new_tokens=110, parser="last_number")
    assert value_of(said.text) == [1] * 52
    assert said.finish == "stop"
    assert said.answer is not None  # the parser still reads the whole text
    assert said.answer.text == "1"


def test_a_stop_string_of_the_caller_still_ends_the_text(net: Net) -> None:
    said = say(net, response_schema=PERSON, stop=[":"])
    assert (said.text, said.stop_string) == ('{"name"', ":")


def test_a_grammar_that_may_go_on_ends_with_the_models_own_end_or_its_last_token(net: Net) -> None:
    said = say(net, response_schema={"type": "integer"}, max_new_tokens=3)
    assert isinstance(value_of(said.text), int)
    assert said.finish == "stop"


def test_a_schema_too_large_for_the_budget_is_refused_before_anything_runs(net: Net) -> None:
    with pytest.raises(
        BadRequest, match=r"has 19 tokens, and there is room for 10\. Raise max_new"
    ):
        Row(net, make_request("Hi", response_schema=PERSON, max_new_tokens=10))


def test_an_encoder_decoder_model_is_held_too() -> None:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=272, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    net = Net(BartForConditionalGeneration(config).eval(), tiny_tokenizer())
    said = say(net, response_schema=PERSON, max_new_tokens=60)
    assert problems(PERSON, value_of(said.text)) == []


def test_processors_of_the_model_cannot_forbid_what_the_grammar_needs(net: Net) -> None:
    model = tiny_model("llama", layers=1)
    quotes = net.tokenizer('"{', add_special_tokens=False)["input_ids"]
    model.generation_config.suppress_tokens = quotes
    model.generation_config.repetition_penalty = 1.3
    said = say(Net(model, tiny_tokenizer()), response_schema=PERSON, max_new_tokens=60)
    assert problems(PERSON, value_of(said.text)) == []


# ---- reasoning ---------------------------------------------------------------------------------


def thinking_net(net: Net, opened: bool, special: bool = True) -> Net:
    """A model whose template opens a block of reasoning, or that may open one by itself."""
    tokenizer = tiny_tokenizer(chat=True)
    marks = [AddedToken("<think>", special=special), AddedToken("</think>", special=special)]
    tokenizer.add_tokens(marks)
    tokenizer.chat_template = "{{ messages[0]['content'] }}" + ("<think>" if opened else "")
    return Net(net.model, tokenizer)


@pytest.mark.parametrize("special", [True, False])
def test_reasoning_is_closed_while_there_is_room_for_the_text(net: Net, special: bool) -> None:
    thinking = thinking_net(net, opened=True, special=special)
    said = say(thinking, response_schema=PERSON, max_new_tokens=50)
    assert said.reasoning
    assert problems(PERSON, value_of(said.text)) == []
    assert said.n_tokens <= 50
    assert all(not step.forced for step in said.steps[:20])


def test_a_model_may_open_its_reasoning_itself(net: Net) -> None:
    thinking = thinking_net(net, opened=False)
    grammars = thinking.grammars
    open_id, close_id = thinking.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    grammar = grammars.of(make_request("x", response_schema=PERSON), HERMES, 60, behind=False)
    row = Constraint(grammar, grammars, 60, None)
    wishes = torch.zeros(grammars.vocabulary.size)
    wishes[open_id] = 9.0
    assert row.choose(wishes, lambda x: int(x.argmax())) == open_id
    row.took(open_id, "<think>", None)
    wishes[2] = 20.0  # the end of the text: not before it was begun
    assert row.choose(wishes, lambda x: int(x.argmax())) == open_id
    row.took(close_id, "<think></think>", 15)
    wishes[:] = 0.0
    wishes[open_id] = 9.0  # not twice
    token = row.choose(wishes, lambda x: int(x.argmax()))
    assert grammars.vocabulary.bytes_of(token) == b"{"


def test_a_loop_in_the_reasoning_ends_the_reasoning_not_the_text(net: Net) -> None:
    thinking = thinking_net(net, opened=True)
    row = Row(thinking, make_request("Hi", response_schema=PERSON, max_new_tokens=150))
    a = thinking.tokenizer("a")["input_ids"][0]
    while not row.choose._constraint._hurried:  # type: ignore[union-attr]
        row.push(a, (-0.1, 0.1, 0.1, 1.0))
        assert row.finish is None
    assert row.new_tokens < 130
    for _ in steps(thinking, [row]):
        pass
    assert problems(PERSON, value_of(row.generation().text)) == []


# ---- what is kept --------------------------------------------------------------------------------


def test_a_schema_is_compiled_once_and_few_are_kept(net: Net) -> None:
    grammars = grammars_of()
    request = make_request("x", response_schema=PERSON)
    first = grammars.of(request, HERMES, 500, behind=False)
    assert grammars.of(replace(request, prompt="y"), HERMES, 480, behind=False) is first
    assert grammars.of(request, HERMES, 100, behind=False) is not first
    for size in range(MOST_GRAMMARS + 1):
        small = make_request("x", response_schema={"type": "string", "maxLength": size})
        grammars.of(small, HERMES, 100, behind=False)
    assert len(grammars._kept) == MOST_GRAMMARS
    assert grammars.of(request, HERMES, 500, behind=False) is not first


def test_without_the_library_the_error_says_what_to_install(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    fresh = Net(net.model, tiny_tokenizer())
    with pytest.raises(MissingExtra, match=r"pip install 'bitcal-integrations\[tools\]'"):
        Row(fresh, make_request("x", response_schema=PERSON))


def test_a_tokenizer_that_cannot_write_json_is_refused(net: Net) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = None
    tokenizer.decode = lambda ids, **_: "?" * len(ids)
    with pytest.raises(BadRequest, match="cannot write JSON exactly"):
        Grammars(tokenizer, len(tokenizer), [2])
