"""A JSON schema as grammar nodes: exactly what it allows, or an error that names what cannot be.

Objects have their properties in the order of the schema and no others; a schema that sets no
bounds gets those of `Bounds`. What a grammar cannot promise is refused, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.decode import _grammar_numbers as numbers
from bitcal_integrations.decode._grammar_nodes import (
    CHAR,
    Leaf,
    Lit,
    Node,
    Ref,
    Repeat,
    Seq,
    alt,
    leaf,
    lit,
    maybe,
    raw,
    spaced,
    string,
)
from bitcal_integrations.decode._grammar_pattern import FORMATS, pattern
from bitcal_integrations.decode._grammar_values import (
    COMMA,
    KEYWORDS,
    check_apart,
    constant,
    dump,
    implied,
    is_note,
    is_of,
    known_number,
    limits,
    merged,
    size_of,
)
from bitcal_integrations.errors import BadRequest

SETTLES = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")


@dataclass(frozen=True)
class Bounds:
    """The most characters of a string and items of a list where the schema does not say."""

    text: int
    items: int


def compile_schema(schema: Mapping[str, Any], bounds: Bounds) -> Node:
    """The node of every JSON text that the schema allows, within the bounds."""
    return _Compiler(schema, bounds).value(schema, "the schema")


def open_ends(schema: Any) -> int:
    """How many parts of a schema have no bound of their own, at least 1.

    >>> open_ends({"properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {}}}})
    2
    """
    return max(1, sum(1 for _ in _open(schema)))


def _open(schema: Any) -> Iterator[None]:
    if isinstance(schema, Mapping):
        kind = schema.get("type")
        if (kind == "string" and not {"maxLength", "enum", "const"} & set(schema)) or (
            kind == "array" and "maxItems" not in schema
        ):
            yield None
        for name, part in schema.items():
            if name not in ("enum", "const", "default", "examples"):
                yield from _open(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _open(part)


class _Compiler:
    """Holds the root for references; `at` names a place in messages."""

    def __init__(self, root: Mapping[str, Any], bounds: Bounds) -> None:
        self._root, self._bounds = root, bounds
        self._refs: dict[str, Ref] = {}
        self._anything: Ref | None = None

    def value(self, schema: Any, at: str) -> Node:
        if schema is True or schema == {}:
            return self._any()
        if not isinstance(schema, Mapping):
            raise BadRequest(f"{at} is {schema!r:.100}, which is no JSON schema")
        known = {*SETTLES, "type"}.union(*KEYWORDS.values())
        for name in schema:
            if name not in known and not is_note(name):
                raise BadRequest(
                    f"{at} has {name!r}, which no grammar here can promise",
                    f"Leave it out; known are {', '.join(sorted(known))}.",
                )
        for name in SETTLES:
            if name in schema:
                return self._whole(name, schema, at)
        return self._typed(schema, at)

    def _whole(self, name: str, schema: Mapping[str, Any], at: str) -> Node:
        """A schema that one keyword settles; beside it may stand notes, and a type at values."""
        usual = {name, "type"} if name in ("const", "enum") else {name}
        beside = {other for other in schema if other not in usual and not is_note(other)}
        value = schema[name]
        if name == "allOf":
            return self.value(merged(schema, self._found, at), at)
        if beside:
            raise BadRequest(f"{at} has {name!r} beside {min(beside)!r}, which is not supported")
        if name == "$ref":
            return self._ref(value, at)
        if name in ("const", "enum"):
            return self._values([value] if name == "const" else value, schema, at)
        if not isinstance(value, list) or not value:
            raise BadRequest(f"{name!r} of {at} is {value!r:.100}: it must be a list of schemas")
        if name == "oneOf":
            check_apart(value, self._found, at)
        return alt(self.value(one, f"{at}.{name}[{i}]") for i, one in enumerate(value))

    def _typed(self, schema: Mapping[str, Any], at: str) -> Node:
        kind = schema.get("type") or implied(schema)
        if kind is None:
            return self._any()
        kinds = kind if isinstance(kind, list) else [kind]
        for one in kinds:
            if one not in KEYWORDS:
                raise BadRequest(f"the type {one!r} of {at} is none of {', '.join(KEYWORDS)}")
        allowed = {"type"} | set().union(*(KEYWORDS[one] for one in kinds))
        for name in schema:
            if name not in allowed and not is_note(name):
                raise BadRequest(f"{at} has {name!r}, which means nothing for {kind!r}")
        return alt(getattr(self, f"_{one}")(schema, at) for one in kinds)

    # ---- one method per type -----------------------------------------------------------------

    def _object(self, schema: Mapping[str, Any], at: str) -> Node:
        properties = schema.get("properties")
        if properties is None:
            return self._free_object(schema, at)
        required = set(schema.get("required", ()))
        if missing := required - set(properties):
            raise BadRequest(f"{at} requires {min(missing)!r}, which is none of its properties")
        for name in ("minProperties", "maxProperties"):
            if name in schema:
                raise BadRequest(f"{at} has {name!r} beside 'properties', which is not supported")
        pairs = [
            (self._pair(name, part, f"{at}.{name}"), name in required)
            for name, part in properties.items()
        ]
        first: Node = Seq(())
        later: Node = Seq(())
        for pair, needed in reversed(pairs):
            told, begun = Seq((COMMA, pair, later)), Seq((pair, later))
            first, later = (begun, told) if needed else (alt((begun, first)), alt((told, later)))
        return Seq((lit("{"), first, lit("}")))

    def _pair(self, name: str, schema: Any, at: str) -> Node:
        return Seq((spaced(dump(name) + ":"), self.value(schema, at)))

    def _free_object(self, schema: Mapping[str, Any], at: str) -> Node:
        more = schema.get("additionalProperties", True)
        if schema.get("required"):
            raise BadRequest(f"{at} has 'required' without 'properties', which is not supported")
        if more is False:
            return Seq((lit("{"), lit("}")))
        key = leaf(
            Seq((Lit(b'"'), Repeat(CHAR, 1, min(64, self._bounds.text)), Lit(b'":'),
                 maybe(Lit(b" "))))
        )  # fmt: skip
        pair = Seq((key, self.value(more, f"{at}.additionalProperties")))
        least, most = self._counts(schema, "Properties", at)
        if least > 1:
            raise BadRequest(f"{at} has 'minProperties' above 1: keys cannot be kept apart")
        return Seq((lit("{"), _list(pair, least, most), lit("}")))

    def _array(self, schema: Mapping[str, Any], at: str) -> Node:
        least, most = self._counts(schema, "Items", at)
        fixed = [
            self.value(part, f"{at}.prefixItems[{i}]")
            for i, part in enumerate(schema.get("prefixItems", ()))
        ][:most]
        items = schema.get("items", True)
        closed = items is False or most <= len(fixed)
        if closed and least > len(fixed):
            raise BadRequest(f"{at} needs {least} items and allows {len(fixed)}")
        parts: list[Node] = [part for one in fixed for part in (COMMA, one)][1:]
        if not closed:
            item = self.value(items, f"{at}[]")
            left = (max(least - len(fixed), 0), most - len(fixed))
            parts.append(Repeat(Seq((COMMA, item)), *left) if fixed else _list(item, *left))
        return Seq((lit("["), *parts, lit("]")))

    def _counts(self, schema: Mapping[str, Any], of: str, at: str) -> tuple[int, int]:
        least, most = size_of(schema, f"min{of}", at), size_of(schema, f"max{of}", at)
        least = least or 0
        most = max(self._bounds.items, least) if most is None else most
        if least > most:
            raise BadRequest(f"{at} needs at least {least} and at most {most} of its {of.lower()}")
        return least, most

    def _string(self, schema: Mapping[str, Any], at: str) -> Node:
        least, most = size_of(schema, "minLength", at) or 0, size_of(schema, "maxLength", at)
        for name in ("pattern", "format"):
            if name in schema:
                if len({"minLength", "maxLength", "pattern", "format"} & set(schema)) > 1:
                    raise BadRequest(f"{at} has {name!r} with other bounds: use one of them")
                return self._shaped(name, schema[name], at)
        most = max(self._bounds.text, least) if most is None else most
        if least > most:
            raise BadRequest(f"{at} needs at least {least} and at most {most} characters")
        return string(least, most)

    def _shaped(self, name: str, value: Any, at: str) -> Leaf:
        if name == "format":
            if value not in FORMATS:
                raise BadRequest(
                    f"the format {value!r} of {at} is not supported; known are "
                    f"{', '.join(sorted(FORMATS))}"
                )
            value = FORMATS[value]
        try:
            return leaf(Seq((Lit(b'"'), pattern(value, self._bounds.text), Lit(b'"'))))
        except ValueError as err:
            raise BadRequest(
                f"the pattern {value!r:.100} of {at} is not supported: {err}"
            ) from None

    def _integer(self, schema: Mapping[str, Any], at: str) -> Node:
        low, high = limits(schema, at)
        first = None if low is None else math.floor(low[0]) + 1 if low[1] else math.ceil(low[0])
        last = None if high is None else math.ceil(high[0]) - 1 if high[1] else math.floor(high[0])
        return known_number(numbers.integer(first, last), at)

    def _number(self, schema: Mapping[str, Any], at: str) -> Node:
        return known_number(numbers.decimal(*limits(schema, at)), at)

    def _boolean(self, schema: Mapping[str, Any], at: str) -> Node:
        return alt((lit("true"), lit("false")))

    def _null(self, schema: Mapping[str, Any], at: str) -> Node:
        return lit("null")

    def _any(self) -> Node:
        """Any JSON value."""
        if self._anything is None:
            self._anything = Ref()
            kinds = ("string", "number", "boolean", "null", "array", "object")
            self._anything.target = alt(getattr(self, f"_{k}")({}, "a value") for k in kinds)
        return self._anything

    def _values(self, values: Any, schema: Mapping[str, Any], at: str) -> Node:
        if not isinstance(values, (list, tuple)) or not values:
            raise BadRequest(f"'enum' of {at} is {values!r:.100}: it must be a list of values")
        kinds = schema.get("type", list(KEYWORDS))
        kinds = kinds if isinstance(kinds, list) else [kinds]
        kept = [v for v in values if any(is_of(v, kind) for kind in kinds)]
        if not kept:
            raise BadRequest(f"no value of {at} is of its type {kinds!r}")
        simple = [v for v in kept if not isinstance(v, (Mapping, list))]
        choices = [constant(v) for v in kept if isinstance(v, (Mapping, list))]
        if simple:
            choices.append(leaf(alt(raw(dump(v)) for v in simple)))
        return alt(choices)

    def _ref(self, name: Any, at: str) -> Node:
        if not isinstance(name, str) or not name.startswith("#"):
            raise BadRequest(f"the reference {name!r:.100} of {at} is not into the schema itself")
        if name not in self._refs:
            self._refs[name] = Ref()  # first, so that a circle finds it
            self._refs[name].target = self.value(self._found(name), name)
        return self._refs[name]

    def _found(self, name: str) -> Any:
        part: Any = self._root
        for key in name.removeprefix("#").split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            if not isinstance(part, Mapping) or key not in part:
                raise BadRequest(f"the reference {name!r} of the schema leads nowhere")
            part = part[key]
        return part


def _list(item: Node, least: int, most: int) -> Node:
    if most == 0:
        return Seq(())
    behind = Repeat(Seq((COMMA, item)), max(least - 1, 0), most - 1)
    return Seq((item, behind)) if least else maybe(Seq((item, behind)))
