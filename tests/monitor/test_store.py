"""What a store keeps and gives back, in SQLite and in PostgreSQL."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_help import full_record, many, plain

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor import Pick, Store, _read, feedback
from bitcal_integrations.types import (
    Decision,
)


class TestWhatIsKept:
    def test_a_record_comes_back_whole(self, url: str) -> None:
        record = full_record()
        with Store(url, create=True) as store:
            store.add([record], at=12.5)
            row = store.get(record.id)
            assert row is not None
            assert plain(row.record) == plain(record)
            assert math.isnan(row.signals["gone"])
            assert (row.at, row.model, row.task, row.profile) == (12.5, "tiny", "sums", "ab12")
            assert (row.finish, row.action, row.action_reason) == (
                "answer", "accept", "secret_decision",
            )  # fmt: skip
            assert (row.confidence, row.raw, row.seconds) == (0.8, 0.6, 0.5)
            assert (row.prompt_tokens, row.n_tokens, row.probe_tokens) == (7, 5, 2)
            assert (row.label, row.pick, row.correct) == (None, None, None)

    def test_odd_texts_and_numbers_come_back(self, url: str) -> None:
        record = full_record()
        odd = replace(
            record,
            generation=replace(record.generation, raw="a\0b 'quote' %s ? \U0001f600"),
            confidence=replace(record.confidence, value=None, raw=math.nan),
            model="nul\0model",
        )
        with Store(url, create=True) as store:
            store.add([odd])
            row = store.get(odd.id)
            assert row is not None
            assert row.record.generation.raw == odd.generation.raw
            assert row.confidence is None
            assert row.raw is None
            assert "nul" in row.model

    def test_the_same_record_again_changes_nothing_but_the_decision(self, url: str) -> None:
        first = replace(full_record(), decision=None)
        judged = replace(
            first, decision=Decision("escalate", "0.4 < 0.7"), model="poorer copy",
        )  # fmt: skip
        with Store(url, create=True) as store:
            store.add([first], at=1.0)
            store.add([judged, first, judged], at=2.0)
            store.add([first], at=3.0)
            (row,) = store.records()
            assert (row.at, row.model, row.action) == (1.0, "tiny", "escalate")
            assert row.record.decision == Decision("escalate", "0.4 < 0.7")

    def test_equal_prompts_have_equal_hashes_only_within_a_store(self, tmp_path: Path) -> None:
        a, b = many(2)
        hashes = []
        for name in ("one.db", "two.db"):
            with Store(tmp_path / name, create=True) as store:
                store.add([a, b, replace(a, id="again")])
                hashes.append([row.prompt_hash for row in store.records()])
        assert hashes[0][0] == hashes[0][2] != hashes[0][1]
        assert hashes[0][0] != hashes[1][0]


class TestReading:
    def test_pages_join_without_gaps(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_read, "PAGE", 7)
        records = many(30)
        with Store(url, create=True) as store:
            store.add(records)
            wanted = [r.id for r in records]
            assert [row.id for row in store.records()] == wanted
            assert [row.id for row in store.records(newest_first=True)] == wanted[::-1]

    def test_a_reader_sees_what_comes_and_stops_nobody(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_read, "PAGE", 2)
        records = many(6)
        with Store(url, create=True) as store:
            store.add(records[:4])
            rows = store.records()
            next(rows)
            store.add(records[4:])
            assert [row.id for row in rows] == [r.id for r in records[1:]]

    def test_filters(self, url: str) -> None:
        a, b, c = many(3)
        b = replace(b, model="other", confidence=replace(b.confidence, task="sums", profile="p"))
        with Store(url, create=True) as store:
            for at, record in enumerate((a, b, c)):
                store.add([record], at=float(at))
            store.label(c.id, True)

            def found(**asked: object) -> list[str]:
                return [row.id for row in store.records(**asked)]  # type: ignore[arg-type]

            assert found(since=1.0) == [b.id, c.id]
            assert found(until=1.0) == [a.id]
            assert found(since=1.0, until=2.0) == [b.id]
            assert found(model="other") == found(task="sums") == found(profile="p") == [b.id]
            assert found(labelled=True) == [c.id]
            assert found(labelled=False) == [a.id, b.id]
            assert store.counts() == {"records": 3, "labelled": 1, "labels": 1}


class TestFeedback:
    def test_the_last_label_wins_and_the_history_stays(self, url: str) -> None:
        (record,) = many(1)
        with Store(url, create=True) as store:
            store.add([record])
            feedback(record.id, True, store=url)
            feedback(record.id, 0.25, "judge", store=url, gold={"answer": 42})
            label = store.get(record.id).label  # type: ignore[union-attr]
            assert label is not None
            assert (label.correct, label.source, label.gold) == (0.25, "judge", {"answer": 42})
            assert [one.correct for one in store.labels(record.id)] == [1.0, 0.25]
            assert next(store.records(labelled=True)).correct == 0.25

    def test_it_may_come_before_its_record(self, url: str) -> None:
        (record,) = many(1)
        with Store(url, create=True) as store:
            feedback(record.id, False, store=store)
            assert store.get(record.id) is None
            store.add([record])
            assert store.get(record.id).correct == 0.0  # type: ignore[union-attr]

    def test_the_last_pick_is_kept_with_its_record(self, url: str) -> None:
        a, b = many(2)
        with Store(url, create=True) as store:
            store.add([a, b])
            store.add_picks([Pick(a.id, 0.01, "audit", 1.0), Pick(a.id, 0.5, "low", 2.0)])
            assert store.get(a.id).pick == Pick(a.id, 0.5, "low", 2.0)  # type: ignore[union-attr]
            assert store.get(b.id).pick is None  # type: ignore[union-attr]
            assert len(list(store.picks())) == 2
            with pytest.raises(BadRequest, match=r"probability 1\.5"):
                store.add_picks([Pick(a.id, 1.5, "audit", 1.0)])

    @pytest.mark.parametrize("correct", [None, "yes", 1.5, -0.1, math.nan, np.ones(2)])
    def test_what_is_no_verdict_is_refused(self, tmp_path: Path, correct: object) -> None:
        with (
            Store(tmp_path / "r.db", create=True) as store,
            pytest.raises(BadRequest, match="correct="),
        ):
            store.label("some-id", correct)  # type: ignore[arg-type]

    def test_ids_and_sources_are_names(self, tmp_path: Path) -> None:
        with Store(tmp_path / "r.db", create=True) as store:
            wrong = (("", True), (7, True), ("id", True, ""), ("id", True, "x" * 101))
            for values in (*wrong, ("\ud800", True), ("id", True, "\udfff")):
                with pytest.raises(BadRequest):
                    store.label(*values)  # type: ignore[arg-type]
            assert list(store.labels()) == []


class TestRetention:
    def test_old_and_surplus_rows_go_with_their_labels(self, url: str) -> None:
        records = many(10)
        with Store(url, create=True) as store:
            store.add(records[:4], at=1.0)
            store.add(records[4:])
            for record in records:
                store.label(record.id, True)
            assert store.prune(keep_days=1) == 4
            assert store.prune(keep_rows=2) == 4
            assert [row.id for row in store.records()] == [r.id for r in records[-2:]]
            assert store.counts() == {"records": 2, "labelled": 2, "labels": 2}
            assert store.prune(keep_days=1, keep_rows=2) == 0
            assert store.prune() == 0
