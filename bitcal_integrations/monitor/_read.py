"""The read side of a store: records, labels and picks, in pages, oldest first.

A page is one short transaction, so a reader holds up nobody and sees what came meanwhile.
Knows tables and rows; it writes nothing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from bitcal_integrations.monitor import _connect as db
from bitcal_integrations.monitor import _schema as tables
from bitcal_integrations.monitor._connect import sa
from bitcal_integrations.monitor._rows import Label, Pick, StoredRecord

PAGE = 500


class Reader(ABC):
    """What a Store can be asked."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the store is."""

    @property
    @abstractmethod
    def engine(self) -> sa.Engine:
        """Its connections."""

    def records(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        model: str | None = None,
        task: str | None = None,
        profile: str | None = None,
        labelled: bool | None = None,
        newest_first: bool = False,
    ) -> Iterator[StoredRecord]:
        """Records in the order they came, with their last label and pick.

        `since` (included) and `until` (not included) are seconds since 1970; `labelled` True or
        False gives those with or without a label. Stop when you have enough: it reads in pages.
        """
        c = tables.records.c
        asked = ((c.model, model), (c.task, task), (c.profile, profile))
        where = [column == wanted for column, wanted in asked if wanted is not None]
        if since is not None:
            where.append(c.at >= since)
        if until is not None:
            where.append(c.at < until)
        if labelled is not None:
            known = sa.exists().where(tables.labels.c.record_id == c.id)
            where.append(known if labelled else ~known)
        for page in self._pages(tables.records, where, newest_first):
            yield from self._joined(page)

    def get(self, record_id: str) -> StoredRecord | None:
        """The record of this id; None if it is not there (yet, or any more)."""
        rows = self._fetch(
            sa.select(tables.records).where(tables.records.c.id == record_id).limit(1)
        )
        return next(self._joined(rows), None)

    def labels(self, record_id: str | None = None) -> Iterator[Label]:
        """Every label that was given, in the order they came: of a record the last one counts."""
        c = tables.labels.c
        where = [] if record_id is None else [c.record_id == record_id]
        for page in self._pages(tables.labels, where):
            yield from map(_label, page)

    def picks(self, record_id: str | None = None) -> Iterator[Pick]:
        """Which answers were chosen to be labelled, in the order they were chosen."""
        c = tables.picks.c
        where = [] if record_id is None else [c.record_id == record_id]
        for page in self._pages(tables.picks, where):
            yield from map(_pick, page)

    def counts(self) -> dict[str, int]:
        """How many records, labelled records and labels there are."""
        records, labels = tables.records, tables.labels
        known = sa.exists().where(labels.c.record_id == records.c.id)
        asked = {
            "records": sa.select(sa.func.count()).select_from(records),
            "labelled": sa.select(sa.func.count()).select_from(records).where(known),
            "labels": sa.select(sa.func.count()).select_from(labels),
        }
        return {name: self._fetch(query)[0][0] for name, query in asked.items()}

    def _pages(
        self, table: sa.Table, where: Sequence[Any], newest_first: bool = False
    ) -> Iterator[Sequence[Any]]:
        seq = table.c.seq
        query = sa.select(table).where(*where).limit(PAGE)
        query = query.order_by(seq.desc() if newest_first else seq)
        page = self._fetch(query)
        while page:
            yield page
            last = page[-1].seq
            beyond = seq < last if newest_first else seq > last
            page = self._fetch(query.where(beyond)) if len(page) == PAGE else []

    def _joined(self, page: Sequence[Any]) -> Iterator[StoredRecord]:
        ids = [row.id for row in page]
        last: list[dict[str, Any]] = []
        for table in (tables.labels, tables.picks):
            c = table.c
            rows = self._fetch(sa.select(table).where(c.record_id.in_(ids)).order_by(c.seq))
            last.append({row.record_id: row for row in rows})
        for row in page:
            label, pick = (found.get(row.id) for found in last)
            yield StoredRecord(
                **row._mapping,
                label=None if label is None else _label(label),
                pick=None if pick is None else _pick(pick),
            )

    def _fetch(self, query: Any) -> Sequence[Any]:
        def read() -> Sequence[Any]:
            with self.engine.connect() as connection:
                return connection.execute(query).all()

        return db.insistent(read, f"the store {self.url!r} cannot be read")


def _label(row: Any) -> Label:
    gold = None if row.gold is None else json.loads(row.gold)
    return Label(row.record_id, row.correct, row.source, row.at, gold)


def _pick(row: Any) -> Pick:
    return Pick(row.record_id, row.probability, row.why, row.at)
