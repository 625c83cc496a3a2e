"""watch: which models can be watched, what is kept of them, and when it ends."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bitcal_integrations import monitor
from bitcal_integrations.errors import BadRequest, MissingExtra
from bitcal_integrations.monitor import Store, StoreError, feedback, watch
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Decision

LONG = 30.0


def toy() -> ToyModel:
    return ToyModel({"Capital of France?": ("Paris", 0.9)})


def test_every_way_of_asking_is_kept_and_gets_feedback(tmp_path: Path) -> None:
    path, model = tmp_path / "records.db", toy()
    with watch(model, f"sqlite:///{path}") as watching:
        record = model.ask("Capital of France?")
        model.ask(["a", "b"])
        list(model.stream("c"))
        assert watching.flush(LONG)
        feedback(record.id, correct=True, store=path)
        rows = list(watching.store.records())
        assert [row.record.request.prompt for row in rows] == ["Capital of France?", "a", "b", "c"]
        assert (rows[0].confidence, rows[0].correct) == (0.9, 1.0)
        assert watching.report() == {
            "store": f"sqlite:///{path}", "written": 4, "waiting": 0, "dropped": 0,
            "unwritable": 0, "pruned": 0, "trouble": None,
        }  # fmt: skip
    model.ask("after the end")
    with Store(path) as store:
        assert store.counts()["records"] == 4


async def test_async_answers_are_kept(tmp_path: Path) -> None:
    model = toy()
    with watch(model, tmp_path / "r.db"):
        await model.aask("a")
        [event async for event in model.astream("b")]
    with Store(tmp_path / "r.db") as store:
        assert [row.record.request.prompt for row in store.records()] == ["a", "b"]


def test_several_models_share_a_store(tmp_path: Path) -> None:
    small, big = ToyModel({}, name="small"), ToyModel({}, name="big")
    with watch([small, big], tmp_path / "r.db") as watching:
        small.ask("a")
        big.ask("a")
        watching.flush(LONG)
        assert [row.model for row in watching.store.records()] == ["small", "big"]
        assert len(list(watching.store.records(model="big"))) == 1


def test_langchain_and_llama_index_models_are_watched_through_what_they_hold(
    tmp_path: Path,
) -> None:
    langchain = pytest.importorskip("bitcal_integrations.langchain")
    llama_index = pytest.importorskip("bitcal_integrations.llama_index")
    model = toy()
    for adapter in (langchain.ChatBitCal(model=model), langchain.BitCalLLM(model=model)):
        with watch(adapter, tmp_path / "r.db"):
            adapter.invoke("Capital of France?")
    llm = llama_index.BitCalLLM(model)
    with watch(llm, tmp_path / "r.db"):
        llm.complete("Capital of France?")
    with Store(tmp_path / "r.db") as store:
        assert [row.confidence for row in store.records()] == [0.9] * 3


def test_a_handler_brings_the_records_of_other_models(tmp_path: Path) -> None:
    langchain = pytest.importorskip("bitcal_integrations.langchain")
    from langchain_core.language_models import FakeListChatModel

    with watch(None, tmp_path / "r.db") as watching:
        handler = langchain.ConfidenceCallbackHandler(sink=watching.see)
        FakeListChatModel(responses=["Paris"]).invoke("?", config={"callbacks": [handler]})
        watching.flush(LONG)
        (row,) = watching.store.records()
        assert row.record.text == "Paris"
        assert row.confidence is None


def test_a_decision_that_comes_later_joins_its_record(tmp_path: Path) -> None:
    model = toy()
    with watch(model, tmp_path / "r.db") as watching:
        record = model.ask("Capital of France?")
        watching.see(replace(record, decision=Decision("accept", "0.90 >= 0.70")))
        watching.flush(LONG)
        (row,) = watching.store.records()
        assert (row.action, row.action_reason) == ("accept", "0.90 >= 0.70")


def test_retention_and_texts_are_options(tmp_path: Path) -> None:
    model = toy()
    with watch(model, tmp_path / "r.db", text=False, keep_rows=3) as watching:
        for _ in range(5):
            model.ask("Capital of France?")
    assert watching.report()["pruned"] == 2
    with Store(tmp_path / "r.db") as store:
        assert store.counts()["records"] == 3
        assert "Paris" not in next(store.records()).data


def test_a_store_that_was_handed_over_stays_open(tmp_path: Path) -> None:
    with Store(tmp_path / "r.db", create=True) as store:
        with watch(model := toy(), store):
            model.ask("a")
        assert store.counts()["records"] == 1


@pytest.mark.parametrize(
    ("model", "options", "why"),
    [
        ("bitcal-tiny", {}, "model='bitcal-tiny'"),
        (toy(), {"max_queue": 0}, "max_queue=0"),
        (toy(), {"interval": -1}, "interval=-1"),
        (toy(), {"interval": math.inf}, "interval=inf"),
        (toy(), {"keep_days": "7"}, "keep_days='7'"),
        (toy(), {"keep_rows": True}, "keep_rows=True"),
        (toy(), {"keep_rows": 2.5}, "keep_rows=2.5"),
        (toy(), {"spans": "mine"}, "spans='mine'"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    tmp_path: Path, model: object, options: dict[str, object], why: str
) -> None:
    with pytest.raises(BadRequest, match=why):
        watch(model, tmp_path / "r.db", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    model = toy()
    with pytest.raises(StoreError, match="unable to open"):
        watch(model, tmp_path / "no folder" / "r.db")
    assert model.ask("Capital of France?").text == "Paris"


def test_the_name_is_the_function_also_after_its_file_was_imported() -> None:
    import bitcal_integrations.monitor.watch as file  # noqa: F401

    assert callable(monitor.watch)
    assert set(monitor.__all__) <= set(dir(monitor))
    assert all(getattr(monitor, name) for name in monitor.__all__)


def test_importing_the_package_needs_no_database_library() -> None:
    code = "\n".join(
        (
            "import sys; sys.modules['sqlalchemy'] = None",
            "from bitcal_integrations import monitor",
            "from bitcal_integrations.errors import MissingExtra",
            "try: monitor.watch(None, 'r.db')",
            "except MissingExtra as err: print(err)",
        )
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'bitcal-integrations[monitor]'" in run.stdout, run.stderr
    assert issubclass(MissingExtra, ImportError)
