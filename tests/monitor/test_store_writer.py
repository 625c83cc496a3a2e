"""The thread that writes: what it does when the store is slow, gone, or refuses a record."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bitcal_integrations.monitor import Store, _connect, watch
from bitcal_integrations.monitor._writer import Writer
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record

LONG = 30.0  # seconds; only a test that fails waits for it


def answers(n: int) -> list[Record]:
    toy = ToyModel({}, default=("yes", 0.5))
    return [toy.ask(f"question {i}") for i in range(n)]


class FakeStore:
    """Keeps rows in a list; each write waits for `gate`, and fails as often as `failures` says."""

    url = "fake"

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.gate, self.entered, self.failed = (threading.Event() for _ in range(3))
        self.gate.set()
        self.failures = 0
        self.refused: set[str] = set()
        self.pruned: list[Any] = []

    def row(self, record: Record, at: float) -> dict[str, Any]:
        if record.model == "unreadable":
            raise RuntimeError("no row")
        return {"id": record.id, "at": at}

    def write(self, rows: Sequence[Any]) -> None:
        self.entered.set()
        assert self.gate.wait(LONG)
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise OSError("the disk is away")
        if self.refused & {row["id"] for row in rows}:
            raise ValueError("refused")
        self.rows += [row["id"] for row in rows]

    def refuses(self, err: Exception) -> bool:
        return isinstance(err, ValueError)

    def ready(self, again: bool = False) -> None:
        pass

    def prune_some(self, keep_days: float | None, keep_rows: int | None) -> int:
        self.pruned.append((keep_days, keep_rows))
        return 1 if len(self.pruned) == 1 else 0


def test_records_are_written_in_order_and_flush_waits_for_them() -> None:
    store, records = FakeStore(), answers(1200)
    writer = Writer(store)
    for record in records:
        writer.put(record)
    assert writer.flush(LONG)
    assert store.rows == [r.id for r in records]
    assert (writer.counts.written, writer.counts.dropped, writer.waiting) == (1200, 0, 0)
    writer.close()


def test_nothing_runs_before_the_first_record_or_after_the_end() -> None:
    before = threading.active_count()
    writer = Writer(FakeStore())
    assert writer.flush(LONG)
    assert threading.active_count() == before
    writer.put(answers(1)[0])
    assert threading.active_count() == before + 1
    writer.close()
    writer.close()
    assert threading.active_count() == before
    assert writer.flush(LONG)


def test_a_full_queue_drops_counts_and_tells_once(told: Callable[[], list[str]]) -> None:
    store, records = FakeStore(), answers(30)
    store.gate.clear()
    writer = Writer(store, interval=0, max_queue=10)
    writer.put(records[0])
    assert store.entered.wait(LONG)  # the thread is busy with the first one
    for record in records[1:]:
        writer.put(record)  # returns, although nothing can be written
    assert writer.waiting == 10
    assert not writer.flush(0)
    store.gate.set()
    assert writer.flush(LONG)
    assert store.rows == [r.id for r in records[:11]]
    assert writer.counts.dropped == 19
    assert [m for m in told() if "dropped" in m] == [
        "more than 10 records wait for the store 'fake': new ones are dropped; report() counts them"
    ]
    writer.close()


def test_what_could_not_be_written_is_tried_again_and_told_once(
    told: Callable[[], list[str]],
) -> None:
    store, records = FakeStore(), answers(20)
    store.failures = 3
    writer = Writer(store, interval=0)
    for record in records:
        writer.put(record)
    assert writer.flush(LONG)
    assert store.rows == [r.id for r in records]
    assert writer.counts.trouble is None
    assert told() == [
        "the store 'fake' cannot be written: the disk is away; answers go on, their records wait "
        "for it",
        "the store 'fake' is written again",
    ]
    writer.close()


def test_a_record_that_is_refused_holds_up_no_other(told: Callable[[], list[str]]) -> None:
    import dataclasses

    store, records = FakeStore(), answers(40)
    store.refused = {records[3].id, records[17].id}
    records[5] = dataclasses.replace(records[5], model="unreadable")
    writer = Writer(store)
    for record in records:
        writer.put(record)
    assert writer.flush(LONG)
    gone = store.refused | {records[5].id}
    assert store.rows == [r.id for r in records if r.id not in gone]
    assert (writer.counts.unwritable, writer.counts.written) == (3, 37)
    assert len(told()) == 1
    assert "cannot be kept" in told()[0]
    writer.close()


def test_close_gives_up_after_its_time_and_counts(told: Callable[[], list[str]]) -> None:
    store, records = FakeStore(), answers(5)
    store.failures = 10**9
    writer = Writer(store, interval=0)
    for record in records:
        writer.put(record)
    assert store.failed.wait(LONG)
    writer.close(timeout=0.05)
    writer.put(records[0])  # too late
    assert (writer.counts.written, writer.counts.dropped) == (0, 6)
    assert any("were not written to 'fake': it was closed" in message for message in told())


def test_what_waits_for_the_store_has_no_tokens() -> None:
    store = FakeStore()
    store.gate.clear()
    writer = Writer(store, interval=0)
    first, second = answers(2)
    writer.put(first)
    assert store.entered.wait(LONG)
    writer.put(second)
    ((_, waits),) = writer._queue  # type: ignore[misc]
    assert second.generation.steps
    assert waits.generation.steps == ()
    store.gate.set()
    writer.close()


def test_retention_is_done_by_the_thread() -> None:
    store = FakeStore()
    writer = Writer(store, interval=0, keep_days=2.0, keep_rows=9)
    writer.put(answers(1)[0])
    writer.close()
    assert store.pruned[0] == (2.0, 9)
    assert writer.counts.pruned == 1


def test_retention_goes_on_while_nothing_is_answered() -> None:
    store, done = FakeStore(), threading.Event()
    prune = store.prune_some

    def counting(*kept: Any) -> int:
        prune(*kept)
        if len(store.pruned) < 5:
            return 500
        done.set()
        return 0

    store.prune_some = counting  # type: ignore[method-assign]
    writer = Writer(store, interval=0, keep_rows=9)
    writer.put(answers(1)[0])
    assert done.wait(LONG)
    writer.close()


def test_a_flush_that_meets_the_end_does_not_wait_for_ever() -> None:
    writer = Writer(FakeStore(), interval=0)
    writer.put(answers(1)[0])

    class Closing(deque[Any]):
        def append(self, item: Any) -> None:
            writer.close()
            super().append(item)

    writer._queue = Closing(writer._queue)
    assert writer.flush(LONG)


class TestSQLite:
    """Real trouble of a real file."""

    def test_locked_by_another_then_free(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
    ) -> None:
        monkeypatch.setattr(_connect, "BUSY_SECONDS", 0.02)
        toy = ToyModel({}, default=("yes", 0.5))
        with watch(toy, tmp_path / "r.db", interval=0) as watching:
            other = sqlite3.connect(tmp_path / "r.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            asked = [toy.ask(str(i)).id for i in range(50)]
            assert _until_trouble(watching)
            assert watching.report()["written"] == 0
            other.execute("ROLLBACK")
            other.close()
            assert watching.flush(LONG)
            assert [row.id for row in watching.store.records()] == asked
            assert watching.report()["trouble"] is None
        assert "locked" in told()[0]
        assert "is written again" in told()[-1]
        assert len(told()) == 2

    @pytest.mark.parametrize(
        ("pragma", "says"),
        [("max_page_count=12", "full"), ("query_only=ON", "readonly")],
    )
    def test_disk_full_and_read_only(
        self, tmp_path: Path, told: Callable[[], list[str]], pragma: str, says: str
    ) -> None:
        """SQLite's own errors, as a full disk or a read-only one gives them."""

        def hinder(connection: Any, _: Any) -> None:
            connection.execute(f"PRAGMA {pragma}")

        toy = ToyModel({}, default=("a long answer " * 100, 0.5))
        with Store(tmp_path / "r.db", create=True) as store:
            sa.event.listen(store.engine, "connect", hinder)
            store.engine.dispose()
            with watch(toy, store, interval=0, max_queue=60) as watching:
                asked = [toy.ask(str(i)).text for i in range(100)]
                assert len(asked) == 100  # every answer came
                assert _until_trouble(watching)
                assert says in watching.report()["trouble"]
                sa.event.remove(store.engine, "connect", hinder)
                assert watching.flush(LONG)
                report = watching.report()
                assert report["written"] + report["dropped"] == 100
                assert store.counts()["records"] == report["written"] >= 60
        assert sum("cannot be written" in message for message in told()) == 1

    def test_a_file_that_was_taken_away_is_made_anew(self, tmp_path: Path) -> None:
        toy = ToyModel({}, default=("yes", 0.5))
        with watch(toy, tmp_path / "r.db", text=False) as watching:
            toy.ask("one")
            assert watching.flush(LONG)
            for file in tmp_path.iterdir():
                file.unlink()
            record = toy.ask("two")
            assert watching.flush(LONG)
            with Store(tmp_path / "r.db", text=False) as store:
                assert [row.id for row in store.records()] == [record.id]


def _until_trouble(watching: Any) -> bool:
    """Let the writer try until it has told of trouble."""
    for _ in range(1000):
        if watching.report()["trouble"]:
            return True
        watching.flush(0.01)
    return False
