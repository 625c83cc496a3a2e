"""Drift: silence on more of the same, alarms on something else, and what is counted."""

from __future__ import annotations

import json
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from drift_help import answers, made_profile, measured, record_of, records_of

from bitcal_integrations.errors import BadRequest, ProfileError
from bitcal_integrations.monitor._evidence import LARGE, SMALL, ScoreTest
from bitcal_integrations.monitor.drift import DriftMonitor, Limits
from bitcal_integrations.types import Confidence, Decision

PROFILE = made_profile()


# ---- scores ------------------------------------------------------------------------------------


def test_more_of_the_same_is_no_drift() -> None:
    for seed in range(4):
        profile = made_profile(n=500, seed=seed)
        x, y = answers(800, 100 + seed)
        monitor = DriftMonitor(profile)
        for number, row in enumerate(x):
            record = record_of(profile, row, number)
            monitor.see(record)
            if number % 10 == 0:
                monitor.label(record, bool(y[number]))
        assert monitor.state == "ok", str(monitor.report())


def test_another_kind_of_question_is() -> None:
    x, _ = answers(300, 1, hard=2.0)
    monitor = DriftMonitor(PROFILE)
    worse = [monitor.see(record) for record in records_of(PROFILE, x)]
    report = monitor.report()
    assert report.state == monitor.state == "expired"
    assert sum(worse) == 2  # watch, then expired
    assert report.since < 100
    assert report.evidence["scores_far"] >= report.needed == 100
    assert report.labels == 0
    (reason,) = report.reasons
    assert "unlike those measured" in reason
    assert "when it was measured" in reason
    assert "confidence is at most" in reason or "mean_entropy is at most" in reason
    assert json.loads(json.dumps(report.to_dict()))["state"] == "expired"
    assert str(report).startswith("expired: ")


def test_a_small_move_is_only_watched() -> None:
    x, _ = answers(2000, 3, hard=0.4)
    report = DriftMonitor(made_profile(n=8000)).see_all(records_of(PROFILE, x))
    assert report.state == "watch"
    assert report.evidence["scores_far"] < report.needed


def test_the_reason_gives_the_shares_on_the_scale_of_the_signal() -> None:
    test = ScoreTest(measured(n=1000).calibrator, 0.01)
    x = np.tile([0.05, 1.5], (50, 1))
    for row in x:
        test.see(row)
    distance, words = test.moved()
    median = np.median(answers(1000, 0)[0][:, 0])
    assert distance > 0.9
    name, cut = (
        words.split(" is at most ")[0],
        float(words.split(" is at most ")[1].split(" in ")[0]),
    )
    if name == "confidence":
        assert 0.05 <= cut <= median
    assert test.moved()[1].endswith("when it was measured")


def test_signals_of_few_values_raise_no_alarm() -> None:
    rng = np.random.default_rng(5)

    def some(n: int) -> np.ndarray:
        return np.column_stack(
            [rng.choice([0.2, 0.5, 0.9], n), rng.integers(3, 8, n).astype(float)]
        )

    from bitcal_integrations.calibrators import fit_calibrator

    cal = fit_calibrator(some(1000), rng.random(1000) < 0.7, method="platt")
    test = ScoreTest(cal, 0.01)
    for row in some(5000):
        test.see(row)
    assert test.bets.most[SMALL] < 20
    for _ in range(100):
        test.see(np.array([0.2, 7.0]))
    assert test.bets.most[LARGE] > 100


# ---- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("worse", [0.25, -0.25])
def test_labels_that_contradict_the_confidence_expire_it(worse: float) -> None:
    x, y = answers(800, 6, worse=worse)
    monitor = DriftMonitor(PROFILE)
    for number, record in enumerate(records_of(PROFILE, x)):
        monitor.label(record, bool(y[number]))
    report = monitor.report()
    assert report.state == "expired"
    assert report.labels == 800
    assert report.answers == 0
    assert "does not come true" in report.reasons[0]
    assert "were right" in report.reasons[0]


def test_a_third_of_the_confidences_that_is_wrong_is_found() -> None:
    x, y = answers(1000, 7)
    p = PROFILE.task().calibrator(x)
    y[p > 0.8] = np.random.default_rng(8).random((p > 0.8).sum()) < 0.6
    monitor = DriftMonitor(PROFILE)
    for number, record in enumerate(records_of(PROFILE, x)):
        monitor.label(record, y[number])
    assert monitor.state == "expired"
    assert "with a confidence from 0.8 to 1" in monitor.report().reasons[0]


def test_labels_chosen_by_confidence_raise_no_alarm() -> None:
    x, y = answers(1500, 9)
    chosen = np.flatnonzero(PROFILE.task().calibrator(x) > 0.8)
    monitor = DriftMonitor(PROFILE)
    for i in chosen:
        monitor.label(record_of(PROFILE, x[i], int(i)), y[i])
    assert monitor.state == "ok"


