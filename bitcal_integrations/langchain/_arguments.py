"""The arguments of ChatBitCal and BitCalLLM by name: which are for `load` and which for `ask`.

It knows names and refuses unknown ones; it knows no model and sets no value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitcal_integrations.errors import BadRequest

# name here -> name in `ask`
ASKED = {
    "max_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "task": "task",
    "parser": "parser",
    "loop_stop": "loop_stop",
    "early_stop": "early_stop",
    "chat": "chat",
    "chat_template_kwargs": "chat_template_kwargs",
    "top_logprobs": "top_logprobs",
}
# argument of `load` -> its default there; they say nothing about a model that is loaded already
LOADED: dict[str, Any] = {
    "weights": "auto",
    "dtype": "auto",
    "device": "auto",
    "revision": None,
    "tokenizer": None,
    "exclude": "*lm_head",
    "trust_remote_code": False,
    "confidence_profile": "auto",
    "repair": None,
    "strict": False,
    "deterministic": False,
    "max_batch": None,
    "max_queue": None,
    "kv_bytes": None,
}


def translated(values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments under the names of fields; an unknown one is refused."""
    values = dict(values)
    if "profile" in values and not isinstance(values["profile"], dict):
        values["confidence_profile"] = values.pop("profile")  # a dict is LangChain's model profile
    if "max_new_tokens" in values:
        values["max_tokens"] = values.pop("max_new_tokens")
    unknown = sorted(set(values) - set(fields))
    if unknown:
        known = ", ".join(sorted([*LOADED, *ASKED, "logprobs", "model", "profile", "streaming"]))
        raise BadRequest(f"unknown argument {unknown[0]!r}; the arguments are {known}")
    return values


def refuse_arguments_of_load(values: Mapping[str, Any]) -> None:
    for name, default in LOADED.items():
        if name in values and values[name] != default:
            shown = "profile" if name == "confidence_profile" else name
            raise BadRequest(
                f"{shown}={values[name]!r:.80} is for load, and this model is loaded already"
            )


def schema_of(response_format: Any) -> Mapping[str, Any] | None:
    """The JSON schema in a `response_format` of OpenAI's shape, which LangChain's agents pass.

    >>> schema_of({"type": "json_object"})
    {'type': 'object'}
    """
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind == "json_schema" and isinstance(response_format.get("json_schema"), Mapping):
        schema = response_format["json_schema"].get("schema")
        if isinstance(schema, Mapping):
            return schema
    if kind in ("json_object", "text"):
        return {"type": "object"} if kind == "json_object" else None
    raise BadRequest(
        f"response_format={response_format!r:.200} is not allowed: use {{'type': 'json_schema', "
        "'json_schema': {'schema': ...}}, {'type': 'json_object'} or {'type': 'text'}"
    )
