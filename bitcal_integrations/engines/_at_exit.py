"""Workers that must end before the interpreter is taken down. It keeps none of them alive."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol


class Worker(Protocol):
    def tell_to_stop(self) -> None: ...

    def join(self) -> None: ...


_WORKERS: weakref.WeakSet[Worker] = weakref.WeakSet()


def end_at_exit(worker: Worker) -> None:
    """A thread must not be inside a model when its modules go."""
    _WORKERS.add(worker)


@atexit.register
def _stop_all() -> None:
    for worker in list(_WORKERS):
        worker.tell_to_stop()
    for worker in list(_WORKERS):
        worker.join()
