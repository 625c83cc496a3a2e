"""Queries that start together take turns, so that the event loop is never held for long.

LlamaIndex prepares a query (counts tokens, cuts texts) on the loop and without a pause; the
preparations of many queries in a row would block it. It knows nothing about queries.
"""

from __future__ import annotations

import asyncio
import weakref

_locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
    weakref.WeakKeyDictionary()
)


async def own_turn() -> None:
    """Wait until the loop has gone round once since the last one was let through."""
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)
