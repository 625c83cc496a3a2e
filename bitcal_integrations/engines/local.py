"""One worker thread and one queue round the decode loop: requests share batches.

Requests wait in order; whenever rows leave, the next ones join, as far as there is room. Running
out of memory makes the batch smaller and tries again; any other failure of a batch makes each of
its requests run by itself, so that it hits only its own. It knows nothing about confidence.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeAlias

from bitcal_integrations.decode.batch import Batch
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.engines import _memory
from bitcal_integrations.engines._at_exit import end_at_exit
from bitcal_integrations.engines._failures import failure_of, is_out_of_memory
from bitcal_integrations.engines._job import Job
from bitcal_integrations.engines._room import Room
from bitcal_integrations.engines._ticket import Listener
from bitcal_integrations.errors import (
    EngineClosed,
    EngineError,
    ForkedProcess,
    OutOfMemory,
    QueueFull,
)
from bitcal_integrations.types import Request

logger = logging.getLogger(__name__)

Asked: TypeAlias = "Sequence[tuple[Request, Listener]]"
MAX_BATCH = 16
MAX_QUEUE = 1024
PREFILL_TOKENS = 8192


class LocalEngine:
    """Answers requests on a model of this process. `close()` ends its worker."""

    stops_early = True  # a row's cache can be put back, which trial answers need

    def __init__(
        self,
        net: Net,
        *,
        max_batch: int = MAX_BATCH,
        max_queue: int = MAX_QUEUE,
        kv_bytes: int | None = None,
        prefill_tokens: int = PREFILL_TOKENS,
    ) -> None:
        budget = _memory.kv_budget(net.device) if kv_bytes is None else kv_bytes
        max_batch = min(max_batch, net.max_rows or max_batch)
        room = Room(max_batch, budget, net.kv_bytes_per_token, prefill_tokens)
        self._worker = _Worker(net, room, max_queue)
        self.layer_of = net.layer_of
        # The thread holds the worker, never the engine, so a forgotten engine ends its thread.
        # Not by joining: garbage may be collected while the worker's own lock is held.
        weakref.finalize(self, self._worker.tell_to_stop)

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> Job:
        """Queue a request; an error in the request itself is raised here."""
        (found,) = self.submit_all([(request, listener)], steps)
        if isinstance(found, Exception):
            raise found
        return found

    def submit_all(self, asked: Asked, steps: bool = True) -> list[Job | Exception]:
        """Queue several requests at one moment, each with its ticket or why it is refused.

        On an engine that does nothing else they meet in the same batches each time, so that they
        get the very same numbers, which depend on the batch where floats are short.
        """
        return self._worker.submit(asked, steps)

    def close(self) -> None:
        """End the worker; requests under way get EngineClosed."""
        self._worker.tell_to_stop()
        self._worker.join()

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: closed, or its worker failed."""
        return self._worker.ended

    @property
    def context(self) -> int | None:
        """The tokens that a prompt and its answer may have together; None without a limit."""
        return self._worker.context

    def report(self) -> dict[str, Any]:
        """Limits and what has happened so far, plain values."""
        return self._worker.report()


