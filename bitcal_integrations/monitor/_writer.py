"""One thread that writes Records to a store, so that no answer waits for a database.

`put` only appends to a bounded queue. What is put is committed within a fraction of a second;
while the store cannot be written it is kept and tried again, and when the queue is full the new
ones are dropped and counted. Knows threads, forks and the end of a process; no database.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import random
import sys
import threading
import time
import weakref
from collections import deque
from dataclasses import replace

from bitcal_integrations.monitor._saver import Counts, Item, Keeps, Saver
from bitcal_integrations.types import Record

BATCH = 500  # rows of one transaction
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
PRUNE_SECONDS = 60.0
CLOSE_SECONDS = 5.0


class Writer:
    """Writes what is `put`, in the order it came; the thread starts with the first record."""

    def __init__(
        self,
        store: Keeps,
        interval: float = 0.25,
        max_queue: int = 10_000,
        keep_days: float | None = None,
        keep_rows: int | None = None,
    ) -> None:
        self._store, self._interval, self._max_queue = store, interval, max_queue
        self._keep = (keep_days, keep_rows)
        self._begin_anew()
        _LIVE.add(self)

    def _begin_anew(self) -> None:
        """As at first. A forked process does it too: its parent writes what waited in both."""
        self._queue: deque[Item | threading.Event] = deque()  # an event is that of a flush
        self._wake, self._hurry = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._deadline: float | None = None  # set by close
        self._ended = False
        self._next_prune = 0.0
        self._saver = Saver(self._store)

    # ---- for those who answer ----------------------------------------------------------------

    def put(self, record: Record) -> None:
        """Take a record to be written; it does not wait."""
        if self._deadline is not None or len(self._queue) >= self._max_queue:
            self._saver.dropped()
        else:
            # What is per token is not kept, and would fill the memory while it waits.
            generation = replace(record.generation, steps=(), checkpoints=())
            self._queue.append((time.time(), replace(record, generation=generation)))
        self._awake()
        if self._ended:  # it was closed meanwhile
            self._give_up()

    def _awake(self) -> None:
        if self._thread is None:
            self._start()
        if not self._wake.is_set():
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and self._deadline is None:
                self._thread = threading.Thread(target=self._run, name="bitcal-store", daemon=True)
                self._thread.start()
                if multiprocessing.parent_process() is not None:
                    _at_end_of_child()

    @property
    def counts(self) -> Counts:
        return self._saver.counts

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return sum(not isinstance(item, threading.Event) for item in self._queue.copy())

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything that was put before is written; False when the time is up."""
        if self._ended or (self._thread is None and not self._queue):
            return True
        done = threading.Event()
        self._queue.append(done)
        self._hurry.set()
        self._awake()
        if self._ended:  # it was closed meanwhile
            self._give_up()
        return done.wait(timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what waits and end the thread; what takes longer than `timeout` is given up."""
        with self._lock:
            if self._deadline is None:
                self._deadline = time.monotonic() + timeout
            thread = self._thread
        self._hurry.set()
        self._wake.set()
        if thread is not None:
            thread.join(timeout + 1.0)
        self._ended = True
        self._give_up()

    def _give_up(self) -> None:
        """Count what can be written no more."""
        lost = 0
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, threading.Event):
                item.set()
            else:
                lost += 1
        if lost:
            self._saver.dropped(lost)
            self._saver.tell_lost(lost)

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        retains = any(kept is not None for kept in self._keep)
        while self._deadline is None or self._queue:
            self._wake.wait(max(0.0, self._next_prune - time.monotonic()) if retains else None)
            self._hurry.wait(self._interval)
            self._hurry.clear()
            self._wake.clear()
            while self._queue:
                self._some()
            if retains and time.monotonic() >= self._next_prune:
                gone = self._saver.prune(*self._keep)
                self._next_prune = time.monotonic() + (0.0 if gone else PRUNE_SECONDS)

    def _some(self) -> None:
        """Write the oldest records, as many as one transaction takes, or up to a flush."""
        items: list[Item] = []
        while self._queue and len(items) < BATCH:
            item = self._queue.popleft()
            if isinstance(item, threading.Event):
                self._insist(items)
                item.set()
                return
            items.append(item)
        self._insist(items)

    def _insist(self, items: list[Item]) -> None:
        """Write them, however often it must be tried, until the time after `close` is up."""
        attempt = 0
        while items and not self._saver.save(items, attempt > 0, self._deadline is not None):
            attempt += 1
            self._pause(attempt)
            self._saver.tell_dropped(self._max_queue)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._saver.dropped(len(items))
                self._saver.tell_lost(len(items))
                return
        self._saver.tell_dropped(self._max_queue)

    def _pause(self, attempt: int) -> None:
        """Wait, longer each time and not equally long as others; less if something is urgent."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempt, 10))
        if self._deadline is not None:
            longest = min(longest, max(0.0, self._deadline - time.monotonic()))
        self._hurry.wait(random.uniform(0.2, 1.0) * longest)
        self._hurry.clear()


_LIVE: weakref.WeakSet[Writer] = weakref.WeakSet()


def _close_all() -> None:
    for writer in list(_LIVE):
        writer.close()


def _at_end_of_child() -> None:
    """A process of multiprocessing ends without what atexit was told."""
    from multiprocessing import util

    util.Finalize(None, _close_all, exitpriority=0)


def _after_fork() -> None:
    for writer in list(_LIVE):
        writer._begin_anew()


atexit.register(_close_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
