"""Older stores, newer ones, and what is no store at all."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from store_help import many

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor import Pick, Store, StoreError, _schema, feedback

# As version 1 made them: labels without `gold`, and no picks.
VERSION_1 = """
CREATE TABLE bitcal_store (version INTEGER NOT NULL, salt TEXT NOT NULL, text BOOLEAN NOT NULL);
INSERT INTO bitcal_store VALUES (1, '0123', true);
CREATE TABLE bitcal_records (
    seq {key}, id TEXT NOT NULL UNIQUE, at DOUBLE PRECISION NOT NULL, model TEXT NOT NULL,
    task TEXT NOT NULL, profile TEXT, finish TEXT NOT NULL, action TEXT, action_reason TEXT,
    confidence DOUBLE PRECISION, raw DOUBLE PRECISION, prompt_tokens INTEGER NOT NULL,
    n_tokens INTEGER NOT NULL, probe_tokens INTEGER NOT NULL, seconds DOUBLE PRECISION NOT NULL,
    prompt_hash TEXT NOT NULL, answer_hash TEXT, data TEXT NOT NULL);
CREATE TABLE bitcal_labels (
    seq {key}, record_id TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
    correct DOUBLE PRECISION NOT NULL, source TEXT NOT NULL);
INSERT INTO bitcal_labels (record_id, at, correct, source) VALUES ('old', 1.0, 0.5, 'user')
"""


class TestVersions:
    def test_a_version_1_store_becomes_the_present_one(self, url: str) -> None:
        sqlite = url.startswith("sqlite")
        key = "INTEGER PRIMARY KEY" if sqlite else "BIGSERIAL PRIMARY KEY"
        engine = sa.create_engine(url if sqlite else url.replace("://", "+psycopg://"))
        with engine.begin() as connection:
            for statement in VERSION_1.format(key=key).split(";"):
                connection.execute(sa.text(statement))
        engine.dispose()
        (record,) = many(1)
        errors: list[Exception] = []

        def open_it() -> None:
            try:
                Store(url).close()
            except Exception as err:
                errors.append(err)

        threads = [threading.Thread(target=open_it) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        with Store(url) as store:
            assert _schema.read_about(store.engine) == _schema.About(2, "0123", True)
            assert [(x.record_id, x.correct, x.gold) for x in store.labels()] == [
                ("old", 0.5, None)
            ]
            store.add([record])
            store.label(record.id, True, gold="g")
            store.add_picks([Pick(record.id, 0.5, "low", 1.0)])
            assert store.get(record.id).label.gold == "g"  # type: ignore[union-attr]

    def test_a_newer_one_is_left_alone(self, tmp_path: Path) -> None:
        Store(tmp_path / "r.db", create=True).close()
        with sqlite3.connect(tmp_path / "r.db") as raw:
            raw.execute("UPDATE bitcal_store SET version = 99")
        raw.close()
        with pytest.raises(StoreError, match="version 99, and this program knows up to 2"):
            Store(tmp_path / "r.db")


class TestWhatIsRefused:
    def test_a_store_that_is_not_there_is_not_made_for_reading(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"no store at .*typo\.db"):
            Store(tmp_path / "typo.db")
        with pytest.raises(StoreError, match="no store"):
            feedback("id", True, store=tmp_path / "typo.db")
        assert list(tmp_path.iterdir()) == []

    def test_files_of_others_are_left_as_they_are(self, tmp_path: Path) -> None:
        (tmp_path / "notes.db").write_bytes(b"these are notes, and not a database" * 40)
        with pytest.raises(StoreError, match="not a database"):
            Store(tmp_path / "notes.db", create=True)
        sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE x (y)").connection.close()
        with pytest.raises(StoreError, match="no records of ours"):
            Store(tmp_path / "other.db")
        with pytest.raises(StoreError, match="unable to open"):
            Store(tmp_path / "no folder" / "r.db", create=True)

    @pytest.mark.parametrize(
        ("store", "why"),
        [
            ("mysql://host/db", "kind 'mysql'"),
            ("sqlite://", "in memory"),
            ("sqlite:///:memory:", "in memory"),
            ("", "store=''"),
            (7, "store=7"),
            ("post gres://x y", "cannot be read"),
        ],
    )
    def test_what_is_no_store(self, store: object, why: str) -> None:
        with pytest.raises(BadRequest, match=why):
            Store(store, create=True)  # type: ignore[arg-type]

    def test_no_password_is_ever_shown(self) -> None:
        pytest.importorskip("psycopg")
        url = "postgresql://me:hunter2@127.0.0.1:1/db?connect_timeout=1"
        with pytest.raises(StoreError, match=r"127\.0\.0\.1") as caught:
            Store(url)
        assert "hunter2" not in str(caught.value)
