"""What parts of a JSON schema say: constants, types, bounds, merged and disjoint schemas.

Helpers of `_grammar_schema`: they look at schemas, and make nodes only of constants.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from bitcal_integrations.decode._grammar_nodes import Leaf, Node, Seq, lit, spaced
from bitcal_integrations.decode._grammar_numbers import Bound
from bitcal_integrations.errors import BadRequest

NOTES = set(
    "title description default examples example deprecated readOnly writeOnly $comment $schema $id "
    "$anchor $defs definitions discriminator contentMediaType contentEncoding".split()
)
KEYWORDS: dict[str, set[str]] = {
    "object": set("properties required additionalProperties minProperties maxProperties".split()),
    "array": set("items prefixItems minItems maxItems".split()),
    "string": set("minLength maxLength pattern format".split()),
    "integer": set("minimum maximum exclusiveMinimum exclusiveMaximum".split()),
    "number": set("minimum maximum exclusiveMinimum exclusiveMaximum".split()),
    "boolean": set(),
    "null": set(),
}
COMMA = spaced(",")
Find: TypeAlias = Callable[[str], Any]  # what a reference leads to
Signs: TypeAlias = "tuple[set[str], dict[str, set[str]]]"


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_note(name: str) -> bool:
    """Whether a keyword only describes."""
    return name in NOTES or name.startswith("x-")


def implied(schema: Mapping[str, Any]) -> str | None:
    """The type that a schema without one speaks of."""
    for kind in ("object", "array", "string", "number"):
        if KEYWORDS[kind] & set(schema):
            return kind
    return None


def is_of(value: Any, kind: str) -> bool:
    """Whether a value is of a type of JSON schema.

    >>> is_of(3.0, "integer"), is_of(True, "number"), is_of(None, "null")
    (True, False, True)
    """
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, (int, float)):
        return kind == "number" or (kind == "integer" and value == int(value))
    if isinstance(value, str):
        return kind == "string"
    return kind == ("object" if isinstance(value, Mapping) else "array")


def constant(value: Any) -> Node:
    """The one text of a value, of the same lexemes as every other text."""
    if isinstance(value, Mapping):
        parts: list[Node] = [
            Seq((spaced(dump(name) + ":"), constant(part))) for name, part in value.items()
        ]
        marks = "{}"
    elif isinstance(value, list):
        parts, marks = [constant(part) for part in value], "[]"
    else:
        return lit(dump(value))
    between = [one for part in parts for one in (COMMA, part)][1:]
    return Seq((lit(marks[0]), *between, lit(marks[1])))


def merged(schema: Mapping[str, Any], find: Find, at: str) -> dict[str, Any]:
    """One schema that means all of `allOf`; only what does not overlap can be merged."""
    parts = schema["allOf"]
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise BadRequest(f"'allOf' of {at} is {parts!r:.100}: it must be a list of schemas")
    out = {k: v for k, v in schema.items() if k != "allOf"}
    alone = len(parts) == 1 and all(map(is_note, out))
    for part in parts:
        while not alone and "$ref" in part and all(is_note(k) for k in part if k != "$ref"):
            part = find(part["$ref"])
        for key, value in part.items():
            if key == "properties" and not set(out.get(key, {})) & set(value):
                out[key] = {**out.get(key, {}), **value}
            elif key == "required":
                out[key] = [*out.get(key, ()), *value]
            elif key not in out or is_note(key) or out[key] == value:
                out.setdefault(key, value)
            else:
                raise BadRequest(f"'allOf' of {at} says two things of {key!r}")
    return out


def check_apart(choices: list[Any], find: Find, at: str) -> None:
    """`oneOf` forbids a value that two of its schemas allow: they must be plainly apart."""
    signs = [_signs(choice, find) for choice in choices]
    for i, one in enumerate(signs):
        if not all(_apart(one, other) for other in signs[:i]):
            raise BadRequest(
                f"'oneOf' of {at} has schemas that one value could satisfy together",
                "Use anyOf, or give each a property with a constant of its own.",
            )


def _signs(schema: Any, find: Find) -> Signs:
    """The types a schema allows, and the values of its constant required properties."""
    while isinstance(schema, Mapping) and "$ref" in schema:
        schema = find(schema["$ref"])
    if not isinstance(schema, Mapping):
        return set(KEYWORDS), {}
    values = _fixed(schema)
    kind = schema.get("type") or implied(schema)
    kinds = {k for k in KEYWORDS if any(is_of(v, k) for v in values)} or set(KEYWORDS)
    if kind is not None:
        kinds = {kind} if isinstance(kind, str) else set(kind)
    kinds |= {"integer"} if "number" in kinds else set()
    fixed = {"": set(map(dump, values))} if values else {}
    for name in schema.get("required", ()):
        if options := _fixed(schema.get("properties", {}).get(name, {})):
            fixed[name] = set(map(dump, options))
    return kinds, fixed


def _fixed(schema: Any) -> list[Any]:
    """The values that are all a schema allows, where it names them."""
    if not isinstance(schema, Mapping):
        return []
    return [schema["const"]] if "const" in schema else list(schema.get("enum", ()))


def _apart(one: Signs, other: Signs) -> bool:
    if not one[0] & other[0]:
        return True
    return any(name in other[1] and not fixed & other[1][name] for name, fixed in one[1].items())


def limits(schema: Mapping[str, Any], at: str) -> tuple[Bound | None, Bound | None]:
    found: dict[str, Bound] = {}
    for name in KEYWORDS["number"] & set(schema):
        value = schema[name]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BadRequest(f"{name}={value!r:.100} of {at} is not allowed: it must be a number")
        found[name] = (Decimal(str(value)), name.startswith("exclusive"))
    low = [found[n] for n in ("minimum", "exclusiveMinimum") if n in found]
    high = [found[n] for n in ("maximum", "exclusiveMaximum") if n in found]
    return max(low, default=None), min(high, key=lambda b: (b[0], not b[1]), default=None)


def known_number(found: Leaf | None, at: str) -> Leaf:
    if found is None:
        raise BadRequest(f"no number lies within the bounds of {at}")
    return found


def size_of(schema: Mapping[str, Any], name: str, at: str) -> int | None:
    value = schema.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise BadRequest(f"{name}={value!r:.100} of {at} is not allowed: it must be a whole number")
    return value
