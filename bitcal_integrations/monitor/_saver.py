"""Tries to write a batch of Records, counts what became of them, and tells of trouble once.

A record that the store refuses for what it is does not hold up the others. Knows a store's
`row`, `write`, `ready` and `prune_some`; when to try again is the business of `_writer`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from bitcal_integrations.types import Record

logger = logging.getLogger("bitcal_integrations.monitor")
BREATHS, BREATH = 10, 5e-5  # so many rows are made, then others may run for that many seconds

Row: TypeAlias = Mapping[str, Any]
Item: TypeAlias = tuple[float, Record]  # answered at (seconds since 1970), and what


class Keeps(Protocol):
    """What must be known of a store to write to it."""

    @property
    def url(self) -> str: ...
    def row(self, record: Record, at: float) -> Row: ...
    def write(self, rows: Sequence[Row]) -> None: ...
    def ready(self, again: bool = False) -> None: ...
    def prune_some(self, keep_days: float | None, keep_rows: int | None) -> int: ...
    def refuses(self, err: Exception) -> bool: ...


@dataclass
class Counts:
    """What became of the records; `trouble` is why nothing can be written just now."""

    written: int = 0
    dropped: int = 0
    unwritable: int = 0
    pruned: int = 0
    trouble: str | None = None
    told: set[str] = field(default_factory=set)


class Saver:
    """Writes batches to one store."""

    def __init__(self, store: Keeps) -> None:
        self._store = store
        self.counts = Counts()
        self._lock = threading.Lock()

    def save(self, items: Sequence[Item], again: bool, hurried: bool) -> bool:
        """Whether they are written, but for those that can never be; False: try again later."""
        try:
            self._store.ready(again)
            self._write(self._rows(items, hurried))
        except Exception as err:  # whatever it is, the next try may succeed
            self._in_trouble(err)
            return False
        if self.counts.trouble is not None:
            logger.warning("the store %r is written again", self._store.url)
            self.counts.trouble = None
        return True

    def _rows(self, items: Sequence[Item], hurried: bool) -> list[Row]:
        rows = []
        for index, (at, record) in enumerate(items, 1):
            try:
                rows.append(self._store.row(record, at))
            except Exception as err:
                self._unwritable(record.id, err)
            if index % BREATHS == 0 and not hurried:
                time.sleep(BREATH)  # Python runs one thread at a time, and a request goes first
        return rows

    def _write(self, rows: Sequence[Row]) -> None:
        """All of them in one transaction; where one is refused, by halves until it is alone."""
        if not rows:
            return
        try:
            self._store.write(rows)
            self.counts.written += len(rows)
        except Exception as err:
            if not self._store.refuses(err):
                raise
            if len(rows) == 1:
                self._unwritable(rows[0]["id"], err)
                return
            self._write(rows[: len(rows) // 2])
            self._write(rows[len(rows) // 2 :])

    def prune(self, keep_days: float | None, keep_rows: int | None) -> int:
        """Take away what is too old or too much, for a moment; says how many."""
        try:
            gone = self._store.prune_some(keep_days, keep_rows)
        except Exception as err:
            self._in_trouble(err)
            return 0
        self.counts.pruned += gone
        return gone

    def dropped(self, number: int = 1) -> None:
        """Count records that will not be written."""
        with self._lock:
            self.counts.dropped += number

    def tell_dropped(self, limit: int) -> None:
        """Say it, once, if records were dropped because too many waited."""
        if self.counts.dropped:
            self._once(
                "dropped", "more than %d records wait for the store %r: new ones are dropped",
                limit, self._store.url,
            )  # fmt: skip

    def tell_lost(self, number: int) -> None:
        """Say that the end came before records could be written."""
        logger.warning("%d records were not written to %r: it was closed", number, self._store.url)

    def _in_trouble(self, err: Exception) -> None:
        if self.counts.trouble is None:
            logger.warning(
                "the store %r cannot be written: %s; answers go on, their records wait for it",
                self._store.url, said(err),
            )  # fmt: skip
        self.counts.trouble = said(err)

    def _unwritable(self, record_id: str, err: Exception) -> None:
        self.counts.unwritable += 1
        self._once("unwritable", "the record %s cannot be kept: %s", record_id, said(err))

    def _once(self, kind: str, message: str, *values: Any) -> None:
        if kind not in self.counts.told:
            self.counts.told.add(kind)
            logger.warning(message + "; report() counts them", *values)


def said(err: BaseException) -> str:
    """What an error says, on one line; of a database's error, what the database said."""
    return " ".join(str(getattr(err, "orig", None) or err).split())[:300]
