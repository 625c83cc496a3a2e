"""Tool calls in the decode loop: those that must come, those that may, and their formats."""

from __future__ import annotations

import json

import pytest
import torch
from families import tiny_tokenizer
from grammar_help import TOOLS, grammars_of, problems, ramble, tool, value_of

from bitcal_integrations.decode._tool_text import HERMES, LLAMA
from bitcal_integrations.decode.constraint import Constraint
from bitcal_integrations.decode.grammar import Grammars
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.run import generate, steps
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.toolcalls import tool_calls_of
from bitcal_integrations.types import make_request


@pytest.mark.parametrize("choice", ["any", "say", "add"])
def test_a_call_that_must_come_comes_in_the_models_format(choice: str) -> None:
    for form in (HERMES, LLAMA):
        for limit in (70, 200):
            text, _ = ramble(grammars_of(), limit, form=form, tools=TOOLS, tool_choice=choice)
            first = text.split(HERMES.closes)[0].removeprefix(form.opens).strip()
            call = value_of(first)
            assert list(call) == ["name", form.key]
            assert call["name"] == choice or choice == "any"
            expected = {"add": {"a", "b"}, "say": {"text"}}[call["name"]]
            assert set(call[form.key]) == expected


def test_the_marks_of_calls_are_single_tokens_where_the_model_has_them() -> None:
    for special in (True, False):
        grammars = grammars_of(**{"<tool_call>": special, "</tool_call>": special})
        text, forced = ramble(grammars, 70, tools=TOOLS, tool_choice="say")
        assert text.startswith("<tool_call>")
        assert text.endswith("</tool_call>")
        assert len(forced) < len(text.encode()) - 15
        assert forced[0]
        assert forced[-1]


def test_an_offered_tool_is_called_freely_and_then_held_to_its_schema() -> None:
    grammars = grammars_of()
    request = make_request("x", tools=TOOLS)
    grammar = grammars.of(request, HERMES, 200, behind=False)
    row = Constraint(grammar, grammars, 200, None)
    assert row.idle
    raw, random = "", torch.Generator().manual_seed(0)
    for token in grammars.vocabulary.spell(b"Let me. <tool_call>") or []:
        raw += grammars.vocabulary.bytes_of(token).decode()
        assert row.took(token, raw, 0) is False
    assert row.binding
    assert not row.idle
    while not row.complete:
        logits = torch.randn(grammars.vocabulary.size, generator=random)
        token = row.choose(logits, lambda x: int(x.argmax()))
        if token == 2:
            break
        raw += grammars.vocabulary.bytes_of(token).decode(errors="replace")
        row.took(token, raw, 0)
    body = raw.split("<tool_call>")[1].split("</tool_call>")[0]
    assert value_of(body.strip())["name"] in ("add", "say")


def test_a_row_that_opens_a_call_finishes_it(net: Net) -> None:
    for opened in ("Well. <tool_call>", '<tool_call>\n{"name": "a'):
        row = Row(net, make_request("Hi", tools=TOOLS, max_new_tokens=90))
        for token in net.tokenizer(opened)["input_ids"]:
            row.push(token, (-0.1, 0.1, 0.1, 1.0))
        for _ in steps(net, [row]):
            pass
        said = row.generation()
        assert said.raw.startswith(opened)
        assert said.finish == "stop"
        assert tool_calls_of(said, row.request)


def test_without_marks_a_call_begins_the_text() -> None:
    grammars = grammars_of()
    grammar = grammars.of(make_request("x", tools=TOOLS), LLAMA, 200, behind=False)
    for text, binds in (('\n{"name"', True), ('{ "name', False), ('So {"name"', False)):
        row = Constraint(grammar, grammars, 200, None)
        for end in range(1, len(text) + 1):
            row.took((grammars.vocabulary.spell(text[end - 1].encode()) or [0])[0], text[:end], 0)
        assert row.binding is binds


def test_a_call_is_not_opened_where_it_could_not_be_closed() -> None:
    grammars = grammars_of(**{"<tool_call>": True})
    grammar = grammars.of(make_request("x", tools=TOOLS), HERMES, 30, behind=False)
    row = Constraint(grammar, grammars, 30, None)
    mark = grammars.vocabulary.mark("<tool_call>")
    wishes = torch.zeros(grammars.vocabulary.size)
    wishes[mark], wishes[40] = 9.0, 5.0
    assert not row.idle
    assert row.choose(wishes, lambda x: int(x.argmax())) == 40


def test_text_that_only_looks_like_a_call_stays_free() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool_call> or"])
    grammars = Grammars(tokenizer, len(tokenizer), [2])
    grammar = grammars.of(make_request("x", tools=TOOLS), HERMES, 200, behind=False)
    row = Constraint(grammar, grammars, 200, None)
    row.took(len(tokenizer) - 1, "<tool_call> or", 0)
    assert not row.binding
    row.took(40, "<tool_call> or D", 0)
    assert not row.binding


def test_tools_and_a_schema_leave_both_open() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    seen = {
        ramble(grammars_of(), 120, seed, tools=TOOLS, response_schema=schema)[0][0]
        for seed in range(12)
    }
    assert seen == {"{", "<"}
    text, _ = ramble(grammars_of(), 120, tools=TOOLS, tool_choice="none", response_schema=schema)
    assert problems(schema, json.loads(text)) == []


def test_an_error_in_a_tools_schema_names_the_tool(net: Net) -> None:
    bad = tool("bad", a={"type": "integer", "multipleOf": 2})
    with pytest.raises(BadRequest, match=r"parameters of the tool 'bad': the schema\.a has"):
        Row(net, make_request("x", tools=[bad], tool_choice="any"))


def test_a_call_is_no_answer_for_a_parser(net: Net) -> None:
    options = {"tools": TOOLS, "tool_choice": "add", "parser": "last_number"}
    (said,) = generate(net, [make_request("Hi", max_new_tokens=75, **options)])
    assert said.answer is None
    assert said.finish == "stop"
