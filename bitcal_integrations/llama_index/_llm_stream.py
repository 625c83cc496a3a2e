"""The stream of a ConfidenceFallbackLLM: drafts are held back until they are judged.

No context variable is changed across a `yield`, so what the reader of a stream asks meanwhile
stays the reader's own. Knows chunks and the Cascade; which llm and which call is its caller's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    aclosing,
    closing,
    nullcontext,
)
from typing import TYPE_CHECKING, Any

from bitcal_integrations.chains.cascade import Cascade
from bitcal_integrations.llama_index._course import failed, given
from bitcal_integrations.llama_index._records import as_mapping, confidence_keys
from bitcal_integrations.llama_index.collector import collect, start_call
from bitcal_integrations.types import Record

if TYPE_CHECKING:
    from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM

AsAnswer = Callable[[str], Any]


class Drafts:
    """One streamed question: the chunks of each llm so far, and whose are given."""

    def __init__(self, fallback: ConfidenceFallbackLLM, as_answer: AsAnswer) -> None:
        self.fallback, self.as_answer = fallback, as_answer
        self.cascade, self._live = fallback._streaming_cascade()
        self.chunks: dict[int, list[Any]] = {}
        self.record: Record | None = None
        self.call = start_call()

    @property
    def held(self) -> int | None:
        """Which llm to ask with its answer held back; None when none is, or the next is live."""
        index = self.cascade.next
        return None if index is None or self.live is not None else index

    @property
    def live(self) -> int | None:
        """Which llm to show as it answers: the last one, where its answer is given anyhow."""
        last = len(self.fallback.llms) - 1
        return last if self._live and self.cascade.next == last else None

    def took(self, index: int, chunks: list[Any]) -> None:
        """The whole answer of llm `index`, or at least its last chunk."""
        self.chunks[index] = chunks or [self.as_answer("")]
        self.cascade.judge(self.fallback._record(index, self.chunks[index][-1]))

    def replay(self) -> Iterator[Any]:
        """The chunks of the answer that is given; the last one says all about it."""
        outcome = self.cascade.outcome()
        self.record = given(self.cascade, outcome)
        if outcome.index is None:
            chunks = [self.as_answer(outcome.text or "")]
        else:
            chunks = self.chunks[outcome.index]
            yield from (marked(chunk, outcome.index) for chunk in chunks[:-1])
        yield routed(chunks[-1], self.record, self.cascade)

    def ended(self) -> Any:
        """The chunk behind a live answer: no more text, and all about it."""
        self.record = given(self.cascade, self.cascade.outcome())
        last = self.chunks[max(self.chunks)][-1].model_copy(update={"delta": ""})
        return routed(last, self.record, self.cascade)


def drafts(fallback: ConfidenceFallbackLLM, start: Callable[[Any], Any], as_answer: Any) -> Any:
    """Every chunk of the answer that is given; `start(llm)` opens one llm's stream."""
    course = Drafts(fallback, as_answer)
    reading = _drafts(course, start)
    course.call.reading(reading)
    return reading


def _drafts(course: Drafts, start: Callable[[Any], Any]) -> Iterator[Any]:
    llms = course.fallback.llms
    try:
        while (index := course.held) is not None:
            try:
                with collect(hide=True):
                    chunks = list(start(llms[index]))
            except Exception as error:
                failed(course.cascade, error)
            else:
                course.took(index, chunks)
        live = course.live
        yield from course.replay() if live is None else _live(course, start, live)
    except Exception as error:
        course.call.end(None, error)
        raise
    finally:
        course.call.end(course.record, route=course.cascade.provenance())


def _live(course: Drafts, start: Callable[[Any], Any], index: int) -> Iterator[Any]:
    try:
        with collect(hide=True):
            stream = start(course.fallback.llms[index])
            chunk = next(stream, None)
    except Exception as error:
        failed(course.cascade, error)
        yield from course.replay()
        return
    last = []
    with _closing(stream):
        while chunk is not None:
            last = [chunk]
            yield marked(chunk, index)
            chunk = next(stream, None)
    course.took(index, last)
    yield course.ended()


def adrafts(
    fallback: ConfidenceFallbackLLM, start: Callable[[Any], Awaitable[Any]], as_answer: Any
) -> Any:
    """`drafts` for an event loop."""
    course = Drafts(fallback, as_answer)
    reading = _adrafts(course, start)
    course.call.reading(reading)
    return reading


async def _adrafts(course: Drafts, start: Callable[[Any], Awaitable[Any]]) -> AsyncIterator[Any]:
    llms = course.fallback.llms
    try:
        while (index := course.held) is not None:
            try:
                with collect(hide=True):
                    stream = await start(llms[index])
                    async with _aclosing(stream):
                        chunks = [chunk async for chunk in stream]
            except Exception as error:
                failed(course.cascade, error)
            else:
                course.took(index, chunks)
        live = course.live
        if live is None:
            for chunk in course.replay():
                yield chunk
            return
        async with aclosing(_alive(course, start, live)) as shown:
            async for chunk in shown:
                yield chunk
    except Exception as error:
        course.call.end(None, error)
        raise
    finally:
        course.call.end(course.record, route=course.cascade.provenance())


async def _alive(course: Drafts, start: Callable[[Any], Any], index: int) -> Any:
    try:
        with collect(hide=True):
            stream = await start(course.fallback.llms[index])
            chunk = await anext(stream, None)
    except Exception as error:
        failed(course.cascade, error)
        for chunk in course.replay():
            yield chunk
        return
    last = []
    async with _aclosing(stream):
        while chunk is not None:
            last = [chunk]
            yield marked(chunk, index)
            chunk = await anext(stream, None)
    course.took(index, last)
    yield course.ended()


def _closing(stream: Any) -> AbstractContextManager[Any]:
    return closing(stream) if hasattr(stream, "close") else nullcontext()


def _aclosing(stream: Any) -> AbstractAsyncContextManager[Any]:
    return aclosing(stream) if hasattr(stream, "aclose") else nullcontext()


def routed(answer: Any, record: Record, cascade: Cascade) -> Any:
    """A copy of an llm's answer with its confidence and the route in `raw`."""
    keys = confidence_keys(record, route=cascade.provenance())
    raw = as_mapping(answer.raw)
    if isinstance(raw.get("bitcal"), dict):  # what else the llm says there: fields, tool calls
        keys["bitcal"] = {**raw["bitcal"], **keys["bitcal"]}
    return answer.model_copy(update={"raw": {**raw, **keys}})


def marked(chunk: Any, index: int) -> Any:
    """A copy of a chunk that says whose it is: agents read tool calls from every chunk."""
    raw = as_mapping(chunk.raw)
    inner = raw.get("bitcal") if isinstance(raw.get("bitcal"), dict) else {}
    route = {"route": {"chosen": index}}
    return chunk.model_copy(update={"raw": {**raw, "bitcal": {**(inner or {}), **route}}})
