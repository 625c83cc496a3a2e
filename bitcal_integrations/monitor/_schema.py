"""The tables of a store, their version, and how an older version becomes the present one.

All names begin with `bitcal_`, so that a database may hold other tables beside them. Knows no
records: what a column means is told in `_rows`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bitcal_integrations.monitor._connect import StoreError, sa, writing

VERSION = 2
ROWS_AT_ONCE = 50  # SQLite's older versions take 999 values in one statement
LOCK = 0x6269746361  # PostgreSQL's lock while tables are made

metadata = sa.MetaData()
Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

about = sa.Table(
    "bitcal_store",
    metadata,
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("text", sa.Boolean, nullable=False),
)
records = sa.Table(
    "bitcal_records",
    metadata,
    sa.Column("seq", Key, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("at", sa.Double, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    sa.Column("profile", sa.Text),
    sa.Column("finish", sa.Text, nullable=False),
    sa.Column("action", sa.Text),
    sa.Column("action_reason", sa.Text),
    sa.Column("confidence", sa.Double),
    sa.Column("raw", sa.Double),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("n_tokens", sa.Integer, nullable=False),
    sa.Column("probe_tokens", sa.Integer, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("prompt_hash", sa.Text, nullable=False),
    sa.Column("answer_hash", sa.Text),
    sa.Column("data", sa.Text, nullable=False),
)
labels = sa.Table(
    "bitcal_labels",
    metadata,
    sa.Column("seq", Key, primary_key=True, autoincrement=True),
    sa.Column("record_id", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("correct", sa.Double, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("gold", sa.Text),
)
picks = sa.Table(
    "bitcal_picks",
    metadata,
    sa.Column("seq", Key, primary_key=True, autoincrement=True),
    sa.Column("record_id", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("probability", sa.Double, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
)


def _add_gold_and_picks(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE bitcal_labels ADD COLUMN gold TEXT"))
    picks.create(connection)


# version -> what turns it into the next one
MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _add_gold_and_picks}


@dataclass(frozen=True)
class About:
    """A store's own facts: its version, the salt of its hashes, and whether it keeps texts."""

    version: int
    salt: str
    text: bool


def read_about(engine: sa.Engine) -> About | None:
    """What the store says of itself; None where there are no tables of ours yet."""
    with engine.connect() as connection:
        return _read(connection)


def _read(connection: sa.Connection) -> About | None:
    if not sa.inspect(connection).has_table(about.name):
        return None
    rows = connection.execute(sa.select(about)).all()
    return About(*rows[0]) if rows else None


def make_ready(engine: sa.Engine, text: bool) -> About:
    """Make the tables, or bring them to the present version; what others do meanwhile waits."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        found = _read(connection)
        if found is None:
            metadata.create_all(connection)
            found = About(VERSION, secrets.token_hex(16), text)
            connection.execute(sa.insert(about).values(**vars(found)))
            return found
        for version in range(check_version(found.version), VERSION):
            MIGRATIONS[version](connection)
        connection.execute(sa.update(about).values(version=VERSION))
        return About(VERSION, found.salt, found.text)


def check_version(version: int) -> int:
    """The version, if this program can read it or make it what it can read."""
    if version > VERSION:
        raise StoreError(
            f"the store is of version {version}, and this program knows up to {VERSION}",
            "Update bitcal-integrations.",
        )
    return version


def upsert(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert up to ROWS_AT_ONCE rows; of one that is there, take the decision if it has one."""
    seen: set[str] = set()
    first: list[Mapping[str, Any]] = []
    again: list[Mapping[str, Any]] = []  # a statement may touch a row once
    for row in rows:
        (again if row["id"] in seen else first).append(row)
        seen.add(row["id"])
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    values = tuple(row[name] for row in first for name in _WRITTEN)
    connection.exec_driver_sql(_upsert_of(len(first), mark), values)
    if again:
        upsert(connection, again)


_WRITTEN = tuple(column.name for column in records.c if column.name != "seq")


@lru_cache(maxsize=2 * ROWS_AT_ONCE)
def _upsert_of(rows: int, mark: str) -> str:
    """One statement for all rows: each of its own would make a thread that answers wait."""
    row = f"({', '.join([mark] * len(_WRITTEN))})"
    return (
        f"INSERT INTO {records.name} ({', '.join(_WRITTEN)}) VALUES {', '.join([row] * rows)} "
        "ON CONFLICT (id) DO UPDATE SET action = excluded.action, "
        "action_reason = excluded.action_reason WHERE excluded.action IS NOT NULL"
    )
