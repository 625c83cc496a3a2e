"""Streams whose reading counts for the query that began them.

LlamaIndex asks the LLM of a streamed answer only while the stream is read, in the reader's
context, and for chats in a thread of its own. Here every step of a stream is made with the
query's collector in place; between the steps the reader's context is its own.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse

from bitcal_integrations.llama_index.collector import Collector, seen_by


def told_stream(
    stream: Iterator[str], collector: Collector, done: Callable[[], None]
) -> Generator[str, None, None]:
    """The stream, and `done()` before its reader sees the end, or when it is closed early."""
    try:
        while True:
            with seen_by(collector):
                try:
                    text = next(stream)
                except StopIteration:
                    break
            yield text
    finally:
        if hasattr(stream, "close"):
            stream.close()
        done()


async def atold_stream(
    stream: AsyncIterator[str], collector: Collector, done: Callable[[], None]
) -> AsyncGenerator[str, None]:
    """`told_stream` for an event loop."""
    try:
        while True:
            with seen_by(collector):
                try:
                    text = await anext(stream)
                except StopAsyncIteration:
                    break
            yield text
    finally:
        if hasattr(stream, "aclose"):
            await stream.aclose()
        done()


def told_chat(engine: Any, collector: Collector) -> Any:
    """A chat engine like this one, sharing its memory, whose streamed answer is seen.

    Those with a retriever make a synthesizer for each message.
    """
    make = getattr(engine, "_get_response_synthesizer", None)
    if make is None:
        return engine
    seen = copy.copy(engine)
    seen._get_response_synthesizer = lambda *args, **kwargs: _told_synthesizer(
        make(*args, **kwargs), collector
    )
    return seen


def _told_synthesizer(synthesizer: Any, collector: Collector) -> Any:
    """The synthesizer, which belongs to one message alone, with its streams told."""
    synthesize, asynthesize = synthesizer.synthesize, synthesizer.asynthesize

    def told(*args: Any, **kwargs: Any) -> Any:
        return _told_response(synthesize(*args, **kwargs), collector)

    async def atold(*args: Any, **kwargs: Any) -> Any:
        return _told_response(await asynthesize(*args, **kwargs), collector)

    synthesizer.synthesize, synthesizer.asynthesize = told, atold
    return synthesizer


def _told_response(response: Any, collector: Collector) -> Any:
    if isinstance(response, StreamingResponse):
        return replace(
            response, response_gen=told_stream(response.response_gen, collector, _nothing)
        )
    if isinstance(response, AsyncStreamingResponse):
        return replace(
            response, response_gen=atold_stream(response.response_gen, collector, _nothing)
        )
    return response


def _nothing() -> None:
    """The chat's metadata follow the collector, which has heard already."""
