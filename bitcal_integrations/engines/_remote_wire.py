"""A Request as the body of an OpenAI-compatible call, and an event of the answer as a Piece.

Plain dicts in and out; knows the two shapes, chat and completions, and sends nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitcal_integrations.decode.prompt import plain_text
from bitcal_integrations.engines._remote_text import Piece, Token
from bitcal_integrations.errors import BadRequest, EngineError
from bitcal_integrations.types import Request

CHAT, COMPLETIONS = "chat", "completions"
PATHS = {CHAT: "/chat/completions", COMPLETIONS: "/completions"}


def way_of(request: Request, default: str) -> str:
    """Which of the two calls serves a request: the chat template is the server's business."""
    if request.chat is None:
        return default
    if request.chat and default == COMPLETIONS:
        raise BadRequest(
            "chat=True is not allowed: the model was loaded with api='completions', or its server "
            "has no chat template"
        )
    return CHAT if request.chat else COMPLETIONS


def body_of(
    request: Request, way: str, model: str, k: int | None, context: int | None = None
) -> dict[str, Any]:
    """What is posted: the answer comes as a stream, with the `k` likeliest of every token.

    Stop strings are not part of it: servers hold text back for them, and then it is not told
    which token it belongs to. The stream is closed where one is found.

    >>> from bitcal_integrations.types import make_request
    >>> body = body_of(make_request("2 + 2 =", max_new_tokens=9), "completions", "tiny", 5)
    >>> body["prompt"], body["max_tokens"], body["logprobs"]
    ('2 + 2 =', 9, 5)
    """
    room = request.max_new_tokens if context is None else min(request.max_new_tokens, context - 1)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": room,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.temperature > 0 and request.top_p is not None:
        body["top_p"] = request.top_p
    if request.seed is not None:
        body["seed"] = request.seed
    if k is not None and request.top_logprobs > k:
        raise BadRequest(
            f"top_logprobs={request.top_logprobs} is not allowed: the model was loaded with "
            f"top_logprobs={k}, which its signals are measured with"
        )
    return {**body, **(_chat(request, k) if way == CHAT else _completion(request, k))}


def _chat(request: Request, k: int | None) -> dict[str, Any]:
    turns: Sequence[Mapping[str, Any]] = (
        [{"role": "user", "content": request.prompt}]
        if isinstance(request.prompt, str)
        else request.prompt
    )
    out: dict[str, Any] = {"messages": [dict(turn) for turn in turns]}
    if k is not None:
        out |= {"logprobs": True, "top_logprobs": k}
    if request.chat_template_kwargs:
        out["chat_template_kwargs"] = dict(request.chat_template_kwargs)
    if request.tools:
        out["tools"] = [{"type": "function", **tool} for tool in request.tools]
        out["tool_choice"] = _choice(request.tool_choice)
    if request.response_schema is not None:
        shape = {"name": "answer", "schema": dict(request.response_schema), "strict": True}
        out["response_format"] = {"type": "json_schema", "json_schema": shape}
    return out


def _choice(name: str | None) -> Any:
    words: dict[str | None, Any] = {None: "auto", "auto": "auto", "any": "required", "none": "none"}
    return words.get(name, {"type": "function", "function": {"name": name}})


def _completion(request: Request, k: int | None) -> dict[str, Any]:
    for option, value in (
        ("tools", request.tools),
        ("response_schema", request.response_schema),
        ("chat_template_kwargs", request.chat_template_kwargs),
    ):
        if value:
            raise BadRequest(
                f"{option} is not allowed here: a server takes it in chats only, and this request "
                "is a plain completion"
            )
    prompt = request.prompt if isinstance(request.prompt, str) else plain_text(request.prompt)
    return {"prompt": prompt} if k is None else {"prompt": prompt, "logprobs": k}


def piece_of(event: Any, k: int | None) -> Piece:
    """An event of either stream.

    >>> piece_of({"choices": [{"text": " Paris", "finish_reason": None}]}, 5).text
    ' Paris'
    """
    try:
        usage = _usage(event.get("usage"))
        choices = event.get("choices") or []
        if not choices:
            return Piece(usage=usage)
        choice = choices[0]
        scored = choice.get("logprobs") or {}
        tokens = _listed(scored, k) if "content" in scored else _columns(scored, k)
        if (delta := choice.get("delta")) is None:
            return Piece(choice.get("text") or "", tokens, choice.get("finish_reason"), usage)
        return Piece(
            delta.get("content") or delta.get("refusal") or "", tokens,
            choice.get("finish_reason"), usage,
            delta.get("reasoning_content") or delta.get("reasoning") or "",
            tuple(delta.get("tool_calls") or ()),
        )  # fmt: skip
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as err:
        raise EngineError(
            f"the server sent {event!r:.200}, which is no part of an answer ({err!r:.100})"
        ) from None


def _usage(told: Any) -> tuple[int, int] | None:
    return (int(told["prompt_tokens"]), int(told["completion_tokens"])) if told else None


def _listed(scored: Mapping[str, Any], k: int | None) -> tuple[Token, ...]:
    """A chat's tokens: a list of {token, logprob, top_logprobs}."""
    return tuple(
        _token(
            one["token"], one["logprob"],
            [(other["token"], other["logprob"]) for other in one.get("top_logprobs") or ()], k,
        )
        for one in scored["content"] or ()
    )  # fmt: skip


def _columns(scored: Mapping[str, Any], k: int | None) -> tuple[Token, ...]:
    """A completion's tokens: one list for each of the spellings, numbers and alternatives."""
    names, numbers = scored.get("tokens") or (), scored.get("token_logprobs") or ()
    tops = scored.get("top_logprobs") or [None] * len(names)
    return tuple(
        _token(name, number, list((top or {}).items()), k)
        for name, number, top in zip(names, numbers, tops, strict=True)
    )


def _token(name: str, number: Any, top: list[tuple[str, Any]], k: int | None) -> Token:
    # An alternative without a number, as some servers write -inf, is as good as none.
    best = sorted(((n, _nats(v)) for n, v in top if v is not None), key=lambda pair: -pair[1])
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no token")
    return Token(name, _nats(number), tuple(best[:k]))


def _nats(value: Any) -> float:
    found = float(value)
    if math.isnan(found) or found > 1e-3:  # servers round: 1e-9 above 0 is a certain token
        raise ValueError(f"{value!r} is no log-probability")
    return max(min(found, 0.0), -9999.0)


class Calls:
    """Tool calls, which come in parts, as the text that `tool_calls_of` reads."""

    def __init__(self) -> None:
        self._found: dict[int, list[str]] = {}

    def add(self, parts: Sequence[Mapping[str, Any]]) -> None:
        for part in parts:
            known = self._found.setdefault(int(part.get("index") or 0), ["", ""])
            function = part.get("function") or {}
            known[0] += function.get("name") or ""
            known[1] += function.get("arguments") or ""

    def text(self) -> str:
        """One block for each call; arguments that are no JSON object stay as they are.

        >>> calls = Calls()
        >>> calls.add([{"index": 0, "function": {"name": "add", "arguments": '{"a"'}}])
        >>> calls.add([{"index": 0, "function": {"arguments": ": 1}"}}])
        >>> calls.text()
        '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
        """
        said = [
            (json.dumps(name), given or "{}") for _, (name, given) in sorted(self._found.items())
        ]
        return "\n".join(
            f'<tool_call>{{"name": {name}, "arguments": {given}}}</tool_call>'
            for name, given in said
        )
