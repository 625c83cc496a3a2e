"""From a URL or a path to a database, and how to write to one that others write to as well.

SQLite files are in WAL mode, so that readers and the one writer do not wait for each other; a
database that is busy is asked again after a random pause. Knows databases, no tables and no
records.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from bitcal_integrations.errors import BadRequest, BitcalError, MissingExtra

try:
    import sqlalchemy as sa
except ImportError:
    raise MissingExtra("sqlalchemy", "monitor") from None

__all__ = ["StoreError", "engine_for", "file_of", "insistent", "sa", "url_of", "use_wal", "writing"]

T = TypeVar("T")
BUSY_SECONDS = 5.0  # SQLite waits this long for another writer before it says "locked"
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 12, 0.02, 1.0
# What psycopg is told, so that a server that is gone is noticed within seconds.
POSTGRES: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
ALLOWED = "a path, 'sqlite:///FILE' or 'postgresql://USER@HOST/NAME'"


class StoreError(BitcalError, OSError):
    """A store of records that cannot be opened, read or written."""


def url_of(store: str | os.PathLike[str]) -> sa.URL:
    """The database that a URL or the path of an SQLite file names.

    >>> url_of("records.db") == url_of("sqlite:///records.db")
    True
    """
    if not isinstance(store, (str, os.PathLike)) or not os.fspath(store):
        raise BadRequest(f"store={store!r:.100} is not allowed: it must be {ALLOWED}")
    text = os.fspath(store)
    if "://" not in text:
        return sa.URL.create("sqlite", database=os.path.abspath(text))
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise BadRequest(f"the store's URL cannot be read: it must be {ALLOWED}") from None
    if url.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise BadRequest(f"a store of the kind {url.drivername!r} is not allowed: use {ALLOWED}")
    if url.database in (None, "", ":memory:"):
        raise BadRequest(
            f"{text!r} is a database in memory, which nobody else can read: name a file"
        )
    # A connection that is opened after a change of folder finds the same file.
    return url.set(database=os.path.abspath(url.database))


def file_of(url: sa.URL) -> Path | None:
    """The file of an SQLite database; None for a server's."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def shown(url: sa.URL) -> str:
    """The URL as messages may show it, without the password, wherever that stands.

    >>> shown(sa.make_url("postgresql://me:secret@here/db?password=secret&sslmode=require"))
    'postgresql://me:***@here/db?sslmode=require'
    """
    plain = url.difference_update_query(("password", "sslpassword"))
    return plain.render_as_string(hide_password=True)


def engine_for(url: sa.URL) -> sa.Engine:
    """Connections to the database; none is opened yet. Error texts leave the values out."""
    if file_of(url) is None:
        return _postgres(url)
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgres(url: sa.URL) -> sa.Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise MissingExtra("psycopg", "monitor") from None
    given = {name: value for name, value in POSTGRES.items() if name not in url.query}
    return sa.create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=given)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says
    connection.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing committed
    connection.execute("PRAGMA secure_delete=ON")  # what retention takes away is gone


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and then writes cannot wait for another writer.
    writes = connection.get_execution_options().get("bitcal_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction that writes: all of it, or nothing."""
    with engine.connect().execution_options(bitcal_writes=True) as connection, connection.begin():
        yield connection


def insistent(action: Callable[[], T], what: str, tries: int = TRIES) -> T:
    """What the action gives; one that meets a busy database is tried again after a pause."""
    for attempt in range(1, tries + 1):
        try:
            return action()
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as err:  # `use_wal` goes round SQLAlchemy
            if attempt == tries or not busy(err):
                raise StoreError(f"{what}: {reason_of(err)}") from err
            time.sleep(pause(attempt))
    raise AssertionError("unreachable")


def busy(err: Exception) -> bool:
    """Whether an error passes by itself: a lock of another writer, a deadlock, a full server."""
    text = str(getattr(err, "orig", err)).lower()
    return any(word in text for word in ("locked", "busy", "deadlock", "serialize", "too many"))


def pause(attempt: int) -> float:
    """Seconds until the next try: longer each time, and random, so that two do not meet again."""
    return random.uniform(0.2, 1.0) * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)


def reason_of(err: BaseException) -> str:
    """What the database said, on one line."""
    return " ".join(str(getattr(err, "orig", None) or err).split())[:300]


def use_wal(engine: sa.Engine) -> None:
    """Put an SQLite file into WAL mode, which it stays in; outside of any transaction."""
    connection: Any = engine.raw_connection()
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
