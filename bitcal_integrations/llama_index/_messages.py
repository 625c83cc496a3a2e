"""LlamaIndex's messages and tools as the plain dicts that a model of ours is asked with.

Texts and tool calls go through; what a model that reads text cannot take (an image, a sound, a
document) is refused by name. A model's earlier thinking is left out, as chat templates expect. It
knows no model and no template.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import BaseTool

from bitcal_integrations.errors import BadRequest

_ROLES = {
    MessageRole.DEVELOPER: "system",
    MessageRole.FUNCTION: "tool",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
}


def turns_of(
    messages: Sequence[ChatMessage], system_prompt: str | None = None
) -> list[dict[str, Any]]:
    """The conversation as {'role', 'content'} dicts, with one system turn at its beginning.

    `system_prompt` is the LLM's own; a conversation that begins with a system message has it
    already, or replaces it.

    >>> turns_of([ChatMessage("Hi")], "Be brief.")
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi'}]
    """
    if isinstance(messages, (str, ChatMessage)) or not messages:
        raise BadRequest(f"chat takes a list of ChatMessage, not {messages!r:.200}")
    turns = [_turn(message) for message in messages]
    while len(turns) > 1 and turns[0]["role"] == turns[1]["role"] == "system":
        # LLM.predict puts the system prompt before a template's own; templates take one.
        first, second, *rest = turns
        turns = [{**first, "content": _joined(first["content"], second["content"])}, *rest]
    if system_prompt and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": system_prompt}, *turns]
    return turns


def _joined(first: str, second: str) -> str:
    return first if second in first.split("\n\n") else f"{first}\n\n{second}"


def _turn(message: ChatMessage) -> dict[str, Any]:
    if not isinstance(message, ChatMessage):
        raise BadRequest(f"chat takes ChatMessage objects, not {message!r:.200}")
    role = _ROLES.get(message.role, message.role.value)
    texts = [text for block in message.blocks for text in _texts(block)]
    turn: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if calls := _calls(message):
        turn["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if isinstance(value := message.additional_kwargs.get(key), str):
            turn[key] = value
    return turn


def _texts(block: Any) -> list[str]:
    if isinstance(block, TextBlock):
        return [block.text]
    if isinstance(block, CitableBlock):
        return [text for inner in block.content for text in _texts(inner)]
    if isinstance(block, CitationBlock):
        return _texts(block.cited_content)
    if isinstance(block, (ToolCallBlock, ThinkingBlock, CachePoint)):
        return []
    kind = getattr(block, "block_type", type(block).__name__)
    raise BadRequest(f"a message has a block of type {kind!r}: this model takes texts only")


def _calls(message: ChatMessage) -> list[dict[str, Any]]:
    """The tool calls of an assistant's turn in OpenAI's shape, from blocks or the older place."""
    found = [
        {
            "id": block.tool_call_id or "",
            "type": "function",
            "function": {"name": block.tool_name, "arguments": _arguments(block.tool_kwargs)},
        }
        for block in message.blocks
        if isinstance(block, ToolCallBlock)
    ]
    return found or [_plain_call(call) for call in message.additional_kwargs.get("tool_calls", ())]


def _arguments(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _plain_call(call: Any) -> dict[str, Any]:
    """A tool call as other integrations leave it in a memory: a dict, or the client's object."""
    plain = call.model_dump() if hasattr(call, "model_dump") else call
    function = plain.get("function") if isinstance(plain, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        raise BadRequest(f"{call!r:.200} is no tool call of the form {{'id', 'function'}}")
    arguments = _arguments(function.get("arguments") or {})
    return {
        "id": plain.get("id") or "",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def tools_of(tools: Sequence[BaseTool]) -> list[dict[str, Any]]:
    """The tools as definitions in OpenAI's shape."""
    return [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]


def choice_of(choice: Any, required: bool) -> str | None:
    """LlamaIndex's and OpenAI's ways to choose a tool, as ours: auto, any, none or a name.

    >>> choice_of("required", False), choice_of(None, True), choice_of(None, False)
    ('any', 'any', 'auto')
    >>> choice_of({"type": "function", "function": {"name": "add"}}, False)
    'add'
    """
    if isinstance(choice, dict):
        function = choice.get("function", choice)
        choice = function.get("name") if isinstance(function, dict) else choice
    if choice is None:
        return "any" if required else "auto"
    if not isinstance(choice, str):
        raise BadRequest(f"tool_choice={choice!r:.200} is not auto, any, none or a tool's name")
    return {"required": "any"}.get(choice, choice)
