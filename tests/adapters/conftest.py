"""LlamaIndex's sync calls make an event loop of their own where the thread has one to find, and
leave it open; where it has none they close what they make."""

from __future__ import annotations

import asyncio
import inspect

import pytest


@pytest.fixture(autouse=True)
def _no_loop_is_left(request: pytest.FixtureRequest) -> None:
    if not inspect.iscoroutinefunction(getattr(request, "function", None)):
        asyncio.set_event_loop(None)
