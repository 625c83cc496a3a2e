"""A Request's prompt as token ids: chat templates, system prompts, tools, what templates refuse.

It knows how a prompt is written, not how it is answered. A template writes its own first token,
so its text is encoded without special tokens: never a double BOS.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.decode import _tool_text as tooling
from bitcal_integrations.decode._tool_text import HERMES, ToolFormat
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.request import Message, Request

logger = logging.getLogger(__name__)

# How the models served by transformers mark reasoning, as text.
THINK = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


@dataclass(frozen=True)
class Encoded:
    """Token ids, the reasoning mark that the prompt itself has left open, if any, and how the
    model writes a call."""

    ids: tuple[int, ...]
    open_mark: str | None = None
    calls: ToolFormat = HERMES


def encode(tokenizer: Any, request: Request) -> Encoded:
    """The prompt's ids, through the chat template unless it has none or `chat=False`."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if request.chat and not has_template:
        raise BadRequest("chat=True is not allowed: the tokenizer has no chat template")
    tools = request.tools if request.tool_choice != "none" else ()
    if request.chat is not False and has_template:
        text, form = render(tokenizer, request.prompt, request.chat_template_kwargs, tools)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Encoded(_or_first(tokenizer, ids), _open_mark(text), form)
    if isinstance(request.prompt, str) and not tools:
        return Encoded(_encode_plain(tokenizer, request.prompt))
    turns = [tooling.as_text(m, HERMES) for m in _messages(request.prompt)]
    turns = tooling.introduced(turns, tools, HERMES)
    return Encoded(_encode_plain(tokenizer, plain_text(tuple(turns))))


def render(
    tokenizer: Any,
    prompt: str | tuple[Message, ...],
    kwargs: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, ToolFormat]:
    """The prompt in the chat template, as plainly as that needs; and the format of its calls."""
    template = _template(tokenizer, kwargs, tools)
    form = tooling.format_of(template)
    refusal: Exception | None = None
    for messages, options in _versions(_messages(prompt), tools, template, form):
        try:
            return _apply(tokenizer, messages, {**options, **kwargs}), form
        except Exception as err:
            logger.debug("the template refuses a version of the messages: %s", err)
            refusal = refusal or err
    raise BadRequest(f"the chat template refuses these messages: {refusal}") from refusal


def _messages(prompt: str | tuple[Message, ...]) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(m) for m in prompt]


def _template(tokenizer: Any, kwargs: Mapping[str, Any], tools: Sequence[Any]) -> str:
    """The source of the template that will be used."""
    try:
        return str(
            tokenizer.get_chat_template(kwargs.get("chat_template"), tools=list(tools) or None)
        )
    except Exception as err:  # a choice of templates that lacks the one asked for
        raise BadRequest(f"the tokenizer has no template for this: {err}") from err


def _versions(
    messages: list[dict[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    template: str,
    form: ToolFormat,
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Messages and template options, first as they are meant, then ever plainer.

    Some templates know no tools, no turns of one role in a row (Llama 2), no system turn (Gemma).
    """
    history = any(m["role"] == "tool" or m.get("tool_calls") for m in messages)
    knows_tools = bool(re.search(r"\btools\b", template)) or not tools
    if knows_tools and ("tool_calls" in template or not history):
        native = [tooling.with_parsed_arguments(m) for m in messages]
        yield native, {"tools": [dict(tool) for tool in tools]} if tools else {}
    plain = [tooling.as_text(m, form) for m in messages] if history else messages
    plain = tooling.introduced(plain, tools, form)
    if history or tools:
        yield plain, {}
    merged = tooling.merged(plain)
    if len(merged) < len(plain):
        yield merged, {}
    if merged[0]["role"] == "system" and len(merged) > 1:
        yield tooling.merged(_system_first(merged)), {}


def _apply(tokenizer: Any, messages: list[dict[str, Any]], kwargs: Mapping[str, Any]) -> str:
    options = {"add_generation_prompt": True, **kwargs, "tokenize": False}
    return str(tokenizer.apply_chat_template(messages, **options))


def _system_first(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    system, first, *rest = messages
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def plain_text(messages: tuple[Message, ...]) -> str:
    """Messages for a base model without a template: the text alone, or a labelled dialogue.

    >>> plain_text(({"role": "user", "content": "Hi"},))
    'Hi'
    >>> plain_text(({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}))
    'system: Be brief.\\nuser: Hi\\nassistant:'
    """
    if len(messages) == 1:
        return str(messages[0]["content"])
    lines = [f"{m['role']}: {m['content']}" for m in messages]
    return "\n".join([*lines, "assistant:"])


def _encode_plain(tokenizer: Any, text: str) -> tuple[int, ...]:
    bos = getattr(tokenizer, "bos_token", None) or ""
    own_bos = bool(bos) and text.startswith(bos)
    return _or_first(tokenizer, tokenizer(text, add_special_tokens=not own_bos)["input_ids"])


def _or_first(tokenizer: Any, ids: list[int]) -> tuple[int, ...]:
    """The ids; for an empty prompt the token that the model begins from."""
    if ids:
        return tuple(ids)
    first = tokenizer.bos_token_id
    first = tokenizer.eos_token_id if first is None else first
    if first is None:
        raise BadRequest("the prompt is empty and the tokenizer has no first token to start from")
    return (first,)


def _open_mark(rendered: str) -> str | None:
    tail = rendered.rstrip()
    return next((start for start, _ in THINK if tail.endswith(start)), None)
