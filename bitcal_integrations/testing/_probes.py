"""Looks into a running torch model: counts its forwards, holds them, or makes them fail.

For tests of anything that generates with the model, whatever runs it; knows no framework.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_S = 60.0  # longer than any step takes on a busy machine
QUIET_S = 0.5  # a model that goes on shows it within this time


class Probe:
    """What is known about the forwards of one model while it is watched."""

    def __init__(self) -> None:
        self.inputs: list[list[int]] = []
        self._condition = threading.Condition()
        self._allowed: int | None = None

    @property
    def forwards(self) -> int:
        return len(self.inputs)

    def hold(self, allowed: int = 0) -> None:
        """Let this many forwards through from here on; the next ones wait."""
        with self._condition:
            self._allowed = len(self.inputs) + allowed

    def release(self) -> None:
        with self._condition:
            self._allowed = None
            self._condition.notify_all()

    def wait_for(self, forwards: int, seconds: float = PATIENCE_S) -> bool:
        """Whether this many forwards have begun, now or within the time."""
        with self._condition:
            return self._condition.wait_for(lambda: len(self.inputs) >= forwards, seconds)

    def enter(self, ids: Any) -> None:
        with self._condition:
            self.inputs.append([] if ids is None else [int(i) for i in ids[0].tolist()])
            number = len(self.inputs)
            self._condition.notify_all()
            free = lambda: self._allowed is None or number <= self._allowed  # noqa: E731
            self._condition.wait_for(free, PATIENCE_S)


@contextmanager
def watched(model: Any, error: Exception | None = None) -> Iterator[Probe]:
    """Watch the forwards of a torch model; with `error` each of them raises it."""
    probe, forward, own = Probe(), model.forward, vars(model).get("forward")

    @functools.wraps(forward)
    def patched(*args: Any, **kwargs: Any) -> Any:
        probe.enter(kwargs.get("input_ids", args[0] if args else None))
        if error is not None:
            raise error
        return forward(*args, **kwargs)

    model.forward = patched
    try:
        yield probe
    finally:
        probe.release()
        del model.forward  # the class's own shows again
        if own is not None:
            model.forward = own


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` gives or raises; TimeoutError if it is not done in time, as when it hangs."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append((work(), None))
        except BaseException as err:
            done.append((None, err))

    thread = threading.Thread(target=run, daemon=True)  # what hangs must not hold up the tests
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError(f"nothing came within {seconds:.0f} s")
    result, err = done[0]
    if err is not None:
        raise err
    return result
