"""What the tests of grammars share: a plain validator, tokenizers, and texts of random logits.

The validator is written from the JSON schema specification and knows nothing of the package.
"""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from families import tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bitcal_integrations.decode._tool_text import HERMES, ToolFormat
from bitcal_integrations.decode.constraint import Constraint
from bitcal_integrations.decode.grammar import Grammars
from bitcal_integrations.types import Request, make_request

TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
    "number": (int, float), "integer": int,
}  # fmt: skip


def problems(schema: Any, value: Any, root: Any = None) -> list[str]:
    """What is wrong with a value, in words; empty if the schema allows it."""
    root = schema if root is None else root
    if schema is True:
        return []
    if "$ref" in schema:
        part = root
        for key in schema["$ref"].split("/")[1:]:
            part = part[key]
        return problems(part, value, root)
    for name in ("anyOf", "oneOf"):
        if name in schema:
            fits = [s for s in schema[name] if not problems(s, value, root)]
            wrong = not fits or (name == "oneOf" and len(fits) > 1)
            return [f"{name}: {value!r} fits {len(fits)}"] if wrong else []
    kinds = schema.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if kinds and not any(_is(value, kind) for kind in kinds):
        return [f"{value!r} is no {kinds}"]
    if "const" in schema and (value != schema["const"] or type(value) is not type(schema["const"])):
        return [f"{value!r} is not the constant"]
    if "enum" in schema and not any(v == value and type(v) is type(value) for v in schema["enum"]):
        return [f"{value!r} is none of the values"]
    return [p for check in (_number, _string, _array, _object) for p in check(schema, value, root)]


def _is(value: Any, kind: str) -> bool:
    number_bool = isinstance(value, bool) and kind in ("number", "integer")
    return isinstance(value, TYPES[kind]) and not number_bool


def _number(schema: Any, value: Any, root: Any) -> list[str]:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return []
    return [
        f"{value} breaks {name}"
        for name, fine in (
            ("minimum", lambda b: value >= b),
            ("maximum", lambda b: value <= b),
            ("exclusiveMinimum", lambda b: value > b),
            ("exclusiveMaximum", lambda b: value < b),
        )
        if name in schema and not fine(schema[name])
    ]


def _string(schema: Any, value: Any, root: Any) -> list[str]:
    if not isinstance(value, str):
        return []
    value.encode()  # half a surrogate pair would raise here
    size = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 10**9)
    shape = re.search(schema.get("pattern", ""), value)
    return [] if size and shape else [f"{value!r} breaks {schema}"]


def _array(schema: Any, value: Any, root: Any) -> list[str]:
    if not isinstance(value, list):
        return []
    first = schema.get("prefixItems", [])
    found = [p for s, v in zip(first, value, strict=False) for p in problems(s, v, root)]
    for item in value[len(first) :]:
        more = schema.get("items", True)
        found += ["an item too many"] if more is False else problems(more, item, root)
    size = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 10**9)
    return found if size else [*found, f"{len(value)} items"]


def _object(schema: Any, value: Any, root: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    known = schema.get("properties", {})
    found = [f"{name!r} is missing" for name in schema.get("required", []) if name not in value]
    for name, part in value.items():
        more = known.get(name, schema.get("additionalProperties", True))
        found += [f"{name!r} is too much"] if more is False else problems(more, part, root)
    return found


# ---- tokenizers ------------------------------------------------------------------------------


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """▁ for spaces, bytes as a fallback, some merges, and a first space that decoding drops."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁"]
    pieces += [*'{}":,[]abcdefghijklmnopqrstuvwxyz0123456789', "▁{", '":', "▁a", "▁1", "tr"]
    merges = [("▁", "{"), ('"', ":"), ("▁", "a"), ("▁", "1"), ("t", "r")]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    core.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


# ---- texts of a model that knows nothing -----------------------------------------------------


def ramble(
    grammars: Grammars,
    limit: int,
    seed: int = 0,
    form: ToolFormat = HERMES,
    tilt: torch.Tensor | None = None,
    **options: Any,
) -> tuple[str, list[bool]]:
    """The text that random logits give under a request's grammar, and which tokens were forced."""
    request: Request = make_request("x", **options)
    grammar = grammars.of(request, form, limit, behind=False)
    row = Constraint(grammar, grammars, limit, None)
    random = torch.Generator().manual_seed(seed)
    data, forced = b"", []
    for _ in range(limit):
        logits = torch.randn(grammars.vocabulary.size, generator=random)
        token = row.choose(logits if tilt is None else logits + tilt, lambda x: int(x.argmax()))
        if token in grammars.eos:
            break
        data += grammars.vocabulary.bytes_of(token)
        forced.append(row.took(token, "", None))
        if row.complete:
            break
    assert row.accepting, f"not at an end after {len(forced)} of {limit} tokens: {data!r}"
    return data.decode(), forced


def value_of(text: str) -> Any:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ---- what is asked for ------------------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["name", "age"],
}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


WHOLE = {"type": "integer"}
TOOLS = [tool("add", a=WHOLE, b=WHOLE), tool("say", text={"type": "string"})]


def grammars_of(**marks: bool) -> Grammars:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken(text, special=special) for text, special in marks.items()])
    return Grammars(tokenizer, len(tokenizer), [2])
