"""Many inputs of one model at once: threads or tasks per input, one batch in the model's engine.

Every input keeps its own config, callbacks and error, as `invoke` would give them; the prompts of
all meet in one call of the model. Knows runnables and models that answer lists, no messages.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables.config import ContextThreadPoolExecutor

from bitcal_integrations.errors import EngineError
from bitcal_integrations.types import make_prompt

WIDTH = 128  # threads at most; what one call of the model gets at once
_SLICE_S = 0.5  # a wait without a limit cannot be interrupted on every platform
_CURRENT: ContextVar[Gathering | None] = ContextVar("bitcal_gathering", default=None)


def ask(model: Any, prompt: Any, options: dict[str, Any]) -> Any:
    """The model's Record; inside `gather` the prompts of all threads are asked together."""
    gathering = _CURRENT.get()
    if gathering is None:
        return model.ask(prompt, **options)
    question = _Question(model, make_prompt(prompt), options, Future())
    return question.answer.result() if gathering.take(question) else model.ask(prompt, **options)


def gather(work: Callable[[Any], Any], items: Sequence[Any], width: int | None = None) -> list[Any]:
    """`work(item)` for each item, `width` at a time; the first failure ends all and is raised."""
    if not items:
        return []
    gathering = Gathering(len(items), min(len(items), width or WIDTH))
    token = _CURRENT.set(gathering)
    try:
        return gathering.run(work, items)
    finally:
        _CURRENT.reset(token)


@dataclass(frozen=True)
class _Question:
    model: Any
    prompt: Any
    options: dict[str, Any]
    answer: Future[Any]


class Gathering:
    """Threads hand in prompts and wait; the thread that called `run` asks them all at once."""

    def __init__(self, count: int, width: int) -> None:
        self._left, self._width = count, width
        self._news: queue.SimpleQueue[_Question | Future[Any]] = queue.SimpleQueue()
        self._waiting: list[_Question] = []
        self._lock = threading.Lock()
        self._over = False

    def take(self, question: _Question) -> bool:
        """Take a question in; False for a thread that has outlived all of the gathering's."""
        with self._lock:
            if self._over and self._left:
                raise _cancelled()
            if not self._over:
                self._news.put(question)
            return not self._over

    def run(self, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        with ContextThreadPoolExecutor(max_workers=self._width) as pool:
            futures = [pool.submit(work, item) for item in items]
            for future in futures:
                future.add_done_callback(self._news.put)
            try:
                self._serve()
            finally:  # whatever came in between, such as Ctrl-C: no thread may wait for ever
                for future in futures:
                    future.cancel()
                self._close()
        return [future.result() for future in futures]

    def _serve(self) -> None:
        """Ask once every thread that runs is waiting, until all have ended."""
        while self._left:
            try:
                news = self._news.get(timeout=_SLICE_S)
            except queue.Empty:
                continue
            if isinstance(news, _Question):
                self._waiting.append(news)
            else:
                self._left -= 1
                if (error := news.exception()) is not None:
                    raise error
            if self._waiting and len(self._waiting) >= min(self._left, self._width):
                self._answer()

    def _answer(self) -> None:
        """Ask the questions with equal options; others wait for the next turn."""
        first = self._waiting[0]
        same = [q for q in self._waiting if q.model is first.model and q.options == first.options]
        try:
            prompts = [question.prompt for question in same]
            results = first.model.ask(prompts, return_errors=True, **first.options)
        except Exception as error:
            results = [error] * len(same)
        for question, result in zip(same, results, strict=True):
            if isinstance(result, Exception):
                question.answer.set_exception(result)
            else:
                question.answer.set_result(result)
            self._waiting.remove(question)  # only now: Ctrl-C in between must not lose it

    def _close(self) -> None:
        with self._lock:
            self._over = True
        while not self._news.empty():
            if isinstance(news := self._news.get(), _Question):
                self._waiting.append(news)
        for question in self._waiting:
            if question.answer.done():
                continue
            question.answer.set_exception(_cancelled())


def _cancelled() -> EngineError:
    return EngineError("cancelled with the rest of its batch", "")


async def agather(
    work: Callable[[Any], Any], items: Sequence[Any], width: int | None = None
) -> list[Any]:
    """`await work(item)` for each item; after a failure or a cancellation none goes on."""
    limit = asyncio.Semaphore(width or max(len(items), 1))

    async def one(item: Any) -> Any:
        async with limit:
            return await work(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
