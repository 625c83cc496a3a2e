"""What the router's sync and async ways have in common: drafts of a stream, batches, the telling.

It drives Courses; it neither judges nor calls a runnable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, cast

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import Runnable, RunnableConfig

from bitcal_integrations.langchain._course import EVENT, Course, Given
from bitcal_integrations.langchain._run import is_control, may_tell


def told(course: Course) -> Given:
    """What the router gives, and told to whoever listens."""
    given = course.given()
    dispatch_custom_event(EVENT, given.event, config=course.config)
    return given


async def atold(course: Course) -> Given:
    given = course.given()
    await adispatch_custom_event(EVENT, given.event, config=course.config)
    return given


def or_error(course: Course) -> Any:
    """The output, or the error that stands in its place in a batch."""
    try:
        return told(course).output
    except Exception as error:
        if is_control(error):
            raise
        return error


async def aor_error(course: Course) -> Any:
    try:
        return (await atold(course)).output
    except Exception as error:
        if is_control(error):
            raise
        return error


class Many:
    """The courses of a batch. All items that are still on their way are at the same runnable.

    `halt` raises the first error that is not to be handled; otherwise it waits in `broken`.
    """

    def __init__(self, courses: Sequence[Course], halt: bool) -> None:
        self.courses, self.halt = courses, halt
        self.broken: dict[int, Exception] = {}

    def asked(self) -> list[int]:
        """The items whose answer is still to be asked for."""
        return [
            i for i, c in enumerate(self.courses) if c.next is not None and i not in self.broken
        ]

    def branches(self, asked: Sequence[int]) -> tuple[Runnable[Any, Any], list[RunnableConfig]]:
        """The runnable that they are at, and the config of each."""
        pairs = [self.courses[i].branch() for i in asked]
        return pairs[0][0], [config for _, config in pairs]

    def settle(self, asked: Sequence[int], outputs: Sequence[Any]) -> None:
        """Take what the runnable's batch gave for each of them: an output or an exception."""
        for i, output in zip(asked, outputs, strict=True):
            if not isinstance(output, Exception):
                self.courses[i].take(output)
                continue
            try:
                self.courses[i].failed(output)
            except Exception as error:
                if self.halt or is_control(error):
                    raise
                self.broken[i] = error


class Draft:
    """The chunks of one attempt; `show` says whether this one may be shown at once.

    From the chunk on into which the route can be written they are held back, until it is known.
    """

    def __init__(self, live: bool) -> None:
        self.chunks: list[Any] = []
        self._live = live

    def show(self, chunk: Any) -> bool:
        self.chunks.append(chunk)
        self._live = self._live and not may_tell(chunk)
        return self._live


class Closable:
    """An iterator that can be closed, whether or not what it goes through can."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        return cast("Iterator[Any]", iter(self._chunks))

    def __aiter__(self) -> AsyncIterator[Any]:
        return cast("AsyncIterator[Any]", aiter(self._chunks))

    def close(self) -> None:
        if hasattr(self._chunks, "close"):
            self._chunks.close()

    async def aclose(self) -> None:
        if hasattr(self._chunks, "aclose"):
            await self._chunks.aclose()
