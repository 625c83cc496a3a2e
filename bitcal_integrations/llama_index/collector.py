"""The Records of the answers that were given while a block of code ran, task by task.

A ContextVar tells BitCalLLM whom to tell, so queries under way at once never mix: a task, and
every task, loop or worker thread that LlamaIndex starts with a copy of its context, has its own.
A call is written down when it starts, so a stream that is read later still counts for the query
that asked it. It knows Records, nothing of engines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import ref

from bitcal_integrations.types import Record

_current: ContextVar[Collector | None] = ContextVar("bitcal_collector", default=None)


class Call:
    """One call of a model, from its start; `end` it with its Record, or with None and the error.

    `about` is what else `bitcal` is to say of the answer, such as the route to it.

    Ending it twice changes nothing, so a stream may end it in its `finally`.
    """

    def __init__(self, collectors: tuple[Collector, ...]) -> None:
        self.record: Record | None = None
        self.error: BaseException | None = None
        self.about: dict[str, Any] = {}
        self._ended = False
        self._stream: Callable[[], Any] | None = None
        self._collectors = collectors

    def reading(self, stream: Any) -> None:
        """The generator that is to end it: one closed or dropped before it began never does."""
        self._stream = ref(stream)

    @property
    def ended(self) -> bool:
        """Whether nothing can come any more."""
        if self._ended or self._stream is None:
            return self._ended
        stream = self._stream()
        return getattr(stream, "gi_frame", getattr(stream, "ag_frame", None)) is None

    def end(self, record: Record | None, error: BaseException | None = None, **about: Any) -> None:
        if self._ended:
            return
        self.record, self.error, self.about, self._ended = record, error, about, True
        for collector in self._collectors:
            collector._changed()


class Collector:
    """The calls of one block, in the order they started."""

    def __init__(self, outer: Collector | None = None) -> None:
        self.outer = outer
        self._calls: list[Call] = []
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def calls(self) -> tuple[Call, ...]:
        """What has been asked so far, answered or not."""
        with self._lock:
            return tuple(self._calls)

    @property
    def records(self) -> tuple[Record, ...]:
        """What has been answered so far."""
        return tuple(call.record for call in self.calls if call.record is not None)

    @property
    def open(self) -> bool:
        """Whether a call is under way, such as a stream that nobody has read to its end."""
        return any(not call.ended for call in self.calls)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher()` whenever a call ends, from the thread it ends in."""
        self._watchers.append(watcher)

    def start(self) -> Call:
        """A call begins; the collectors around this one see it too."""
        collectors, at = [self], self.outer
        while at is not None:
            collectors.append(at)
            at = at.outer
        call = Call(tuple(collectors))
        for collector in collectors:
            with collector._lock:
                collector._calls.append(call)
        return call

    def _changed(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()


@contextmanager
def collect(hide: bool = False) -> Iterator[Collector]:
    """The answers given inside the block.

    Blocks may nest, and the outer one sees what the inner one sees. With `hide` it does not: for
    code that asks several models and keeps one answer, which it then reports with `note`.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> record = ToyModel({"2+2?": ("4", 0.9)}).ask("2+2?")
    >>> with collect() as outer:
    ...     note(record)
    ...     with collect(hide=True) as inner:
    ...         note(record)
    >>> len(outer.records), len(inner.records)
    (1, 1)
    """
    collector = Collector(None if hide else _current.get())
    with seen_by(collector):
        yield collector


@contextmanager
def seen_by(collector: Collector) -> Iterator[None]:
    """Calls inside the block are this collector's: for what is left of a query, such as a stream
    that asks its LLM only when it is read."""
    token = _current.set(collector)
    try:
        yield
    finally:
        _current.reset(token)


def start_call() -> Call:
    """A call begins in this context; without a collector around it nobody is told."""
    collector = _current.get()
    return collector.start() if collector is not None else Call(())


def note(record: Record, **about: Any) -> None:
    """Tell the collector of this context, if any, about an answer."""
    start_call().end(record, **about)


__all__ = ["Call", "Collector", "collect", "note", "seen_by", "start_call"]
