"""A database that another process holds: asked again until it is free, or a clear error."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bitcal_integrations.monitor import _connect
from bitcal_integrations.monitor._connect import StoreError
from bitcal_integrations.monitor.store import Store


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which pauses were made; they take no time."""
    made: list[int] = []

    def pause(attempt: int) -> float:
        made.append(attempt)
        return 0.0

    monkeypatch.setattr(_connect, "pause", pause)
    monkeypatch.setattr(_connect, "BUSY_SECONDS", 0)
    return made


@pytest.fixture
def held(tmp_path: Path) -> sqlite3.Connection:
    """A file that is being made by somebody else."""
    other = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_a_store_is_made_when_the_file_is_free_again(
    held: sqlite3.Connection, waits: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tried = _connect.use_wal, []

    def use_wal(engine: object) -> None:
        tried.append(engine)
        if len(tried) == 3:
            held.execute("COMMIT")
        elif len(tried) == 1:  # the file was free to be read, and is held again
            held.execute("BEGIN EXCLUSIVE")
        real(engine)

    held.execute("COMMIT")
    monkeypatch.setattr(_connect, "use_wal", use_wal)
    with Store(tmp_path / "records.db", create=True) as store:
        assert list(store.records()) == []
    assert waits[:2] == [1, 2]
    held.close()


def test_a_file_that_stays_held_is_a_clear_error(
    held: sqlite3.Connection, tmp_path: Path, waits: list[int]
) -> None:
    with pytest.raises(StoreError, match="database is locked"):
        Store(tmp_path / "records.db", create=True)
    assert len(waits) == _connect.TRIES - 1
    held.close()
