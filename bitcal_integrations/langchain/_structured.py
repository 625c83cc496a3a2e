"""Tools and schemas, in every shape that LangChain takes, as options of `ask`, and the way back.

The model's grammar makes calls and objects valid; here they are only named and parsed. Knows
LangChain's schemas and parsers, no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from bitcal_integrations.errors import BadRequest

METHODS = ("json_schema", "function_calling", "json_mode")
UNTITLED = "answer"  # what the function of a schema without a title is called
SHAPES = (
    "a function, a tool of LangChain, a pydantic class, a TypedDict, an OpenAI function or a JSON "
    "schema with a 'title'"
)


def tool_options(
    tools: Sequence[Any], choice: Any = None, parallel: bool | None = None
) -> dict[str, Any]:
    """The options `tools` and `tool_choice` for what `bind_tools` was given."""
    found = [_converted(convert_to_openai_tool, tool) for tool in tools]
    names = [tool["function"]["name"] for tool in found]
    chosen = _choice(choice, names)
    options: dict[str, Any] = {"tools": found}
    if chosen is not None:
        options["tool_choice"] = chosen
    if parallel is not None:
        options["parallel_tool_calls"] = parallel
    return options


def _converted(convert: Callable[[Any], dict[str, Any]], thing: Any) -> dict[str, Any]:
    """What LangChain makes of a tool or a schema; what it knows no shape for is refused."""
    try:
        return convert(thing)
    except ValueError as error:
        if callable(thing):
            raise  # LangChain says what the function lacks
        raise BadRequest(f"{thing!r:.200} is not allowed: it must be {SHAPES}") from error


def _choice(choice: Any, names: Sequence[str]) -> str | None:
    """One of None, auto, any, none and the tools' names, from the spellings of other providers."""
    if choice is None or choice is False:
        return None
    if isinstance(choice, Mapping):
        choice = choice.get("function", choice).get("name")
    chosen = {True: "any", "required": "any"}.get(choice, choice)
    if chosen in ("auto", "any", "none", *names):
        return str(chosen)
    raise BadRequest(
        f"tool_choice={choice!r} is not allowed: use auto, any, none or a tool's name "
        f"({', '.join(names)})"
    )


def structured(
    chat: Any, schema: Any, method: str, include_raw: bool, kwargs: Mapping[str, Any]
) -> Runnable[Any, Any]:
    """The model bound to a schema, and the parser behind it."""
    if method not in METHODS:
        raise BadRequest(f"method={method!r} is not allowed: use {', '.join(METHODS)}")
    if schema is None and method != "json_mode":
        raise BadRequest(f"schema=None is not allowed with {method}: only json_mode needs none")
    if method == "function_calling":
        model, parser = _by_call(chat, schema, kwargs)
    else:
        model, parser = _by_text(chat, schema, method, kwargs)
    if not include_raw:
        return model | parser
    parsed = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _by_text(
    chat: Any, schema: Any, method: str, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    """The whole answer is the object."""
    if schema is None:
        return chat.bind(response_schema={"type": "object"}, **kwargs), JsonOutputParser()
    plain = _is_untitled(schema)
    wanted = dict(schema) if plain else _converted(convert_to_json_schema, schema)
    told = {"kwargs": {"method": method}, "schema": schema}
    model = chat.bind(response_schema=wanted, ls_structured_output_format=told, **kwargs)
    if _is_pydantic(schema):
        return model, PydanticOutputParser(pydantic_object=schema)
    return model, JsonOutputParser()


def _by_call(
    chat: Any, schema: Any, kwargs: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], Runnable[Any, Any]]:
    """The object is the argument of a call that the model must make."""
    tool = schema
    if _is_untitled(schema):
        if schema.get("type", "object") != "object":
            raise BadRequest(
                f"{schema!r:.200} is not allowed with function_calling, whose arguments are an "
                "object: use json_schema"
            )
        function = {"name": UNTITLED, "parameters": dict(schema)}
        tool = {"type": "function", "function": function}
    name = _converted(convert_to_openai_tool, tool)["function"]["name"]
    told = {"kwargs": {"method": "function_calling"}, "schema": schema}
    model = chat.bind_tools(
        [tool], tool_choice=name, parallel_tool_calls=False,
        ls_structured_output_format=told, **kwargs,
    )  # fmt: skip
    if _is_pydantic(schema):
        return model, PydanticToolsParser(tools=[schema], first_tool_only=True)
    return model, JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def _is_untitled(schema: Any) -> bool:
    """Whether it is a JSON schema that says no name, which LangChain itself does not take."""
    if not isinstance(schema, Mapping) or {"title", "name", "function"} & set(schema):
        return False
    return "properties" in schema or isinstance(schema.get("type"), (str, list))


def _is_pydantic(schema: Any) -> bool:
    return isinstance(schema, type) and is_basemodel_subclass(schema)
