"""A Request's prompt as token ids: chat templates, system prompts, the limit of the context.

It knows how a prompt is written, not how it is answered. A template writes its own first token,
so its text is encoded without special tokens: never a double BOS.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Message, Request

logger = logging.getLogger(__name__)

# How the models served by transformers mark reasoning, as text.
THINK = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)


@dataclass(frozen=True)
class Encoded:
    """Token ids, and the reasoning mark that the prompt itself has left open, if any."""

    ids: tuple[int, ...]
    open_mark: str | None = None


def encode(tokenizer: Any, request: Request) -> Encoded:
    """The prompt's ids, through the chat template unless it has none or `chat=False`."""
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if request.chat and not has_template:
        raise BadRequest("chat=True is not allowed: the tokenizer has no chat template")
    if request.chat is not False and has_template:
        text = render(tokenizer, request.prompt, request.chat_template_kwargs)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Encoded(_or_first(tokenizer, ids), _open_mark(text))
    text = request.prompt if isinstance(request.prompt, str) else plain_text(request.prompt)
    return Encoded(_encode_plain(tokenizer, text))


def render(tokenizer: Any, prompt: str | tuple[Message, ...], kwargs: Mapping[str, Any]) -> str:
    """The prompt in the chat template; a string is one user message."""
    messages = [dict(m) for m in prompt] if not isinstance(prompt, str) else _user(prompt)
    try:
        return _apply(tokenizer, messages, kwargs)
    except Exception as err:
        if messages[0]["role"] == "system" and len(messages) > 1:
            try:  # some templates (Gemma) have no system role: say it before the first turn
                return _apply(tokenizer, _system_first(messages), kwargs)
            except Exception as again:
                logger.debug("the template refuses a merged system prompt too: %s", again)
        raise BadRequest(f"the chat template refuses these messages: {err}") from err


def _user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


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
