"""Calls and fields are found where they stand, with the model's own probability of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.toolcalls import content_of_tools, field_confidence, tool_calls_of
from bitcal_integrations.types import Generation, Request, Step, make_request


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


REQUEST = make_request("x", tools=[tool("add", a={"type": "integer"}), tool("say")])


def said(*pieces: tuple[str, float | None], start: int = 0) -> Generation:
    """A generation of these pieces; a piece without a log-probability was forced."""
    steps, at = [], 0
    for index, (text, logprob) in enumerate(pieces):
        numbers = (-9.0 if logprob is None else logprob, 0.0, 0.0, 0.0)
        steps.append(Step(index, text, at, at + len(text), *numbers, forced=logprob is None))
        at += len(text)
    raw = "".join(text for text, _ in pieces)
    return Generation(raw, "stop", tuple(steps), n_tokens=len(steps), content_start=start)


def plain(text: str, start: int = 0) -> Generation:
    return said((text, -0.5), start=start)


def test_a_call_between_its_marks() -> None:
    generation = said(
        ("Wait. ", -0.1), ("<tool_call>", -0.2), ('{"name": "', None), ("add", -0.3),
        ('", "arguments": {"a": ', None), ("12", -0.4), ("}}", None), ("</tool_call>", None),
    )  # fmt: skip
    (call,) = tool_calls_of(generation, REQUEST)
    assert (call.name, call.arguments) == ("add", {"a": 12})
    assert generation.raw[call.start : call.end] == generation.raw[6:]
    assert call.confidence == pytest.approx(math.exp(-0.9))
    assert content_of_tools(generation, REQUEST) == "Wait."
    assert field_confidence(generation, REQUEST, call) == {"a": pytest.approx(math.exp(-0.4))}
    assert json.loads(call.to_dict()["function"]["arguments"]) == {"a": 12}


def test_several_calls_have_ids_of_their_own_that_stay_the_same() -> None:
    one = '<tool_call>\n{"name":"say","arguments":{}}\n</tool_call>'
    generation = plain(f"{one}\n{one}")
    first, second = tool_calls_of(generation, REQUEST)
    assert first.id != second.id
    assert tool_calls_of(generation, REQUEST) == (first, second)
    assert content_of_tools(generation) == ""
    other = tool_calls_of(generation, replace(REQUEST, prompt="y"))
    assert other[0].id != first.id


def test_a_call_without_marks_must_be_all_there_is() -> None:
    bare = '{"name": "add", "parameters": {"a": 1}}'
    assert [c.arguments for c in tool_calls_of(plain(bare), REQUEST)] == [{"a": 1}]
    assert [c.name for c in tool_calls_of(plain(f"{bare}; {bare}"), REQUEST)] == ["add", "add"]
    assert tool_calls_of(plain(f"{bare} and so on"), REQUEST) == ()
    assert tool_calls_of(plain(f"So: {bare}"), REQUEST) == ()


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>", '<tool_call>{"name": "add", "argu', "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": "other", "arguments": {}}</tool_call>', '{"name": "other"}',
        '<tool_call>{"name": "add", "arguments": [1]}</tool_call>', "plain", "",
        '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>', '{"a": 1}', "{",
    ],
)  # fmt: skip
def test_what_is_no_complete_call_of_a_known_tool_stays_text(text: str) -> None:
    assert tool_calls_of(plain(text), REQUEST) == ()
    assert content_of_tools(plain(text), REQUEST) == text


def test_reasoning_is_not_searched() -> None:
    call = '<tool_call>{"name": "say", "arguments": {}}</tool_call>'
    generation = plain(f"<think>{call}</think>No.", start=len(f"<think>{call}</think>"))
    assert tool_calls_of(generation, REQUEST) == ()
    assert content_of_tools(generation) == "No."


def test_without_tools_or_with_none_of_them_nothing_is_a_call() -> None:
    generation = plain('{"name": "add", "arguments": {"a": 1}}')
    assert tool_calls_of(generation, make_request("x")) == ()
    assert tool_calls_of(generation, replace(REQUEST, tool_choice="none")) == ()
    assert content_of_tools(generation, make_request("x")) == generation.raw


def test_every_leaf_has_a_path_and_the_product_over_its_free_tokens() -> None:
    generation = said(
        ('{"a": [', None), ("1", -0.1), ("2", -0.2), (", ", -3.0), ("3", -0.3),
        ('], "b": {"c": ', None),
        ('"x', -0.4), ('y"', -0.5), ('}, "d": ', None), ("null", None), (', "e": {}, "f": ', None),
        ("true", -0.6), ("}", None),
    )  # fmt: skip
    request = make_request("x", response_schema={})
    found = field_confidence(generation, request)
    assert list(found) == ["a[0]", "a[1]", "b.c", "d", "e", "f"]
    expected = [math.exp(p) for p in (-0.3, -0.3, -0.9)]
    assert [found[k] for k in ("a[0]", "a[1]", "b.c")] == pytest.approx(expected)
    assert found["d"] is None  # the model had no choice
    assert found["e"] is None
    assert field_confidence(plain("12"), request) == {"": pytest.approx(math.exp(-0.5))}


@pytest.mark.parametrize("text", ["", "{", '{"a": ', "no JSON", "[1,"])
def test_a_text_that_is_no_complete_json_has_no_fields(text: str) -> None:
    assert field_confidence(plain(text), make_request("x", response_schema={})) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [{}]}, "the tool {} is not allowed: it must be {'type': 'function'"),
        ({"tools": [tool("auto")]}, "a name other than auto, any, none"),
        ({"tools": [tool("a"), tool("a")]}, "the names of the tools must differ: a, a"),
        ({"tools": 3}, "tools=3 is not allowed"),
        ({"tools": [tool("a")], "tool_choice": "b"}, "tool_choice='b' is not .* any, none, a"),
        ({"tool_choice": "any"}, "tool_choice='any' is not allowed: it must be None without"),
        ({"response_schema": "{}"}, "response_schema='{}' is not allowed"),
        ({"response_schema": {"enum": {1}}}, "response_schema=.* must be a JSON schema"),
    ],
)
def test_a_wrong_option_is_quoted(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        make_request("x", **options)


def test_a_request_with_tools_survives_json() -> None:
    request = replace(REQUEST, response_schema={"type": "string"}, tool_choice="any")
    data = json.loads(json.dumps(request.to_dict()))
    assert make_request(data.pop("prompt"), **data) == request


# ---- the built-in model ------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 30},
        "kind": {"enum": ["city", "number"]},
    },
    "required": ["answer", "kind"],
}


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32") as loaded:
        yield loaded


def asked(model: CalibratedModel, **options: Any) -> tuple[Generation, Request]:
    record = model.ask("What is the capital of France?", max_new_tokens=60, **options)
    return record.generation, record.request


def test_the_built_in_model_answers_in_a_schema(model: CalibratedModel) -> None:
    generation, request = asked(model, response_schema=SCHEMA)
    value = json.loads(generation.text)
    assert list(value) == ["answer", "kind"]
    assert value["kind"] in ("city", "number")
    assert len(value["answer"]) <= 30
    found = field_confidence(generation, request)
    assert list(found) == ["answer", "kind"]
    assert all(sure is not None and 0 <= sure <= 1 for sure in found.values())


def test_it_chooses_one_of_the_allowed_values(model: CalibratedModel) -> None:
    cities = {"enum": ["Berlin", "Paris", "Rome", "Madrid"]}
    generation, request = asked(model, response_schema=cities)
    assert json.loads(generation.text) in cities["enum"]
    (sure,) = field_confidence(generation, request).values()
    assert sure is not None


def test_ask_list_and_stream_give_the_same_text(model: CalibratedModel) -> None:
    prompts = ["What is the capital of France?", "What is 3 plus 4?"]
    options = {"response_schema": SCHEMA, "max_new_tokens": 40}
    both = model.ask(prompts, **options)
    for prompt, record in zip(prompts, both, strict=True):
        *steps, last = model.stream(prompt, **options)
        assert last.text == record.text == "".join(s.text for s in steps)


def test_it_calls_the_tool_that_it_must_call(model: CalibratedModel) -> None:
    tools = [tool("look_up", country={"type": "string"}), tool("stop")]
    generation, request = asked(model, tools=tools, tool_choice="look_up")
    (call,) = tool_calls_of(generation, request)
    assert call.name == "look_up"
    assert isinstance(call.arguments["country"], str)
    assert content_of_tools(generation, request) == ""
    assert call.confidence is not None


def test_a_call_has_no_calibrated_confidence(model: CalibratedModel) -> None:
    tools = [tool("look_up", country={"type": "string"})]
    record = model.ask("What is the capital of France?", tools=tools, tool_choice="any",
                       max_new_tokens=60)  # fmt: skip
    assert record.confidence.value is None
    assert record.confidence.reason
