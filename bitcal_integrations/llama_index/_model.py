"""The model behind an LLM: one that is loaded already, or one loaded by name and shared.

Knows `load`'s arguments and what a model tells about itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.model import load
from bitcal_integrations.shared import shared_model

LOAD_ARGUMENTS = tuple(
    name
    for name, parameter in inspect.signature(load).parameters.items()
    if name != "model" and parameter.kind is parameter.KEYWORD_ONLY
)
_ENDPOINTS = ("ask", "aask", "stream", "astream")


def is_model(model: Any) -> bool:
    """Whether it can be asked as it is; a class of one's own with the four methods can."""
    return not isinstance(model, type) and all(
        callable(getattr(model, e, None)) for e in _ENDPOINTS
    )


def open_model(model: Any, arguments: Mapping[str, Any]) -> Any:
    """The model itself, or the one that these arguments of `load` name."""
    unknown = sorted(set(arguments) - set(LOAD_ARGUMENTS))
    if unknown:
        raise BadRequest(
            f"unknown argument {unknown[0]!r}; for loading there are {', '.join(LOAD_ARGUMENTS)}"
        )
    if not is_model(model):
        return shared_model(model, arguments)
    if arguments:
        raise BadRequest(
            f"{next(iter(arguments))!r} is an argument for loading, and {model!r:.80} is loaded"
        )
    return model


def chats(model: Any) -> bool:
    """Whether the model takes conversations: through a chat template, or without a tokenizer."""
    tokenizer = getattr(model, "tokenizer", None)
    return tokenizer is None or bool(getattr(tokenizer, "chat_template", None))


def knows_tools(model: Any) -> bool:
    """Whether the chat template writes tools, so that the model was trained to call them."""
    template = getattr(getattr(model, "tokenizer", None), "chat_template", None)
    texts = template.values() if isinstance(template, Mapping) else [template]
    return any("tools" in str(text) for text in texts)