class _Worker:
    """The queue, the batch and the thread that moves rows between them."""

    def __init__(self, net: Net, room: Room, max_queue: int) -> None:
        self._net, self._room, self._max_queue = net, room, max_queue
        self._pid = os.getpid()
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._batch = Batch(net)
        self._jobs: dict[int, Job] = {}  # id(row) -> job, for the rows that run
        self._stopping = False
        self._fault: Exception | None = None
        self._largest = 0
        self._thread = threading.Thread(target=self._run, name="bitcal-worker", daemon=True)
        end_at_exit(self)
        self._thread.start()

    # ---- called from any thread --------------------------------------------------------------

    def submit(self, asked: Asked, steps: bool) -> list[Job | Exception]:
        self._check_open()
        if threading.current_thread() is self._thread:
            raise EngineError(
                "a parser asked the model that it parses for, which would wait for itself",
                "Ask after the answer is there, or use a second model.",
            )
        found = [self._job(request, listener, steps) for request, listener in asked]
        with self._condition:
            self._check_open()
            for at, job in enumerate(found):
                if isinstance(job, Job) and len(self._waiting) >= self._max_queue:
                    full = f"{self._max_queue} requests are waiting, which is the limit"
                    found[at] = QueueFull(full)
                elif isinstance(job, Job):
                    self._waiting.append(job)
            self._condition.notify()
        return found

    def _job(self, request: Request, listener: Listener, steps: bool) -> Job | Exception:
        try:
            job = Job(Row(self._net, request), listener, steps, self._wake)
        except Exception as err:  # of one request, which is told of it
            return err
        need, free = self._room.bytes_needed(job.cells), self._room.kv_bytes
        if need > free:
            return OutOfMemory(
                f"the request may need {need} bytes of keys and values, and {free} are free"
            )
        return job

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcess(
                f"the model was loaded in process {self._pid} and this is its fork {os.getpid()}"
            )
        if self._fault is not None:
            raise EngineError(str(self._fault), "Load the model again.")
        if self._stopping:
            raise EngineClosed("the model is closed")

    def _wake(self) -> None:
        if os.getpid() == self._pid:
            with self._condition:
                self._condition.notify()

    @property
    def ended(self) -> bool:
        return self._stopping or self._fault is not None

    @property
    def context(self) -> int | None:
        return self._net.context

    def tell_to_stop(self) -> None:
        self._stopping = True
        self._wake()

    def join(self) -> None:
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join()

    def report(self) -> dict[str, Any]:
        return {
            "batching": self._net.batching,
            "max_queue": self._max_queue,
            **self._room.report(),
            "largest_batch": self._largest,
        }

    # ---- the worker's own thread -------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self._turn()
        except BaseException as err:  # a fault of ours: nobody may be left waiting
            logger.exception("the worker failed")
            self._fault = EngineError(f"the worker failed: {err!r}")
        self._abandon(
            self._fault or EngineClosed("the model was closed before the request was answered")
        )

    def _wait(self) -> bool:
        with self._condition:
            while not (self._stopping or self._waiting or self._jobs):
                self._condition.wait()
            return not self._stopping

    def _abandon(self, err: Exception) -> None:
        with self._condition:
            self._stopping = True
            left = [*self._jobs.values(), *self._waiting]
            self._waiting.clear()
        self._jobs.clear()
        self._batch.evict()
        for job in left:
            job.fail(err)

    def _turn(self) -> None:
        """Let rows go, let rows in, and one step for those that were there."""
        self._drop_cancelled()
        running = bool(self._batch.rows)
        arrivals = self._let_in()
        try:
            if running:
                self._batch.step()
                self._deliver()
            self._batch.admit([job.row for job in arrivals])
            self._deliver()
            self._room.good_turn()
        except Exception as err:
            self._recover(err, alone=len(self._jobs) == 1)

    def _deliver(self) -> None:
        """Send what the rows have gained; let the finished ones go."""
        for job in list(self._jobs.values()):
            job.send_steps()
            if job.row.finish is not None:
                del self._jobs[id(job.row)]
                job.end()

    def _drop_cancelled(self) -> None:
        with self._condition:
            gone = [job for job in (*self._jobs.values(), *self._waiting) if job.cancelled]
            if gone:
                self._waiting = deque(job for job in self._waiting if not job.cancelled)
        for job in gone:
            job.row.cancel()
            self._jobs.pop(id(job.row), None)
        try:
            self._batch.remove([job.row for job in gone])
        except Exception as err:
            self._recover(err, alone=False)
        for job in gone:
            job.end()

    def _let_in(self) -> list[Job]:
        """Move the waiting jobs that may join now to the running ones, in order."""
        arrivals: list[Job] = []
        with self._condition:
            while self._waiting and (self._batch.open or not self._jobs):
                job = self._waiting[0]
                if not self._room.fits([*self._jobs.values()], arrivals, job):
                    break
                self._jobs[id(job.row)] = self._waiting.popleft()
                arrivals.append(job)
                job.start()
        self._largest = max(self._largest, len(self._jobs))
        return arrivals

    def _recover(self, err: Exception, alone: bool) -> None:
        """After a failed forward: a smaller batch if memory ran out, else each row by itself.

        A job that was alone in it fails.
        """
        traceback.clear_frames(err.__traceback__)  # they hold the cache and the activations
        self._batch.evict()
        _memory.release(self._net.device)
        self._deliver()
        jobs = list(self._jobs.values())
        self._jobs.clear()
        memory = is_out_of_memory(err)
        if alone and jobs:
            jobs[0].fail(failure_of(err, jobs[0].row))
            return
        if self._net.encoder_decoder:  # its rows cannot go on where they were
            for job in [job for job in jobs if job.row.steps]:
                jobs.remove(job)
                job.fail(failure_of(err, job.row))
        if memory and jobs:
            logger.warning("out of memory with %d rows", len(jobs))
            self._room.shrink(jobs)
        elif jobs:
            logger.warning("a batch of %d failed, each request runs by itself: %s", len(jobs), err)
            for job in jobs:
                job.alone = True
        with self._condition:
            self._waiting.extendleft(reversed(jobs))