def test_a_share_stands_for_judges_who_differ() -> None:
    monitor = DriftMonitor(PROFILE)
    monitor.label(record_of(PROFILE, [0.7, 0.5]), 0.5)
    assert monitor.report().labels == 1
    for bad in (-0.1, 1.5, math.nan):
        with pytest.raises(BadRequest, match="correct="):
            monitor.label(record_of(PROFILE, [0.7, 0.5]), bad)


# ---- what is counted ---------------------------------------------------------------------------


def test_what_is_not_of_this_task_and_model_is_ignored() -> None:
    profile = made_profile("math", "facts")
    monitor = DriftMonitor(profile, "math")
    theirs = record_of(profile, [0.7, 0.5], task="facts")
    other = record_of(profile, [0.7, 0.5], task="math")
    other = replace(other, confidence=replace(other.confidence, profile="another"))
    assert not monitor.see(theirs)
    assert not monitor.see(other)
    assert monitor.report().numbers["answers"] == 0
    monitor.see(record_of(profile, [0.7, 0.5]))  # "default" is math
    assert monitor.report().answers == 1


def test_what_has_no_answer_is_unknown_and_compared_with_nothing() -> None:
    monitor = DriftMonitor(PROFILE)
    whole = record_of(PROFILE, [0.7, 0.5])
    empty = replace(whole, confidence=Confidence(reason="no_answer: the text is empty"))
    cut = replace(empty, generation=replace(empty.generation, finish="cancelled"))
    for record in (whole, empty, cut):
        monitor.see(record)
    report = monitor.report()
    assert report.answers == 1
    assert report.numbers["answers"] == 2
    assert report.numbers["unknown"] == 0.5


def test_numbers_of_the_last_answers() -> None:
    monitor = DriftMonitor(PROFILE, policy=0.6)
    kinds = [{"finish": "settled"}, {"seconds": 0.3}, {"decision": Decision("accept", "")}, {}]
    for number, kind in enumerate(kinds):
        monitor.see(record_of(PROFILE, [0.3, 1.0], number, **kind))
    numbers = monitor.report().numbers
    assert numbers["escalated"] == 0.75  # one record says itself that it was accepted
    assert numbers["stopped"] == 0.25
    assert numbers["tokens"] == 5
    assert numbers["seconds_p50"] == pytest.approx(0.1)
    assert DriftMonitor(PROFILE).report().numbers["escalated"] is None


@pytest.mark.parametrize(
    ("limits", "kind", "words"),
    [
        (Limits(escalated=0.2), {"decision": Decision("escalate", "")}, "more than 20% of the"),
        (Limits(seconds=1.0), {"seconds": 2.0}, "longer than 1 s"),
        (Limits(stopped=0.3), {}, "less than 30% of the answers are stopped"),
    ],
)
def test_a_crossed_limit_is_told(limits: Limits, kind: dict[str, object], words: str) -> None:
    x, _ = answers(200, 10)
    monitor = DriftMonitor(PROFILE, limits=limits)
    for record in records_of(PROFILE, x, **kind):
        monitor.see(record)
    report = monitor.report()
    assert report.state == "watch"
    assert words in report.reasons[0]


def test_limits_that_are_kept_are_not_told() -> None:
    x, _ = answers(500, 11)
    limits = Limits(escalated=0.5, unknown=0.2, seconds=1.0)
    monitor = DriftMonitor(PROFILE, limits=limits, policy=0.4)
    assert monitor.see_all(records_of(PROFILE, x)).state == "ok"


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"alpha=2\.0"):
        DriftMonitor(PROFILE, alpha=2.0)
    with pytest.raises(ProfileError, match="no task 'poetry'"):
        DriftMonitor(PROFILE, "poetry")
    for bad in (0, 1.5, True, "all"):
        with pytest.raises(BadRequest, match="escalated="):
            Limits(escalated=bad)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="seconds above 0"):
        Limits(seconds=-1)


def test_many_threads_lose_no_answer() -> None:
    monitor, x = DriftMonitor(PROFILE), answers(400, 12)[0]
    start = threading.Barrier(8)

    def see(rows: np.ndarray) -> None:
        start.wait()
        for record in records_of(PROFILE, rows):
            monitor.see(record)

    threads = [threading.Thread(target=see, args=(rows,)) for rows in np.split(x, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.report().answers == 400


def test_an_answer_that_ended_early_is_not_compared_with_whole_ones() -> None:
    monitor = DriftMonitor(PROFILE)
    early = record_of(PROFILE, [0.01, 3.0], finish="settled")
    for _ in range(200):
        monitor.see(early)
        monitor.label(early, False)
    report = monitor.report()
    assert (report.state, report.answers, report.labels) == ("ok", 0, 0)
    assert report.numbers["stopped"] == 1.0
