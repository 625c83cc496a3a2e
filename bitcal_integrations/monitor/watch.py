"""Keep every answer of a model: `watch(model, "sqlite:///records.db")`.

It joins a model's sinks with a store's writer and with OpenTelemetry. An answer never waits for
it and is never lost through it: trouble is told through logging, and `report()` counts it. Knows
what offers `add_sink`, or holds something that does; what is kept is the business of the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor._writer import CLOSE_SECONDS, Writer
from bitcal_integrations.monitor.spans import span_sink
from bitcal_integrations.types import Record

if TYPE_CHECKING:
    from bitcal_integrations.monitor.store import Store

# Under which names the adapters of frameworks hold the model that answers.
LONGEST_INTERVAL = 3600  # seconds
HANDLES = ("calibrated_model", "calibrated")

__all__ = ["Watch", "watch"]


def watch(
    model: Any,
    store: str | os.PathLike[str] | Store,
    *,
    text: bool | None = None,
    keep_days: float | None = None,
    keep_rows: int | None = None,
    max_queue: int = 10_000,
    interval: float = 0.25,
    spans: str | None = "own",
) -> Watch:
    """Write every answer of a model to a store, which is made where there is none.

    `model` is a loaded model, a chat model or llm of our adapters (all that share its loaded model
    are seen), a list of them, or None for what is given to `Watch.see`. `store` is a path,
    "sqlite:///FILE", "postgresql://USER@HOST/NAME" or a Store. `text=False` keeps no text, only
    numbers and hashes. Older records than `keep_days`, or more than `keep_rows`, are taken away.
    Answers are committed every `interval` seconds; up to `max_queue` may wait, then new ones are
    dropped and counted. `spans` is where OpenTelemetry is told: "own", "current" or None.
    """
    _check_bounds(max_queue=(max_queue, 1), interval=(interval, 0))
    _check_bounds(keep_days=(keep_days, 0), keep_rows=(keep_rows, 0))
    if interval > LONGEST_INTERVAL:
        raise BadRequest(f"interval={interval!r} is not allowed: {LONGEST_INTERVAL} s at most")
    if keep_rows is not None and not isinstance(keep_rows, int):
        raise BadRequest(f"keep_rows={keep_rows!r} is not allowed: it must be a whole number")
    models = [_with_sinks(one) for one in _listed(model)]
    told = span_sink(spans)
    from bitcal_integrations.monitor.store import Store

    opened = store if isinstance(store, Store) else Store(store, create=True, text=text)
    writer = Writer(opened, interval, max_queue, keep_days, keep_rows)
    return Watch(models, opened, writer, told, close_store=opened is not store)


class Watch:
    """What `watch` began; use it in a `with` block, or call `close()`. It ends with the process."""

    def __init__(
        self,
        models: Sequence[Any],
        store: Store,
        writer: Writer,
        spans: Callable[[Record], None] | None,
        close_store: bool,
    ) -> None:
        self.store = store
        self._writer, self._spans, self._close_store = writer, spans, close_store
        self._removals: list[Callable[[], Any]] = [model.add_sink(self.see) for model in models]

    def see(self, record: Record) -> None:
        """Keep one more record; the watched models call it, and so may any other.

        A record that is kept already and comes with a decision gets the decision: a handler of the
        adapters that has `sink=watch.see` tells what became of each answer.
        """
        self._writer.put(record)
        if self._spans is not None:
            self._spans(record)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until what was seen so far is in the store; False if `timeout` seconds were not
        enough."""
        return self._writer.flush(timeout)

    def report(self) -> dict[str, Any]:
        """How many records were written, wait, were dropped, could not be kept or were taken
        away, and why nothing can be written just now (None if it can)."""
        counts = self._writer.counts
        return {
            "store": self.store.url,
            "written": counts.written,
            "waiting": self._writer.waiting,
            "dropped": counts.dropped,
            "unwritable": counts.unwritable,
            "pruned": counts.pruned,
            "trouble": counts.trouble,
        }

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """See no more answers and write what waits; what takes longer is dropped and counted."""
        while self._removals:
            self._removals.pop()()
        self._writer.close(timeout)
        if self._close_store:
            self.store.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Watch({self.store.url!r})"


def _check_bounds(**bounds: tuple[float | None, int]) -> None:
    for name, (value, least) in bounds.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and value >= least):
            raise BadRequest(
                f"{name}={value!r:.50} is not allowed: it must be a number of at least {least}"
            )


def _listed(model: Any) -> list[Any]:
    if model is None:
        return []
    return list(model) if isinstance(model, (list, tuple)) else [model]


def _with_sinks(model: Any) -> Any:
    """The model itself, or the one that an adapter's object holds."""
    for found in (model, *(getattr(model, name, None) for name in HANDLES)):
        if callable(getattr(found, "add_sink", None)):
            return found
    raise BadRequest(
        f"model={model!r:.100} is not allowed: use a model that load() gave, or a chat model or "
        "llm of our adapters"
    )
