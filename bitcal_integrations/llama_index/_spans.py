"""Follows the spans of LlamaIndex: which call runs inside which. Keeps ids, nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any

from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index_instrumentation.span import BaseSpan, active_span_id
from llama_index_instrumentation.span_handlers import BaseSpanHandler

from bitcal_integrations.llama_index._heard import Heard


class SpanLinks(BaseSpanHandler[BaseSpan]):
    """Tells `heard` of every span and its parent; opens no span of its own."""

    _heard: Heard = PrivateAttr()

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self._heard = heard

    @classmethod
    def class_name(cls) -> str:
        return "SpanLinks"

    def new_span(
        self,
        id_: str,
        bound_args: Any,
        instance: Any = None,
        parent_span_id: str | None = None,
        tags: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self._heard.link(id_, parent_span_id)

    def prepare_to_exit_span(
        self, id_: str, bound_args: Any, instance: Any = None, result: Any = None, **kwargs: Any
    ) -> None:
        """Nothing was opened."""

    def prepare_to_drop_span(
        self, id_: str, bound_args: Any, instance: Any = None, err: Any = None, **kwargs: Any
    ) -> None:
        """Nothing was opened."""


def inside(span: str, response: Any) -> None:
    """Let the stream of a response run inside this span, whenever it is read.

    Synthesizers begin to ask the llm when the stream is read, which may be after the query's span
    has ended: the llm's span would have no parent.
    """
    if isinstance(response, StreamingResponse):
        response.response_gen = _inside(span, response.response_gen)
    elif isinstance(response, AsyncStreamingResponse):
        response.response_gen = _ainside(span, response.response_gen)


def _inside(span: str, stream: Iterator[str]) -> Generator[str, None, None]:
    try:
        while True:
            token = active_span_id.set(span)
            try:
                piece = next(stream)
            except StopIteration:
                return
            finally:
                active_span_id.reset(token)
            yield piece
    finally:
        if hasattr(stream, "close"):
            stream.close()


async def _ainside(span: str, stream: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    try:
        while True:
            token = active_span_id.set(span)
            try:
                piece = await anext(stream)
            except StopAsyncIteration:
                return
            finally:
                active_span_id.reset(token)
            yield piece
    finally:
        if hasattr(stream, "aclose"):
            await stream.aclose()
