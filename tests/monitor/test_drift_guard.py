"""A watched model: told when its profile drifts, and without a confidence if that is asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest, CalibrationError, ProfileError
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.monitor.drift import DriftReport
from bitcal_integrations.monitor.guard import turn_off, watch_drift
from bitcal_integrations.monitor.history import fit_history, told_of
from bitcal_integrations.monitor.store import Store, feedback
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record

MATH, FACTS = "What is 2 + 3?", "What is the capital of France?"


@pytest.fixture(scope="module")
def loaded() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32") as model:
        yield model


@pytest.fixture
def model(loaded: CalibratedModel) -> Iterator[CalibratedModel]:
    profile = loaded.profile
    yield loaded
    loaded.use_profile(profile)


@pytest.fixture
def asked(model: CalibratedModel) -> Record:
    return model.ask(MATH, task="math", max_new_tokens=32)


def drifted(record: Record) -> Record:
    """The same answer with scores that the profile never saw."""
    signals = {name: value - 3.0 for name, value in record.confidence.signals.items()}
    signals["confidence"] = 0.01
    return replace(record, confidence=replace(record.confidence, signals=signals))


def expire(watch: Any, record: Record, n: int = 60) -> None:
    for _ in range(n):
        watch.see(drifted(record))


def test_answers_are_seen_until_it_is_closed(model: CalibratedModel) -> None:
    with watch_drift(model) as watch:
        model.ask([MATH, MATH], task="math", max_new_tokens=32)
        model.ask(FACTS, task="facts", max_new_tokens=8)
    model.ask(MATH, task="math", max_new_tokens=32)
    reports = watch.report()
    assert set(reports) == set(model.profile.tasks)
    assert reports["math"].answers == 2
    assert reports["facts"].answers == 1
    assert all(report.state == "ok" for report in reports.values())


def test_drift_is_told_and_changes_nothing(
    model: CalibratedModel, asked: Record, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[DriftReport] = []
    with caplog.at_level(logging.WARNING), watch_drift(model, tell=told.append) as watch:
        expire(watch, asked)
    assert [report.state for report in told] in (["watch", "expired"], ["expired"])
    assert "task 'math': expired: far the scores are unlike those measured" in caplog.text
    again = model.ask(MATH, task="math", max_new_tokens=32)
    assert again.confidence.value == asked.confidence.value


def test_an_expired_task_has_no_confidence_and_all_else(
    model: CalibratedModel, asked: Record
) -> None:
    before = model.ask(FACTS, task="facts", max_new_tokens=8)
    with watch_drift(model, on_drift="unknown") as watch:
        expire(watch, asked)
        after = model.ask(MATH, task="math", max_new_tokens=32)
        facts = model.ask(FACTS, task="facts", max_new_tokens=8)
    assert asked.confidence.value is not None
    assert after.confidence.value is None
    assert not after.confidence.calibrated
    assert after.confidence.low is after.confidence.high is None
    assert after.confidence.reason.startswith("expired: far the scores are unlike")
    assert after.text == asked.text
    assert after.confidence.raw == asked.confidence.raw
    assert after.confidence.signals == asked.confidence.signals
    assert after.confidence.profile == asked.confidence.profile
    assert facts.confidence.value == before.confidence.value
    # Closing turns nothing on again; taking a profile does.
    assert model.ask(MATH, task="math", max_new_tokens=32).confidence.value is None
    model.use_profile(model.profile)
    assert model.ask(MATH, task="math", max_new_tokens=32).confidence.value is not None


def test_early_stops_of_an_expired_task_are_not_in_force(model: CalibratedModel) -> None:
    turn_off(model, model.profile, "math", "it moved")
    record = model.ask(MATH, task="math", max_new_tokens=32, early_stop="balanced")
    assert record.generation.stopped is not None
    assert record.generation.stopped["reason"] == "early_stop='balanced': expired: it moved"


def test_two_tasks_can_expire(model: CalibratedModel, asked: Record) -> None:
    profile = model.profile
    assert turn_off(model, profile, "math", "a")
    assert turn_off(model, profile, "facts", "b")
    assert not turn_off(model, profile, "math", "a")
    assert model.ask(FACTS, task="facts", max_new_tokens=8).confidence.reason == "expired: b"
    assert model.ask(MATH, task="math", max_new_tokens=32).confidence.reason == "expired: a"


def test_another_profile_begins_anew(model: CalibratedModel, asked: Record) -> None:
    with watch_drift(model, on_drift="unknown") as watch:
        expire(watch, asked)
        assert watch.report()["math"].state == "expired"
        old = model.profile
        model.use_profile(replace(old, made_with={**old.made_with, "refit": "1"}))
        assert watch.report()["math"].state == "ok"
        assert not turn_off(model, old, "math", "late news of the old profile")
        assert model.ask(MATH, task="math", max_new_tokens=32).confidence.value is not None


def test_requests_under_way_come_through_an_expiry(model: CalibratedModel, asked: Record) -> None:
    found: list[Record] = []
    running = threading.Event()

    def ask() -> None:
        for index, result in model.ask_each([MATH] * 24, task="math", max_new_tokens=32):
            assert not isinstance(result, Exception), index
            found.append(result)
            running.set()

    thread = threading.Thread(target=ask)
    with watch_drift(model, on_drift="unknown") as watch:
        thread.start()
        assert running.wait(30)
        expire(watch, asked)
        thread.join()
    values = [record.confidence.value for record in found]
    assert len(values) == 24
    assert values[0] is not None
    assert {r.text for r in found} == {asked.text}
    for record in found:
        known = record.confidence.value is not None
        assert known != record.confidence.reason.startswith("expired")


def test_labels_expire_it_as_well(model: CalibratedModel) -> None:
    sure = model.ask(FACTS, task="facts", max_new_tokens=8)
    with watch_drift(model, on_drift="unknown") as watch:
        for _ in range(40):
            watch.label(sure, False)
        assert watch.report()["facts"].state == "expired"
    reason = model.ask(FACTS, task="facts", max_new_tokens=8).confidence.reason
    assert "of 40 labelled answers" not in reason  # it says what was seen when it expired
    assert "labelled answers" in reason


def test_labels_are_pulled_from_a_store_once(model: CalibratedModel, tmp_path: Path) -> None:
    with Store(tmp_path / "records.db", create=True) as store, watch_drift(model) as watch:
        records = model.ask([FACTS] * 3, task="facts", max_new_tokens=8)
        store.add(records)
        assert watch.pull(store) == 0
        feedback(records[0].id, False, source="anna", store=store)
        feedback(records[1].id, False, source="user", store=store)  # of the user's own accord
        assert watch.pull(store) == 1
        assert watch.pull(store) == 0
        assert watch.report()["facts"].labels == 1


def test_an_adapter_is_watched_through_its_model(model: CalibratedModel) -> None:
    chat = ChatBitCal(model=model, max_tokens=32, task="math")
    with watch_drift(chat) as watch:
        chat.invoke(MATH)
        assert watch.report()["math"].answers == 1


def test_what_cannot_be_watched_is_refused(model: CalibratedModel) -> None:
    with pytest.raises(ProfileError, match="no profile that could drift"):
        watch_drift(ToyModel({}))
    with pytest.raises(ProfileError, match="no profile that could drift"):
        watch_drift(model.without_profile())
    with pytest.raises(BadRequest, match="on_drift='off' is not allowed: use tell or unknown"):
        watch_drift(model, on_drift="off")  # type: ignore[arg-type]


def test_a_history_model_has_the_last_word_until_a_profile_is_taken(model: CalibratedModel) -> None:
    asked = [f"What is the capital of {c}?" for c in ("France", "Japan", "Italy", "Spain")] * 10
    before = model.ask(asked, task="facts", max_new_tokens=8)
    profile = model.profile
    told = [told_of(r.request, r.text, r.confidence, "facts") for r in before]
    y = [float("Paris" in r.text or "Rome" in r.text) for r in before]
    history = fit_history(told, y, signals=("mean_entropy",), text=True)
    history.attach(model)
    after = model.ask(asked[:4], task="facts", max_new_tokens=8)
    assert [r.text for r in after] == [r.text for r in before[:4]]
    p = [r.confidence.value for r in after]
    assert p == pytest.approx(history(told[:4]).tolist())
    assert p != [r.confidence.value for r in before[:4]]
    assert all(r.confidence.low <= r.confidence.value <= r.confidence.high for r in after)
    assert all("of a history model" in r.confidence.interval for r in after)
    assert set(after[0].confidence.signals) == set(before[0].confidence.signals)
    assert model.profile.task("facts").certificates == ()
    other = model.ask("What is 2 + 3?", task="math", max_new_tokens=32).confidence
    assert other.value is None
    assert "history knows nothing" in other.reason
    assert turn_off(model, model.profile, "facts", "it moved")
    assert model.ask(asked[0], task="facts", max_new_tokens=8).confidence.value is None
    model.use_profile(profile)
    again = model.ask(asked[0], task="facts", max_new_tokens=8)
    assert again.confidence.value == pytest.approx(before[0].confidence.value, abs=1e-3)
    with pytest.raises(CalibrationError, match="the model's profile is none"):
        history.attach(ToyModel({}))
