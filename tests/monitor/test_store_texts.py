"""A store without texts holds none, and what retention takes away is gone."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from store_help import full_record

from bitcal_integrations.decide._stop_asked import as_asked
from bitcal_integrations.decide.stop import StopPlan, StopRule
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor import Store, StoreError, _connect
from bitcal_integrations.types import Confidence, Decision, Generation, Record, make_request


def test_no_byte_of_a_text_reaches_the_files(tmp_path: Path) -> None:
    record = full_record()
    for text in (True, False):
        folder = tmp_path / str(text)
        folder.mkdir()
        with Store(folder / "r.db", create=True, text=text) as store:
            store.add([record])
            store.label(record.id, True, gold="secret_gold")
            files = {p.name: p.read_bytes() for p in folder.iterdir()}  # the WAL as well
        files |= {p.name: p.read_bytes() for p in folder.iterdir()}
        assert any(b"secret" in data for data in files.values()) is text


def test_what_is_left_is_a_record_of_hashes_and_numbers(url: str) -> None:
    record = full_record()
    with Store(url, create=True, text=False) as store:
        store.add([record, replace(record, id="again")])
        one, two = store.records()
        read = one.record
        assert read.text == two.record.text != record.text
        assert len(read.text) == 32
        assert read.generation.n_tokens == 5
        assert read.generation.answer.start == 22  # type: ignore[union-attr]
        assert read.confidence.value == 0.8
        assert read.confidence.reason == "no_answer"
        assert read.decision == Decision("accept", "")
        assert read.request.prompt[0]["role"] == "system"  # type: ignore[index]
        assert read.request.tool_choice == read.request.tools[0]["function"]["name"]
        assert one.prompt_hash == two.prompt_hash


def test_a_store_stays_as_it_was_made(tmp_path: Path) -> None:
    Store(tmp_path / "r.db", create=True, text=False).close()
    with pytest.raises(BadRequest, match="made with text=False"):
        Store(tmp_path / "r.db", text=True)
    with Store(tmp_path / "r.db") as store:
        assert store.text is False


def test_an_early_stop_comes_back_as_its_plan(tmp_path: Path) -> None:
    plan = StopPlan(settled=StopRule("settled", "logprob", -0.1), closing="secret_closing")
    request = make_request("Why?", early_stop=plan)
    told = {"level": "settled", "rule": "logprob >= -0.1", "path": [[3, -0.05]]}
    generation = Generation("so", "settled", n_tokens=3, stopped=told)
    record = Record(request, generation, Confidence())
    for text, kept in ((True, plan), (False, None)):
        with Store(tmp_path / f"{text}.db", create=True, text=text) as store:
            store.add([record])
            (row,) = store.records()
            assert as_asked(row.record.request.early_stop) == kept
            assert row.record.generation.stopped == told
            assert ("secret" in row.data) is text


def test_what_is_taken_away_is_gone_from_the_file(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", create=True) as store:
        store.add([full_record()])
    assert b"secret" in (tmp_path / "r.db").read_bytes()
    with Store(tmp_path / "r.db") as store:
        store.prune(keep_rows=0)
    assert [p.name for p in tmp_path.iterdir()] == ["r.db"]
    assert b"secret" not in (tmp_path / "r.db").read_bytes()


def test_errors_quote_no_value_that_was_to_be_written(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", create=True) as store:
        with _connect.writing(store.engine) as connection:
            connection.execute(sa.text("DROP TABLE bitcal_labels"))
        with pytest.raises(StoreError, match="no such table") as caught:
            store.label("some-id", True, gold=full_record().text)
    assert "secret" not in "".join(traceback.format_exception(caught.value))
