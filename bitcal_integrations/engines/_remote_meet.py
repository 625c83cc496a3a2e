"""Getting to know a server: which models it serves, and whether it takes chats.

It asks for the list of models, and with api="auto" for one token; it keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.engines._remote_errors import Failed, Trouble
from bitcal_integrations.engines._remote_wire import CHAT, COMPLETIONS, body_of, piece_of
from bitcal_integrations.errors import LoadError
from bitcal_integrations.types import make_request

NO_LIST = frozenset({404, 405, 501})  # a server without a list of its models
NO_CHAT = frozenset({400, 404, 405, 422, 500, 501})  # no chat template, or no chats at all
TRIES = 2  # while loading: a wrong address should not take long to find out


@dataclass(frozen=True)
class Served:
    """A model as its server tells of it; None is not told."""

    name: str
    root: str | None = None
    context: int | None = None
    kind: str | None = None
    way: str = CHAT
    logprobs: bool | None = None


async def meet(worker: Any, where: str, model: str | None, api: str, k: int | None) -> Served:
    """The model by its name, or the only one that is served."""
    listed = await _listed(worker)
    name, entry = _entry(listed, model, where)
    root, context, kind = entry.get("root"), entry.get("max_model_len"), entry.get("owned_by")
    way, logprobs = (api, None) if api != "auto" else await _way(worker, name, k)
    return Served(
        name, root if isinstance(root, str) else None,
        context if isinstance(context, int) and context > 1 else None,
        kind if isinstance(kind, str) else None, way, logprobs,
    )  # fmt: skip


async def _listed(worker: Any) -> list[Any]:
    for attempt in range(TRIES):
        try:
            found = await worker.get("/models")
            data = found.get("data") if isinstance(found, Mapping) else None
            return [m for m in data or () if isinstance(m, Mapping) and m.get("id")]
        except Failed as failed:
            trouble = failed.trouble
            if trouble.status in NO_LIST:
                return []
            if not trouble.again or attempt == TRIES - 1:
                raise
            await worker.patience.sleep(worker.patience.pause(attempt, trouble.after_s))
    return []


def _entry(listed: list[Any], model: str | None, where: str) -> tuple[str, Mapping[str, Any]]:
    by_name = {str(m["id"]): m for m in listed}
    if model is not None:
        if listed and model not in by_name:
            raise LoadError(f"{where} serves no {model!r}: it has {_names(by_name)}")
        return model, by_name.get(model, {})
    if len(by_name) == 1:
        return next(iter(by_name.items()))
    what = f"serves {_names(by_name)}" if by_name else "does not tell what it serves"
    raise LoadError(f"{where} {what}", "Say which with model=NAME (on the command line --model).")


def _names(by_name: Mapping[str, Any]) -> str:
    shown = ", ".join(repr(n) for n in list(by_name)[:10])
    return shown + (f" and {len(by_name) - 10} more" if len(by_name) > 10 else "")


async def _way(worker: Any, name: str, k: int | None) -> tuple[str, bool]:
    """Chats where the server takes them, else plain completions; and whether scores come."""
    try:
        return CHAT, await _first_token(worker, CHAT, name, k)
    except Failed as failed:
        refused = failed.trouble
        if refused.status not in NO_CHAT:
            raise
    try:
        return COMPLETIONS, await _first_token(worker, COMPLETIONS, name, k)
    except Failed as failed:
        error = failed.trouble.error
        both = f"{error.message}; and for chats: {refused.error.message}"
        raise Failed(Trouble(type(error)(both, error.hint or refused.error.hint))) from None


async def _first_token(worker: Any, way: str, name: str, k: int | None) -> bool:
    body = body_of(make_request("Hello", max_new_tokens=1), way, name, k)
    scored = False
    async with aclosing(worker.post(way, body)) as events:
        async for event in events:
            scored = scored or bool(piece_of(event, k).tokens)
    return scored
