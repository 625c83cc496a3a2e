"""Whatever a schema asks for comes out valid and complete, from logits that know nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from families import tiny_tokenizer
from grammar_help import problems, ramble, sentencepiece_like, value_of

from bitcal_integrations.decode._tool_text import HERMES
from bitcal_integrations.decode.grammar import Grammars
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import make_request


def thing(required: str = "", **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required.split()}


TEXT, WHOLE, YES = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
NODE = thing("v", v=WHOLE, left={"$ref": "#/$defs/node"}, right={"$ref": "#/$defs/node"})
SCHEMAS: dict[str, dict[str, Any]] = {
    "string": TEXT,
    "nested": thing("a b", a=thing("c", c=thing("d", d=TEXT), e=WHOLE), b=YES),
    "optional first": thing("z", x=TEXT, y=WHOLE, z=YES),
    "all optional": thing("", x=TEXT, y=WHOLE, z=YES),
    "no properties": thing(),
    "enum": {"enum": ["red", "reddish", "été", 3, 3.5, None, True, [1, {"a": 2}], {"b": []}]},
    "marks in a text": {"enum": ["</s>", "a <s> b"]},
    "const": {"const": {"a": [1, "q\"uote\\", None]}},
    "list": {"type": "array", "items": WHOLE},
    "sized list": {"type": "array", "items": YES, "minItems": 3, "maxItems": 4},
    "empty list": {"type": "array", "maxItems": 0},
    "tuple": {"type": "array", "prefixItems": [TEXT, WHOLE], "items": YES, "maxItems": 4},
    "pair": {"type": "array", "prefixItems": [YES, WHOLE], "items": False, "minItems": 2},
    "union": {"anyOf": [WHOLE, TEXT, {"type": "null"}, thing("a", a=WHOLE), {"const": 17}]},
    "apart": {"oneOf": [thing("k n", k={"const": "a"}, n=WHOLE), thing("k", k={"enum": ["b"]})]},
    "types": {"type": ["integer", "null", "string"], "maxLength": 3, "minimum": 5},
    "number": {"type": "number"},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "narrow": {"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.3},
    "below": {"type": "number", "maximum": -2.5},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "from half": {"type": "integer", "minimum": -0.5, "exclusiveMaximum": 12},
    "sized text": {"type": "string", "minLength": 4, "maxLength": 9},
    "pattern": {"type": "string", "pattern": r"^(ab|c[d-f\"]?)+\s?[^x]{2,5}\d*$"},
    "date": {"type": "string", "format": "date"},
    "moment": {"type": "string", "format": "date-time"},
    "defs": {"$defs": {"t": TEXT}, **thing("p", p={"$ref": "#/$defs/t"}, q={"$ref": "#/$defs/t"})},
    "tree": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "map": {"type": "object", "additionalProperties": WHOLE},
    "anything": {},
    "merged": {"allOf": [thing("a", a=WHOLE), thing("b", b=YES)]},
    "unicode keys": thing("naïve 日", naïve=TEXT, 日=WHOLE),
    "notes": {"title": "T", "x-order": 1, **thing("a", a={**TEXT, "default": 1})},
}  # fmt: skip


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def grammars(request: pytest.FixtureRequest) -> Grammars:
    tokenizer = tiny_tokenizer() if request.param == "bytes" else sentencepiece_like()
    return Grammars(tokenizer, len(tokenizer) + 9, [2])


def shortest(grammars: Grammars, schema: Any) -> int:
    asked = make_request("x", response_schema=schema)
    return int(grammars.of(asked, HERMES, 99, behind=False).tokens)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_text_is_valid_and_complete_within_its_tokens(grammars: Grammars, name: str) -> None:
    schema = SCHEMAS[name]
    least = shortest(grammars, schema)
    seen = set()
    for seed, limit in enumerate([least, least, least + 1, least + 7, least + 40, 200]):
        text, _ = ramble(grammars, limit, seed, response_schema=schema)
        assert problems(schema, value_of(text)) == [], text
        seen.add(text)
    assert len(seen) > 1 or name in ("const", "no properties", "empty list")


def test_a_circle_of_choices_is_what_it_holds(grammars: Grammars) -> None:
    text, _ = ramble(grammars, 30, response_schema={"anyOf": [{"$ref": "#"}, WHOLE]})
    assert type(value_of(text)) is int


def test_one_token_less_than_the_shortest_text_is_refused_with_the_number(
    grammars: Grammars,
) -> None:
    schema = SCHEMAS["nested"]
    least = shortest(grammars, schema)
    with pytest.raises(BadRequest, match=rf"has {least} tokens, and there is room for {least - 1}"):
        ramble(grammars, least - 1, response_schema=schema)


def test_a_text_that_needs_its_length_names_it() -> None:
    tokenizer = tiny_tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), [2])
    with pytest.raises(BadRequest, match="has 102 tokens, and there is room for 50"):
        ramble(grammars, 50, response_schema={"type": "string", "minLength": 100})


def test_all_values_of_a_small_grammar_can_be_reached() -> None:
    tokenizer = tiny_tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), [2])
    schema = thing("a", a={"enum": [1, "x"]}, b=YES)
    seen = {ramble(grammars, 60, seed, response_schema=schema)[0] for seed in range(120)}
    values = [json.loads(text) for text in seen]
    for a in (1, "x"):
        for rest in ({}, {"b": True}, {"b": False}):
            assert {"a": a, **rest} in values


def test_only_tokens_that_say_something_are_not_forced() -> None:
    tokenizer = tiny_tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), [2])
    schema = thing("color", color={"enum": ["red", "blue"]})
    text, forced = ramble(grammars, 60, response_schema=schema)
    free = [char for char, f in zip(text, forced, strict=True) if not f]
    assert free in (["r"], ["b"])  # the rest follows, white space apart


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "multipleOf": 5}, "the schema has 'multipleOf'"),
        ({"type": "array", "uniqueItems": True}, "the schema has 'uniqueItems'"),
        (thing("", a={"not": {}}), "the schema.a has 'not'"),
        ({"type": "string", "format": "hostname"}, "the format 'hostname' of the schema is not"),
        ({"type": "string", "pattern": "(?=a)b"}, r"pattern '\(\?=a\)b' of the schema is not"),
        ({"type": "string", "pattern": "("}, r"pattern '\(' of the schema is not supported"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "'pattern' with other bounds"),
        ({"type": "text"}, "the type 'text' of the schema is none of object"),
        ({"type": "string", "minimum": 3}, "'minimum', which means nothing for 'string'"),
        ({"$ref": "#/$defs/a"}, "the reference '#/\\$defs/a' of the schema leads nowhere"),
        ({"$ref": "other.json"}, "'other.json' of the schema is not into the schema"),
        ({"$ref": "#"}, "no text can follow the schema: it never ends"),
        ({"$defs": {"n": thing("n", n={"$ref": "#/$defs/n"})}, "$ref": "#/$defs/n"}, "never ends"),
        ({"oneOf": [WHOLE, {"type": "number"}]}, "'oneOf' of the schema has schemas that"),
        ({"anyOf": []}, "'anyOf' of the schema is \\[\\]"),
        ({"anyOf": [WHOLE], "minimum": 3}, "'anyOf' beside 'minimum'"),
        ({"allOf": [WHOLE, TEXT]}, "'allOf' of the schema says two things of 'type'"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "no number lies within the bounds"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "at least 5 and at most 4"),
        ({"type": "string", "maxLength": -1}, "maxLength=-1 of the schema is not allowed"),
        ({"type": "number", "minimum": "1"}, "minimum='1' of the schema is not allowed"),
        ({"enum": []}, "'enum' of the schema is \\[\\]"),
        ({"type": "string", "enum": [1]}, "no value of the schema is of its type"),
        ({"const": "\ud800"}, "half of a surrogate pair"),
        (thing("b", a=TEXT), "requires 'b', which is none of its properties"),
        (thing("", a=3), "the schema.a is 3, which is no JSON schema"),
        (thing("", a=False), "the schema.a is False"),
    ],
)  # fmt: skip
def test_what_no_grammar_can_promise_is_refused(schema: dict[str, Any], words: str) -> None:
    tokenizer = tiny_tokenizer()
    grammars = Grammars(tokenizer, len(tokenizer), [2])
    with pytest.raises(BadRequest, match=words):
        ramble(grammars, 500, response_schema=schema)
