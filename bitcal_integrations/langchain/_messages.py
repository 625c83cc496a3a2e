"""LangChain's messages as the {role, content} messages that a model's chat template takes.

Only text goes in: a picture or a file is refused by its type. What a template refuses, such as two
turns of one role in a row, is put right where prompts are written. Knows no model and no template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage

from bitcal_integrations.errors import BadRequest

Turn = dict[str, Any]

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
# What an assistant said beside its words: calls travel in `tool_calls`, thoughts are not repeated.
_UNSAID = {
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call", "function_call",
    "server_tool_use", "server_tool_call", "server_tool_call_chunk", "server_tool_result",
    "web_search_tool_result", "reasoning", "thinking", "redacted_thinking",
}  # fmt: skip


def turns_of(messages: Sequence[BaseMessage]) -> tuple[Turn, ...]:
    """The turns of a conversation.

    >>> from langchain_core.messages import HumanMessage, SystemMessage
    >>> turns_of([SystemMessage("Be brief."), HumanMessage("Hi.")])
    ({'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'Hi.'})
    """
    if not messages:
        raise BadRequest("the list of messages is empty: there is nothing to answer")
    return tuple(_turn(message) for message in messages)


def _turn(message: BaseMessage) -> Turn:
    turn: Turn = {"role": _role(message), "content": _text(message)}
    if message.name:
        turn["name"] = message.name
    if isinstance(message, AIMessage) and message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    kind = message.type.removesuffix("MessageChunk").lower()
    if kind not in _ROLES:
        raise BadRequest(
            f"a message of type {message.type!r} cannot be said to a model: "
            f"the types are {', '.join(_ROLES)} and chat"
        )
    return _ROLES[kind]


def _text(message: BaseMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    return "".join(_part(part, message) for part in content)


def _part(part: Any, message: BaseMessage) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type")
    if isinstance(part.get("text"), str) and kind in ("text", "text-plain", None):
        return str(part["text"])
    if kind in _UNSAID and isinstance(message, AIMessage):
        return ""
    if kind == "json" or (kind == "non_standard" and isinstance(message, ToolMessage)):
        return json.dumps(part.get("json", part.get("value")), ensure_ascii=False)
    raise BadRequest(
        f"a part of type {kind!r} in a {message.type} message is not text, and this model reads "
        "only text: {'type': 'text', 'text': ...}"
    )


def _call(call: Mapping[str, Any]) -> Turn:
    """A call as OpenAI's clients send it back, which is what chat templates expect."""
    arguments = json.dumps(call["args"], ensure_ascii=False)
    function = {"name": call["name"], "arguments": arguments}
    return {"id": call["id"], "type": "function", "function": function}
