"""`bitcal label STORE`: picked answers are shown, and verdicts count as labels of a review."""

from __future__ import annotations

from pathlib import Path

from bitcal_integrations import monitor
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.monitor.labels import estimate, open_picks
from bitcal_integrations.monitor.store import Store
from bitcal_integrations.testing.toy import ToyModel

from .conftest import Bitcal

TABLE = {f"Question {n}?": (f"yes{n}", 0.3 + n / 60, f"no{n}") for n in range(40)}


def filled(path: Path, text: bool = True) -> Path:
    with CalibratedModel(ToyModel(TABLE)._engine, "toy") as model:
        records = model.ask(list(TABLE))
    with Store(path, create=True, text=text) as store:
        store.add(records)
    return path


def test_picks_are_shown_and_verdicts_kept(bitcal: Bitcal, tmp_path: Path) -> None:
    path = filled(tmp_path / "records.db")
    assert "--pick N picks more" in bitcal("label", path).stdout
    said = bitcal("label", path, "--pick", "5", stdin="r\nw\ns\nq\n")
    assert said.exit_code == 0, said.output
    with Store(path) as store:
        labelled = list(store.records(labelled=True))
        assert {row.correct for row in labelled} == {0.0, 1.0}
        assert {row.label.source for row in labelled if row.label} == {"review"}
        assert all(row.pick for row in labelled)
        left = len(open_picks(store))
    assert f"2 judged, {left} left" in said.stdout
    for row in labelled:
        assert str(row.record.request.prompt) in said.stdout
    rest = bitcal("label", path, stdin="r\n" * left)
    assert f"{left} judged, 0 left" in rest.stdout
    seen = bitcal("label", path, "--again", stdin="q\n")
    assert f"1 of {left + 2}" in seen.stdout


def test_a_store_without_text_has_nothing_to_show(bitcal: Bitcal, tmp_path: Path) -> None:
    result = bitcal("label", filled(tmp_path / "records.db", text=False), "--pick", "5")
    assert result.exit_code == 1
    assert "keeps no text" in result.stderr


def test_a_number_of_picks(bitcal: Bitcal, tmp_path: Path) -> None:
    result = bitcal("label", filled(tmp_path / "records.db"), "--pick", "-3")
    assert result.exit_code == 1
    assert "-3" in result.stderr


def test_pick_is_for_stores(bitcal: Bitcal, tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text("")
    result = bitcal("label", tmp_path / "answers.jsonl", "--pick", "5")
    assert result.exit_code == 1
    assert "--pick is for a store of records" in result.stderr


def test_a_picked_answer_of_a_watch(bitcal: Bitcal, tmp_path: Path) -> None:
    """The way of README: watch, pick, look, and the labels weigh in an estimate."""
    path = tmp_path / "watched.db"
    toy = CalibratedModel(ToyModel(TABLE)._engine, "toy")
    with toy as model, monitor.watch(model, path) as watching:
        model.ask(list(TABLE))
        watching.flush()
    bitcal("label", path, "--pick", "40", stdin="r\n" * 40)
    with Store(path) as store:
        found = estimate(store)
    assert found.accuracy is not None
    assert found.accuracy.value == 1.0
    assert found.open == 0
