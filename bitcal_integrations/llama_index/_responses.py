"""Reading an engine's response to its end and giving it out again, streamed or not.

Knows the four response types of LlamaIndex, no engine and no confidence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)

Ended = Callable[[str | None, BaseException | None], None]


@dataclass(frozen=True)
class Held:
    """A response that was read: as it came, its whole text, and the pieces it was streamed in."""

    response: Any
    whole: Any
    pieces: tuple[str, ...] = ()

    def again(self, whole: Any) -> Any:
        """A response like the one that came, with the metadata of `whole`."""
        if isinstance(self.response, StreamingResponse):
            return dataclasses.replace(
                self.response, response_gen=_live(self.pieces), response_txt=None,
                metadata=whole.metadata,
            )  # fmt: skip
        if isinstance(self.response, AsyncStreamingResponse):
            return dataclasses.replace(
                self.response, response_gen=_alive(self.pieces), response_txt=None,
                metadata=whole.metadata,
            )  # fmt: skip
        return whole


def streams(response: Any) -> bool:
    """Whether its text is still to come."""
    kinds = (StreamingResponse, AsyncStreamingResponse)
    return isinstance(response, kinds) and response.response_txt is None


def hold(response: Any) -> Held:
    """Read a response to its end; the metadata is taken after that, when it is filled."""
    if isinstance(response, StreamingResponse):
        pieces = (
            tuple(response.response_gen)
            if response.response_txt is None
            else (response.response_txt,)
        )
        return _held(response, pieces)
    return Held(response, response)


async def ahold(response: Any) -> Held:
    """`hold` for an event loop; it reads either kind of stream."""
    if isinstance(response, AsyncStreamingResponse):
        return _held(response, tuple([p async for p in response.async_response_gen()]))
    return hold(response)


def _held(response: Any, pieces: tuple[str, ...]) -> Held:
    whole = Response("".join(pieces), response.source_nodes, response.metadata)
    return Held(response, whole, pieces)


def said_like(response: Any, text: str, metadata: dict[str, Any]) -> Any:
    """A sentence in the shape of a response that came: streamed where that was."""
    if isinstance(response, StreamingResponse):
        return StreamingResponse(_live((text,)), metadata=metadata)
    if isinstance(response, AsyncStreamingResponse):
        return AsyncStreamingResponse(_alive((text,)), metadata=metadata)
    return Response(text, metadata=metadata)


def fill(
    response: Any,
    complete: Callable[[Any], Any],
    left: Callable[[BaseException | None], None],
    meanwhile: Mapping[str, Any],
) -> Any:
    """`complete(response)`, which puts something into the metadata of a whole response.

    A stream is passed on as it comes, its metadata holds `meanwhile` and is completed when the
    stream has been read to its end; `left` is called where it was not, with what it failed with.
    """
    if not streams(response):
        return complete(response)

    def ended(text: str | None, error: BaseException | None) -> None:
        if text is None:
            left(error)
        else:
            whole = Response(text, response.source_nodes, response.metadata)
            shown.metadata.update(complete(whole).metadata)

    if isinstance(response, StreamingResponse):
        stream: Any = _relay(response.response_gen, ended)
    else:
        stream = _arelay(response.async_response_gen(), ended)
    metadata = {**(response.metadata or {}), **meanwhile}
    shown: Any = dataclasses.replace(response, response_gen=stream, metadata=metadata)
    return shown


def _relay(stream: Iterator[str], ended: Ended) -> Iterator[str]:
    text: str | None = None
    error: BaseException | None = None
    pieces = []
    try:
        for piece in stream:
            pieces.append(piece)
            yield piece
        text = "".join(pieces)
    except BaseException as err:
        error = err
        raise
    finally:
        if text is None and hasattr(stream, "close"):
            stream.close()
        ended(text, error)


async def _arelay(stream: AsyncIterator[str], ended: Ended) -> AsyncIterator[str]:
    text: str | None = None
    error: BaseException | None = None
    pieces = []
    try:
        async for piece in stream:
            pieces.append(piece)
            yield piece
        text = "".join(pieces)
    except BaseException as err:
        error = err
        raise
    finally:
        if text is None and hasattr(stream, "aclose"):
            await stream.aclose()
        ended(text, error)


def _live(pieces: tuple[str, ...]) -> Generator[str, None, None]:
    yield from pieces


async def _alive(pieces: tuple[str, ...]) -> AsyncGenerator[str, None]:
    for piece in pieces:
        yield piece
