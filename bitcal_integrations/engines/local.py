"""One worker thread and one queue round the decode loop: requests share batches.

Requests wait in order; whenever rows leave, the next ones join, as far as the number of rows, the
bytes of keys and values and the tokens of one prefill allow. Running out of memory halves the
batch and tries again. It knows nothing about confidence.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from typing import Any

from bitcal_integrations.decode.batch import Batch
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.engines import _memory
from bitcal_integrations.engines._ticket import Listener, Outcome
from bitcal_integrations.errors import (
    EngineClosed,
    EngineError,
    ForkedProcess,
    OutOfMemory,
    QueueFull,
)
from bitcal_integrations.types import Request, Step, Timing

logger = logging.getLogger(__name__)

MAX_BATCH = 16
MAX_QUEUE = 1024
PREFILL_TOKENS = 8192


class LocalEngine:
    """Answers requests on a model of this process. `close()` ends its worker."""

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
        self._worker = _Worker(net, max_batch, max_queue, budget, prefill_tokens)
        # The thread holds the worker, never the engine: a forgotten engine ends its thread.
        self._finalizer = weakref.finalize(self, self._worker.stop)

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> Job:
        """Queue a request; an error in the request itself is raised here."""
        return self._worker.submit(request, listener, steps)

    def close(self) -> None:
        """End the worker; requests under way get EngineClosed."""
        self._finalizer()

    def report(self) -> dict[str, Any]:
        """Limits and what has happened so far, plain values."""
        return self._worker.report()


class Job:
    """One request in the queue or in the batch."""

    def __init__(self, worker: _Worker, row: Row, listener: Listener, steps: bool) -> None:
        self._worker = weakref.ref(worker)
        self.row = row
        self.cancelled = False
        self.alone = False  # runs by itself, after a batch it was in failed
        self._listener = listener
        self._steps = steps
        self._submitted = time.perf_counter()
        self.started: float | None = None
        self._first: float | None = None

    def cancel(self) -> None:
        self.cancelled = True
        worker = self._worker()
        if worker is not None:
            worker.wake()

    def step(self, step: Step) -> None:
        if self._first is None:
            self._first = time.perf_counter()
        if self._steps:
            self._send(step)

    def finish(self) -> None:
        now, since = time.perf_counter(), self._submitted
        timing = Timing((self.started or now) - since, (self._first or now) - since, now - since)
        try:
            event: Outcome | Exception = Outcome(self.row.generation(), timing)
        except Exception as err:  # the caller's own parser
            event = err
        self._send(event)

    def fail(self, err: Exception) -> None:
        self._send(err)

    def _send(self, event: Step | Outcome | Exception) -> None:
        try:
            self._listener(event)
        except Exception as err:  # its event loop has gone: nobody is waiting
            logger.debug("nobody takes the events of a request any more: %s", err)
            self.cancelled = True


class _Worker:
    """The queue, the batch and the thread that moves rows between them."""

    def __init__(
        self, net: Net, max_batch: int, max_queue: int, kv_bytes: int, prefill_tokens: int
    ) -> None:
        self._net = net
        self._pid = os.getpid()
        self._limit, self._max_queue = max_batch, max_queue
        self._kv_bytes, self._prefill_tokens = kv_bytes, prefill_tokens
        self._kv_per_token = net.kv_bytes_per_token
        self._condition = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._batch = Batch(net)
        self._jobs: dict[int, Job] = {}  # id(row) -> job, for the rows of the batch
        self._stopping = False
        self._largest = self._halved = 0
        self._thread = threading.Thread(target=self._run, name="bitcal-worker", daemon=True)
        self._thread.start()

    # ---- called from any thread --------------------------------------------------------------

    def submit(self, request: Request, listener: Listener, steps: bool) -> Job:
        self._check_open()
        row = Row(self._net, request)
        need = (row.prompt_tokens + row.limit) * self._kv_per_token
        if need > self._kv_bytes:
            raise OutOfMemory(
                f"the request may need {need} bytes of keys and values, "
                f"and {self._kv_bytes} are free"
            )
        job = Job(self, row, listener, steps)
        with self._condition:
            self._check_open()
            if len(self._waiting) >= self._max_queue:
                raise QueueFull(f"{self._max_queue} requests are waiting, which is the limit")
            self._waiting.append(job)
            self._condition.notify()
        return job

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcess(
                f"the model was loaded in process {self._pid} and this is its fork {os.getpid()}"
            )
        if self._stopping:
            raise EngineClosed("the model is closed")

    def wake(self) -> None:
        if os.getpid() == self._pid:
            with self._condition:
                self._condition.notify()

    def stop(self) -> None:
        if os.getpid() != self._pid:
            return  # the thread lives in the parent
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def report(self) -> dict[str, Any]:
        return {
            "batching": self._net.batching,
            "max_batch": self._limit,
            "max_queue": self._max_queue,
            "kv_bytes_budget": self._kv_bytes,
            "kv_bytes_per_token": self._kv_per_token,
            "largest_batch": self._largest,
            "halved_for_memory": self._halved,
        }

    # ---- the worker's own thread -------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self._turn()
        except BaseException as err:  # a fault of ours: nobody may be left waiting
            logger.exception("the worker failed")
            self._abandon(EngineError(f"the worker failed: {err!r}"))
        self._abandon(EngineClosed("the model was closed before the request was answered"))

    def _wait(self) -> bool:
        with self._condition:
            while not (self._stopping or self._waiting or self._batch.rows):
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
        arrivals = self._next_jobs()
        self._start(arrivals)
        try:
            if running:
                self._deliver(self._batch.step())
            self._deliver(self._batch.admit([job.row for job in arrivals]))
        except Exception as err:
            self._recover(err)

    def _start(self, jobs: list[Job]) -> None:
        for job in jobs:
            job.started = job.started or time.perf_counter()
            self._jobs[id(job.row)] = job
        self._largest = max(self._largest, len(self._jobs))

    def _deliver(self, events: list[tuple[Row, Step]]) -> None:
        for row, step in events:
            self._jobs[id(row)].step(step)
        for job in [j for j in self._jobs.values() if j.row.finish is not None]:
            del self._jobs[id(job.row)]
            if job.row.error is not None:
                job.fail(job.row.error)
            else:
                job.finish()

    def _drop_cancelled(self) -> None:
        gone = [job for job in self._jobs.values() if job.cancelled]
        for job in gone:
            job.row.cancel()
        self._batch.remove([job.row for job in gone])
        with self._condition:
            gone += [job for job in self._waiting if job.cancelled]
            if any(job.cancelled for job in self._waiting):
                self._waiting = deque(job for job in self._waiting if not job.cancelled)
        for job in gone:
            self._jobs.pop(id(job.row), None)
            job.row.cancel()
            job.finish()

    def _next_jobs(self) -> list[Job]:
        """The waiting jobs that may join now, in order."""
        chosen: list[Job] = []
        with self._condition:
            while self._waiting and self._fits(chosen, self._waiting[0]):
                chosen.append(self._waiting.popleft())
        return chosen

    def _fits(self, chosen: list[Job], job: Job) -> bool:
        others = [*self._jobs.values(), *chosen]
        if not others:
            return True
        if not self._batch.open or job.alone or any(j.alone for j in others):
            return False
        rows = [*others, job]
        longest = max(j.row.prompt_tokens + j.row.limit for j in rows)
        prefill = max((len(j.row.ids) for j in (*chosen, job)), default=0) * (len(chosen) + 1)
        return (
            len(rows) <= self._limit
            and len(rows) * longest * self._kv_per_token <= self._kv_bytes
            and (prefill <= self._prefill_tokens or not chosen)
        )

    def _recover(self, err: Exception) -> None:
        """After a failed forward: fewer rows if memory ran out, else each row by itself."""
        self._batch.evict()
        _memory.release(self._net.device)
        jobs = list(self._jobs.values())
        self._jobs.clear()
        memory = _memory.is_out_of_memory(err)
        if len(jobs) <= 1 or (self._net.encoder_decoder and any(j.row.steps for j in jobs)):
            for job in jobs:
                job.fail(_explained(err, job.row) if memory else _model_failed(err))
            return
        if memory:
            self._limit, self._halved = max(1, len(jobs) // 2), self._halved + 1
            logger.warning("out of memory with %d rows: going on with %d", len(jobs), self._limit)
        else:
            logger.warning("a batch of %d failed, each request runs by itself: %s", len(jobs), err)
            for job in jobs:
                job.alone = True
        with self._condition:
            self._waiting.extendleft(reversed(jobs))


def _model_failed(err: Exception) -> EngineError:
    failure = EngineError(f"the model failed while generating: {type(err).__name__}: {err}")
    failure.__cause__ = err
    return failure


def _explained(err: Exception, row: Row) -> OutOfMemory:
    failure = OutOfMemory(
        f"memory ran out with this request alone ({row.prompt_tokens} prompt tokens, "
        f"{row.new_tokens} of {row.limit} new tokens)"
    )
    failure.__cause__ = err
    return failure
