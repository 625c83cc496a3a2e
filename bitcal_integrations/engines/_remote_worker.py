"""The thread that talks to a server: one event loop, one client, many requests in flight.

It knows jobs and the client, not what a request asks for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from bitcal_integrations.engines._at_exit import end_at_exit
from bitcal_integrations.engines._remote_errors import (
    BudgetSpent,
    Failed,
    Patience,
    trouble_of,
)
from bitcal_integrations.engines._remote_job import Job
from bitcal_integrations.engines._remote_wire import PATHS
from bitcal_integrations.errors import EngineClosed, EngineError, ForkedProcess, QueueFull

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Budget:
    """How many requests may be sent and tokens spent; None is no bound. A bound on tokens is
    looked at before a request is sent, so what is in flight then may go beyond it."""

    requests: int | None = None
    tokens: int | None = None
    sent: int = 0
    spent: int = 0

    def over(self) -> str:
        """What is used up, in words; empty while there is some left."""
        if self.requests is not None and self.sent >= self.requests:
            return f"the budget of {self.requests} requests is spent"
        if self.tokens is not None and self.spent >= self.tokens:
            return f"the budget of {self.tokens} tokens is spent ({self.spent} were used)"
        return ""


@dataclass(frozen=True)
class Limits:
    """Requests at the server at once, requests that may wait here, attempts, and the budget."""

    in_flight: int
    queue: int
    patience: Patience
    budget: Budget


class Worker:
    """Jobs on their way; `submit` and `close` may be called from any thread."""

    def __init__(
        self, make_client: Callable[[], Any], limits: Limits, where: str, key: str
    ) -> None:
        self.patience = limits.patience
        self._make_client, self._limits, self._where, self._key = make_client, limits, where, key
        self._pid = os.getpid()
        self._lock = threading.RLock()  # garbage collected inside it may stop the worker
        self._jobs: set[Job] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._fault: BaseException | None = None
        self._active = self._most = 0
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bitcal-remote", daemon=True)
        end_at_exit(self)
        self._thread.start()
        self._ready.wait()
        self._check_open()

    # ---- called from any thread ----------------------------------------------------------------

    def submit(self, job: Job) -> Job:
        self._check_open()
        if threading.current_thread() is self._thread:
            raise EngineError(
                "a parser asked the model that it parses for, which would wait for itself",
                "Ask after the answer is there, or use a second model.",
            )
        with self._lock:
            self._check_open()
            if len(self._jobs) >= self._limits.in_flight + self._limits.queue:
                raise QueueFull(f"{self._limits.queue} requests are waiting, which is the limit")
            self._jobs.add(job)
            self._loop.call_soon_threadsafe(self._begin, job)
        return job

    def wake(self, job: Job) -> None:
        """Stop a job that was cancelled; harmless when the loop has ended."""
        with self._lock:
            if os.getpid() == self._pid and not self.ended:
                self._loop.call_soon_threadsafe(job.stop)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedProcess(
                f"the model was loaded in process {self._pid} and this is its fork {os.getpid()}"
            )
        if self._fault is not None:
            raise EngineError(f"the worker failed: {self._fault!r}", "Load the model again.")
        if self._stopping:
            raise EngineClosed("the model is closed")

    @property
    def ended(self) -> bool:
        return self._stopping or self._fault is not None

    def tell_to_stop(self) -> None:
        with self._lock:
            if self._stopping or os.getpid() != self._pid:
                return
            self._stopping = True
            self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        if os.getpid() == self._pid and threading.current_thread() is not self._thread:
            self._thread.join()

    def report(self) -> dict[str, Any]:
        budget = self._limits.budget
        return {
            "max_in_flight": self._limits.in_flight,
            "max_queue": self._limits.queue,
            "max_retries": self.patience.retries,
            "most_in_flight": self._most,
            "requests_sent": budget.sent,
            "tokens_spent": budget.spent,
        }

    # ---- the worker's own thread ---------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as err:  # a fault of ours: nobody may be left waiting
            logger.exception("the worker failed")
            self._fault = err
        with self._lock:
            self._stopping = True
            left = list(self._jobs)
            self._jobs.clear()
        self._ready.set()
        for job in left:
            job.end(EngineError(f"the worker failed: {self._fault!r}"))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._quiet = asyncio.Event(), asyncio.Event()
        self._quiet.set()
        self._slots = asyncio.Semaphore(self._limits.in_flight)
        self._client = self._make_client()
        self._ready.set()
        try:
            await self._stop.wait()
            await asyncio.sleep(0)  # what was submitted before begins, and is then told
            await self._end_all()
        finally:
            await self._client.close()

    async def _end_all(self) -> None:
        for job in list(self._jobs):
            job.closing = EngineClosed("the model was closed before the request was answered")
            job.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _begin(self, job: Job) -> None:
        task = self._loop.create_task(job.run(self))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, job))

    def _ended(self, task: asyncio.Task[None], job: Job) -> None:
        self._tasks.discard(task)
        with self._lock:
            self._jobs.discard(job)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a request failed in the engine itself", exc_info=task.exception())

    # ---- what a job needs (Service) ------------------------------------------------------------

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        async with self._slots:
            if not (spent := self._limits.budget.over()):
                self._limits.budget.sent += 1
                self._active += 1
                self._most = max(self._most, self._active)
                self._quiet.clear()
                try:
                    yield
                finally:
                    self._active -= 1
                    if not self._active:
                        self._quiet.set()
                return
        await self._quiet.wait()  # what is in flight is paid for, so it is taken
        raise BudgetSpent(spent)

    async def post(self, way: str, body: dict[str, Any]) -> AsyncGenerator[Any]:
        from openai import AsyncStream

        try:
            stream = await self._client.post(
                PATHS[way], cast_to=object, body=body, stream=True, stream_cls=AsyncStream[object]
            )
            try:
                async for event in stream:
                    yield event
            finally:
                await self._closed(stream)
        except Exception as err:
            raise Failed(trouble_of(err, self._where, self._key)) from None

    def _closed(self, stream: Any) -> asyncio.Future[None]:
        """Closing to wait for: cancelling the request meanwhile leaves no response half open."""
        task = self._loop.create_task(stream.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return asyncio.shield(task)

    async def get(self, path: str) -> Any:
        """The JSON behind a path."""
        try:
            return await self._client.get(path, cast_to=object)
        except Exception as err:
            raise Failed(trouble_of(err, self._where, self._key)) from None

    def spent(self, tokens: int) -> None:
        self._limits.budget.spent += tokens
