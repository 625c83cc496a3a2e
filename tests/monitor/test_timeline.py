"""A store over time: counts by hand, weighed labels, drift, and pages that load nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drift_help import answers, made_profile, record_of

from bitcal_integrations.monitor._hours import Hour, merged, period_length, saving_of
from bitcal_integrations.monitor.labels import pick_labels
from bitcal_integrations.monitor.store import Store
from bitcal_integrations.monitor.stored import drift_of
from bitcal_integrations.monitor.timeline import prepare_timeline
from bitcal_integrations.report.timeline import draw_timeline_html
from bitcal_integrations.report.timeline_text import draw_timeline_markdown
from bitcal_integrations.types import Confidence, Decision, Record, make_request

PROFILE = made_profile("math", "facts", n=1000)
START, DAY = 20_000 * 86_400.0, 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "records.db", create=True) as opened:
        yield opened


def put(store: Store, at: float, number: int, row: Any = (0.7, 0.5), **kind: Any) -> Record:
    record = record_of(PROFILE, row, number, task=kind.pop("task", "math"), **kind)
    store.add([record], at=at)
    return record


def days(store: Store, n: int = 60) -> None:
    """Four days, the last of which brings another kind of question; every second one labelled."""
    for day in range(4):
        x, y = answers(n, day, hard=2.5 if day == 3 else 0.0)
        for i, row in enumerate(x):
            number = 100 * day + i
            record = put(store, START + day * DAY + 60 * i, number, row)
            if i % 2 == 0:
                store.label(record.id, bool(y[i]), source="grader")


# ---- numbers -----------------------------------------------------------------------------------


def test_counts_by_hand(store: Store) -> None:
    put(store, START, 1, decision=Decision("accept", ""), seconds=0.2)
    put(store, START + 60, 2, decision=Decision("escalate", ""), seconds=0.2)
    put(store, START + 90, 3, finish="settled", seconds=2.0)
    empty = record_of(PROFILE, (0.7, 0.5), 4, task="math")
    store.add([replace(empty, confidence=Confidence(reason="no_answer: empty", task="math"))],
              at=START + 7200)  # fmt: skip
    t = prepare_timeline(store)
    first, last = t.periods
    assert (t.seconds, first.start, last.start) == (3600, START, START + 7200)
    assert (first.answers, first.escalated, first.stopped) == (3, 0.5, 1 / 3)
    assert (last.unknown, last.confidence, last.escalated) == (1.0, None, None)
    assert t.total.answers == 4
    assert t.total.unknown == 0.25
    assert first.seconds_p50 == pytest.approx(0.2, rel=0.13)
    assert first.seconds_p95 == pytest.approx(2.0, rel=0.13)
    assert t.reasons == (("no_answer", 1),)
    assert t.tasks == (("math", 4),)
    assert t.total.accuracy is t.brier is t.gap is t.saved is None


def test_periods_are_few_and_hours_add_up() -> None:
    assert period_length([5]) == 1
    assert period_length([0, 31]) == 1
    assert period_length([0, 32]) == 6
    assert period_length([0, 24 * 20]) == 24
    assert period_length([0, 24 * 3000]) == 24 * 28
    hours = {n: Hour(answers=1) for n in range(30)}
    assert [(start, hour.answers) for start, hour in merged(hours, 24)] == [(0, 24), (24, 6)]


def test_labels_are_weighed_and_those_of_users_shown_as_wrong_only(store: Store) -> None:
    x, y = answers(500, 1)
    for i, row in enumerate(x):
        put(store, START + i, i, row)
    for pick in pick_labels(store, 120):
        store.label(pick.record_id, bool(y[int(pick.record_id.split("-")[1])]))
    chosen = {p.record_id for p in store.picks()}
    wrong = [i for i in range(500) if not y[i] and f"record-{i}" not in chosen][:50]
    for i in wrong:
        store.label(f"record-{i}", False, gold=f"gold {i}")
    t = prepare_timeline(store)
    assert t.total.accuracy is not None
    assert t.total.accuracy.low <= y.mean() <= t.total.accuracy.high
    assert t.total.labels == 120
    assert (t.unchosen, t.open) == (50, 0)
    assert sum(b.labels for b in t.bins) == 120
    assert all(b.low <= b.confidence <= b.high for b in t.bins)
    assert len(t.wrong) == 10
    values = [w.confidence for w in t.wrong]
    assert values == sorted(values, reverse=True)
    every = [row for row in store.records(labelled=True) if row.correct == 0]
    assert values[0] == max(row.confidence or 0 for row in every)


def test_drift_is_told_of_each_task_of_the_profile(store: Store) -> None:
    days(store)
    t = prepare_timeline(store, PROFILE)
    states = {report.task: report.state for report in t.drift}
    assert states == {"math": "expired", "facts": "ok"}
    assert 180 < next(r for r in t.drift if r.task == "math").since <= 240
    assert prepare_timeline(store).drift == ()
    before = prepare_timeline(store, PROFILE, "math", until=START + 3 * DAY)
    assert [r.state for r in before.drift] == ["ok"]


def test_what_early_stops_promised_to_spare() -> None:
    def asked(value: Any) -> float | None:
        record = record_of(PROFILE, (0.7, 0.5), task="math")
        request = replace(make_request(record.request.prompt), early_stop=value)
        return saving_of(replace(record, request=request))

    plan = {"closing": "x", "promise": {"saved": 0.4, "max_loss": 0.02}}
    assert asked(plan) == asked({"plan": plan, "max_loss": 0.02}) == 0.4
    for nothing in (None, "fast", {"closing": "x", "promise": None}, {"plan": None}):
        assert asked(nothing) is None


# ---- pages -------------------------------------------------------------------------------------


def test_the_page_loads_nothing_and_escapes_everything(store: Store) -> None:
    days(store)
    bad = put(store, START, 999, (0.99, 0.1), prompt="<script>alert(1)</script>", text="<b>x</b>")
    store.label(bad.id, False, gold="<i>")
    page = draw_timeline_html(prepare_timeline(store, PROFILE, title="A & <B>"))
    assert page.startswith("<!DOCTYPE html>")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "A &amp; &lt;B&gt;" in page
    assert not re.search(r"""(?:src|href)=|url\(|https?://""", page)
    for title in ("Does the profile still hold?", "Reliability", "Latency", "Tokens", "expired"):
        assert title in page


def test_both_drawings_say_the_same(store: Store) -> None:
    days(store)
    t = prepare_timeline(store, PROFILE, title="Four days")
    page, text = draw_timeline_html(t), draw_timeline_markdown(t)
    assert text.startswith("# Four days\n")
    for said in (
        "240 answers of made up",
        "120 labels",
        "Task math: expired",
        "Task facts: no answer",
    ):
        assert said in page
        assert said in text
    assert "| 2024-10-04 00:00 | 60 |" in text


def test_an_empty_store_and_one_without_texts(tmp_path: Path) -> None:
    with Store(tmp_path / "quiet.db", create=True, text=False) as store:
        t = prepare_timeline(store, PROFILE)
        assert "There are no answers" in draw_timeline_html(t)
        assert "There are no answers" in draw_timeline_markdown(t)
        record = put(store, START, 1, prompt="A secret?", text="A secret!")
        store.label(record.id, False, gold="Hidden")
        t = prepare_timeline(store, PROFILE)
    assert (t.wrong[0].prompt, t.wrong[0].answer, t.wrong[0].gold) == (None, None, None)
    for drawn in (draw_timeline_html(t), draw_timeline_markdown(t)):
        assert "not kept in this store" in drawn
        assert not re.search("secret|Hidden", drawn)


def test_one_answer_can_be_drawn(store: Store) -> None:
    put(store, START, 1, seconds=0.0)
    t = prepare_timeline(store)
    assert np.isfinite([p.answers for p in t.periods]).all()
    assert "1 answer" in draw_timeline_html(t)
    assert "nan" not in draw_timeline_html(t).lower()


def test_drift_of_a_store_is_that_of_its_answers_and_labels(store: Store) -> None:
    days(store)
    assert drift_of(store, PROFILE, "math").state == "expired"
    before = drift_of(store, PROFILE, "math", until=START + 3 * DAY)
    assert (before.state, before.answers, before.labels) == ("ok", 180, 90)
    assert drift_of(store, PROFILE, "facts").answers == 0
    for row in list(store.records(until=START + DAY)):
        if row.label is None:
            store.label(row.id, False)  # what users report says nothing about the rest
    assert drift_of(store, PROFILE, "math", until=START + DAY).labels == 30
