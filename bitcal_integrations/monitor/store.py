"""Records and feedback in a database: an SQLite file, or PostgreSQL by URL.

`Store` writes and reads them; reading goes page by page, so that a store may be larger than
memory and nobody who writes has to wait. Knows rows and tables; which model answered and when a
record is written is the business of `watch`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor import _connect as db
from bitcal_integrations.monitor import _schema as tables
from bitcal_integrations.monitor._connect import StoreError, sa
from bitcal_integrations.monitor._read import Reader
from bitcal_integrations.monitor._rows import Label, Pick, StoredRecord, as_json, hasher, row_of
from bitcal_integrations.types import Record

PRUNED_AT_ONCE = 500  # rows that one transaction of retention takes away
LONGEST_SOURCE = 100

__all__ = ["Label", "Pick", "Store", "StoreError", "StoredRecord", "feedback"]


class Store(Reader):
    """A store of records; use it in a `with` block, or call `close()`.

    `store` is the path of an SQLite file, "sqlite:///FILE" or "postgresql://USER@HOST/NAME".
    `create` makes it where there is none. `text=False` makes one that keeps no text, only numbers
    and salted hashes; a store stays as it was made, and None takes it as it is.
    """

    def __init__(
        self, store: str | os.PathLike[str], *, create: bool = False, text: bool | None = None
    ) -> None:
        self._url = db.url_of(store)
        self._file = db.file_of(self._url)
        self._engine = db.engine_for(self._url)
        self._pid = os.getpid()
        try:
            self._about = self._opened(create, text)
        except BaseException:
            self._engine.dispose()
            raise
        self._digest = hasher(self._about.salt)

    def _opened(self, create: bool, text: bool | None) -> tables.About:
        if not create and self._file is not None and not self._file.is_file():
            raise StoreError(f"there is no store at {self.url!r}")
        what = f"the store {self.url!r} cannot be opened"
        about = db.insistent(lambda: tables.read_about(self._engine), what)
        if about is None and not create:
            raise StoreError(f"{self.url!r} holds no records of ours")
        if about is None or about.version < tables.VERSION:
            about = self._made(True if text is None else text)
        tables.check_version(about.version)
        if text is not None and text != about.text:
            raise BadRequest(
                f"text={text!r} is not allowed for {self.url!r}: it was made with "
                f"text={about.text!r}, and a store stays as it was made"
            )
        return about

    def _made(self, text: bool, tries: int = db.TRIES) -> tables.About:
        what = f"the store {self.url!r} cannot be made ready"
        if self._file is not None:
            db.insistent(lambda: db.use_wal(self._engine), what, tries)
        return db.insistent(lambda: tables.make_ready(self._engine, text), what, tries)

    @property
    def url(self) -> str:
        """Where it is, without a password."""
        return db.shown(self._url)

    @property
    def text(self) -> bool:
        """Whether it keeps texts."""
        return self._about.text

    @property
    def engine(self) -> sa.Engine:
        """The connections; a forked process gets its own."""
        if self._pid != os.getpid():
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        return self._engine

    # ---- writing -----------------------------------------------------------------------------

    def add(self, records: Iterable[Record], at: float | None = None) -> int:
        """Write records now, as answered at `at` (seconds since 1970; now unless given).

        Of one whose id is there already only the decision is taken, if it brings one.
        """
        when = time.time() if at is None else at
        rows = [self.row(record, when) for record in records]
        db.insistent(lambda: self.write(rows), f"the store {self.url!r} cannot be written")
        return len(rows)

    def row(self, record: Record, at: float) -> dict[str, Any]:
        """A record as `write` takes it."""
        return row_of(record, at, self._digest, self.text)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows in one transaction, or none of them."""
        with db.writing(self.engine) as connection:
            for start in range(0, len(rows), tables.ROWS_AT_ONCE):
                tables.upsert(connection, rows[start : start + tables.ROWS_AT_ONCE])

    def refuses(self, err: Exception) -> bool:
        """Whether an error of `write` is about what was to be written, not about the store."""
        if isinstance(err, sa.exc.DBAPIError):
            return isinstance(err, (sa.exc.DataError, sa.exc.IntegrityError))
        return isinstance(err, (sa.exc.StatementError, ValueError, TypeError, OverflowError))

    def ready(self, again: bool = False) -> None:
        """Make the store anew where somebody took its file away; `again` also after an error."""
        if again or (self._file is not None and not self._file.exists()):
            self.engine.dispose()
            self._about = self._made(self.text, tries=1)
            self._digest = hasher(self._about.salt)

    def label(
        self,
        record_id: str,
        correct: bool | float,
        source: str = "user",
        gold: Any = None,
        at: float | None = None,
    ) -> Label:
        """Say whether an answer was right; of several labels the last one counts."""
        label = _checked(record_id, correct, source, gold, time.time() if at is None else at)
        kept = None if gold is None else as_json(gold if self.text else self._digest(gold))
        self._insert(tables.labels, [{**vars(label), "gold": kept}])
        return label

    def add_picks(self, picks: Iterable[Pick]) -> None:
        """Keep which answers were chosen to be labelled, and how probable each choice was."""
        rows = [vars(pick) for pick in picks]
        for row in rows:
            if not 0 < row["probability"] <= 1:
                raise BadRequest(f"the probability {row['probability']!r} is not in (0, 1]")
        self._insert(tables.picks, rows)

    def _insert(self, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        def write() -> None:
            with db.writing(self.engine) as connection:
                connection.execute(sa.insert(table), rows)

        if rows:
            db.insistent(write, f"the store {self.url!r} cannot be written")

    def prune(self, keep_days: float | None = None, keep_rows: int | None = None) -> int:
        """Take away records older or more than that, with their labels; says how many."""
        what, total = f"the store {self.url!r} cannot be pruned", 0
        while gone := db.insistent(lambda: self.prune_some(keep_days, keep_rows), what):
            total += gone
        return total

    def prune_some(self, keep_days: float | None = None, keep_rows: int | None = None) -> int:
        """One short transaction of `prune`; 0 when nothing is left to take away."""
        table = tables.records
        with self.engine.connect() as connection:
            found = list(connection.scalars(_too_old(keep_days))) if keep_days is not None else []
            if not found and keep_rows is not None:
                found = list(connection.scalars(_too_many(connection, keep_rows)))
        if found:
            with db.writing(self.engine) as connection:
                for other in (tables.labels, tables.picks):
                    connection.execute(sa.delete(other).where(other.c.record_id.in_(found)))
                connection.execute(sa.delete(table).where(table.c.id.in_(found)))
        return len(found)

    def close(self) -> None:
        """Close its connections; those of the process that this one was forked from stay."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Store({self.url!r})"


def _too_old(keep_days: float) -> Any:
    c = tables.records.c
    oldest = time.time() - 86400 * keep_days
    return sa.select(c.id).where(c.at < oldest).order_by(c.at).limit(PRUNED_AT_ONCE)


def _too_many(connection: sa.Connection, keep_rows: int) -> Any:
    c = tables.records.c
    last = sa.select(c.seq).order_by(c.seq.desc()).offset(keep_rows).limit(1)
    bound = connection.scalar(last)
    return sa.select(c.id).where(c.seq <= (bound or 0)).order_by(c.seq).limit(PRUNED_AT_ONCE)


def _checked(record_id: Any, correct: Any, source: Any, gold: Any, at: float) -> Label:
    if not isinstance(record_id, str) or not record_id or not _plain(record_id):
        raise BadRequest(f"record_id={record_id!r:.100} is not allowed: it is the id of a Record")
    try:
        number = correct.item() if hasattr(correct, "item") else correct
    except (ValueError, RuntimeError):  # an array of several
        number = None
    if not isinstance(number, (bool, int, float)) or not 0 <= number <= 1 or math.isnan(number):
        raise BadRequest(
            f"correct={correct!r:.100} is not allowed: it must be True, False or a number in [0, 1]"
        )
    if not isinstance(source, str) or not 0 < len(source) <= LONGEST_SOURCE or not _plain(source):
        raise BadRequest(
            f"source={source!r:.100} is not allowed: it is a name of 1 to {LONGEST_SOURCE} letters"
        )
    return Label(record_id, float(number), source, at, gold)


def _plain(text: str) -> bool:
    """Whether a database takes the text as it is."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def feedback(
    record_id: str,
    correct: bool | float,
    source: str = "user",
    *,
    store: str | os.PathLike[str] | Store,
    gold: Any = None,
) -> Label:
    """Say whether an answer was right, from this or any other process.

    `correct` is True, False or how right in [0, 1]; `gold` may hold the right answer. It may come
    before its record is written; of several labels of one record the last one counts.
    """
    with _opened(store) as opened:
        return opened.label(record_id, correct, source, gold)


@contextmanager
def _opened(store: str | os.PathLike[str] | Store) -> Iterator[Store]:
    if isinstance(store, Store):
        yield store
    else:
        with Store(store) as opened:
            yield opened
