"""Refits: taken where they are better on held-out labels, refused with the numbers where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drift_help import PARTS, answers, made_profile, measured, record_of

from bitcal_integrations import metrics
from bitcal_integrations.decide import certify_threshold
from bitcal_integrations.errors import CalibrationError, UnknownName
from bitcal_integrations.monitor._held_out import crossed
from bitcal_integrations.monitor.drift import DriftMonitor
from bitcal_integrations.monitor.history import HistoryModel, Told, fit_history
from bitcal_integrations.monitor.labels import pick_labels
from bitcal_integrations.monitor.refit import refit_profile
from bitcal_integrations.monitor.relearn import refit_history
from bitcal_integrations.monitor.store import Store
from bitcal_integrations.profile import Profile


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "records.db", create=True) as opened:
        yield opened


def fill(
    store: Store, profile: Profile, n: int, seed: int = 1, source: str = "grader", **kind: Any
) -> None:
    """Answers with a label for each."""
    x, y = answers(n, seed, **kind)
    store.add(record_of(profile, row, i) for i, row in enumerate(x))
    for i in range(n):
        store.label(f"record-{i}", bool(y[i]), source=source)


def certified() -> Profile:
    x, y = answers(600, 50)
    one = measured(n=600)
    found = certify_threshold(one.calibrator(x), y, max_error=0.2)
    one = replace(one, certificates=(found,), seen={"fit": "AAAAAA=="})
    return Profile(PARTS, {"default": one, "other": measured(n=100)}, "default")


# ---- the profile's calibrator ------------------------------------------------------------------


def test_labels_that_contradict_it_give_a_better_profile(store: Store) -> None:
    old = certified()
    before = old.to_dict()
    fill(store, old, 400, worse=0.25)
    found = refit_profile(store, old)
    assert found.profile is not None
    assert found.new < found.old
    assert found.high < 0
    assert found.n == found.questions == 400
    assert "goes from" in found.reason
    new, x, y = found.profile, *answers(3000, 60, worse=0.25)
    assert metrics.brier(new.task().calibrator(x), y) < metrics.brier(old.task().calibrator(x), y)
    assert metrics.ece(new.task().calibrator(x), y) < 0.08
    # What was promised is void, all else is as it was, and the old profile is untouched.
    assert new.task().certificates == ()
    assert new.fingerprint == old.fingerprint
    assert new.task("other") == old.task("other")
    assert old.to_dict() == before
    assert new.task().counts["fit"] == new.task().scores["calibrated"]["n"] == 400
    assert new.task().scores["calibrated"]["brier"] == pytest.approx(found.new)
    assert new.task().part_of("Question 3?") == "fit"
    assert new.task().part_of("Question 9999?") == "report"
    assert new.task().seen["fit"] != old.task().seen["fit"]


def test_it_can_be_saved_and_read(store: Store, tmp_path: Path) -> None:
    old = certified()
    fill(store, old, 300, worse=0.25)
    found = refit_profile(store, old)
    assert found.profile is not None
    found.profile.save(tmp_path / "new.json")
    again = Profile.load(tmp_path / "new.json")
    assert again.task().calibrator == found.profile.task().calibrator


def test_a_refit_that_is_no_better_is_refused_with_the_numbers(store: Store) -> None:
    old = made_profile(n=4000)
    fill(store, old, 200)
    found = refit_profile(store, old)
    assert found.profile is None
    assert found.high >= 0
    assert "no clear improvement" in found.reason
    assert f"{found.old:.4f}" in found.reason
    assert f"{found.new:.4f}" in found.reason


def test_few_labels_move_the_offset(store: Store) -> None:
    old = made_profile(n=4000)
    fill(store, old, 120, worse=0.4)
    found = refit_profile(store, old, method="adapt")
    assert found.profile is not None
    assert found.method == "adapt"
    assert found.profile.task().calibrator.adapted == 120
    assert refit_profile(store, old).method in ("auto", "adapt")


def test_the_reference_is_that_of_all_answers_not_of_the_chosen_ones(store: Store) -> None:
    old = made_profile(n=1000)
    x, y = answers(1500, 2, worse=0.3)
    store.add(record_of(old, row, i) for i, row in enumerate(x))
    for pick in pick_labels(store, 300):
        store.label(pick.record_id, bool(y[int(pick.record_id.split("-")[1])]))
    new = refit_profile(store, old, method="platt").profile
    assert new is not None
    assert new.task().calibrator.reference.n == 1500
    monitor = DriftMonitor(new)
    more, _ = answers(800, 3)
    for i, row in enumerate(more):
        monitor.see(record_of(new, row, i))
    assert monitor.state == "ok"
    assert new.task().calibrator.shift(more).in_domain


def test_the_comparison_is_weighed_by_the_chance_of_being_chosen(store: Store) -> None:
    old = made_profile(n=1000)
    x, y = answers(1200, 4, worse=0.25)
    store.add(record_of(old, row, i) for i, row in enumerate(x))
    for pick in pick_labels(store, 400):
        store.label(pick.record_id, bool(y[int(pick.record_id.split("-")[1])]))
    found = refit_profile(store, old, method="logistic")
    truth = metrics.brier(old.task().calibrator(x), y)
    assert found.old == pytest.approx(truth, abs=0.02)
    assert found.profile is not None
    scores = found.profile.task().scores
    assert scores["calibrated"]["accuracy"] == pytest.approx(y.mean(), abs=0.04)
    assert scores["calibrated"]["brier"] == found.new
    assert scores["calibrated"]["ece"] is None  # nothing says how to weigh it


def test_what_users_report_is_left_out_unless_asked_for(store: Store) -> None:
    old = made_profile(n=1000)
    fill(store, old, 100, source="user", worse=0.3)
    with pytest.raises(CalibrationError, match="100 given by users of their own accord"):
        refit_profile(store, old)
    assert refit_profile(store, old, all_labels=True).n == 100


def test_copies_of_a_question_are_one(store: Store) -> None:
    old, (x, y) = made_profile(n=1000), answers(300, 5, worse=0.2)
    store.add(
        record_of(old, row, i, prompt=f"Question {i % 30}?", id=f"r{i}") for i, row in enumerate(x)
    )
    for i in range(300):
        store.label(f"r{i}", bool(y[i]), source="grader")
    found = refit_profile(store, old)
    assert (found.n, found.questions) == (300, 30)


def test_a_group_is_never_on_both_sides() -> None:
    groups = np.arange(60) // 3
    sides = []

    def fit(kept: Any) -> Any:
        sides.append(kept)
        return lambda rows: np.isin(groups[rows], groups[kept]).astype(float)

    assert crossed(fit, groups).max() == 0
    assert len(sides) == 5


def test_too_few_labels_and_wrong_names_are_told(store: Store) -> None:
    old = made_profile(n=500)
    fill(store, old, 12)
    store.label("record-3", 0.5, source="grader")
    with pytest.raises(CalibrationError, match=r"11 labels of 11 questions .* 1 that say neither"):
        refit_profile(store, old)
    fill(store, old, 30)
    with pytest.raises(UnknownName, match="magic"):
        refit_profile(store, old, method="magic")


def test_a_store_without_texts_is_enough(tmp_path: Path) -> None:
    old = certified()
    with Store(tmp_path / "quiet.db", create=True, text=False) as store:
        fill(store, old, 300, worse=0.25)
        assert refit_profile(store, old).profile is not None


# ---- the history model -------------------------------------------------------------------------


def told(n: int, seed: int, shuffled: bool = False) -> tuple[list[Told], Any]:
    """Answers of two weight types and two tasks, whose wording says more than their signals."""
    rng = np.random.default_rng(seed)
    x, _ = answers(n, seed)
    weights, tasks = rng.integers(0, 2, n), rng.integers(0, 2, n)
    doubt = rng.random(n) < 0.4
    logit = 2 * (x[:, 0] - 0.7) + 1.6 * weights - 1.4 * tasks - 1.5 * doubt + 0.8
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
    rows = [
        Told(
            ("int4", "int8")[weights[i]], ("math", "facts")[tasks[i]], float(x[i, 0]),
            {"mean_entropy": float(x[i, 1])}, f"What is thing {i}?",
            "Maybe it is 4." if doubt[i] else "It is 4.",
        )
        for i in range(n)
    ]  # fmt: skip
    return rows, rng.permutation(y) if shuffled else y


def auroc(model: HistoryModel, seed: int) -> tuple[float, float]:
    rows, y = told(3000, seed)
    signals = [[r.confidence for r in rows], [-r.signals["mean_entropy"] for r in rows]]
    return metrics.auroc(model(rows), y), max(
        metrics.auroc(np.clip(s, -5, 1) / 6 + 5 / 6, y) for s in signals
    )


def test_history_beats_the_best_signal_and_shuffled_history_does_not() -> None:
    rows, y = told(500, 1)
    model = fit_history(rows, y, signals=("mean_entropy",))
    mine, best = auroc(model, 2)
    assert mine >= best + 0.02
    mixed, labels = told(500, 1, shuffled=True)
    chance, _ = auroc(fit_history(mixed, labels, signals=("mean_entropy",)), 2)
    assert chance < best + 0.02


def test_a_history_model_is_plain_json_and_knows_what_it_has_not_seen(tmp_path: Path) -> None:
    rows, y = told(300, 3)
    model = fit_history(rows, y, signals=("mean_entropy",))
    model.save(tmp_path / "history.json")
    again = HistoryModel.load(tmp_path / "history.json")
    assert again == model
    assert np.array_equal(again(rows), model(rows))
    strange = [replace(rows[0], profile="int2"), replace(rows[0], task="poetry")]
    assert np.isnan(model(strange)).all()
    assert np.isnan(model([replace(rows[0], signals={})])).all()
    (tmp_path / "bad.json").write_text('{"format": "else"}')
    with pytest.raises(CalibrationError, match="no history model"):
        HistoryModel.load(tmp_path / "bad.json")
    with pytest.raises(CalibrationError, match="cannot be read"):
        HistoryModel.load(tmp_path / "missing.json")


def test_history_from_a_store_is_taken_or_refused(store: Store) -> None:
    two = made_profile("math", "facts", n=1000)
    x, y = answers(400, 8)
    rng, kinds = np.random.default_rng(9), ("math", "facts")
    for i, row in enumerate(x):
        task, doubt = kinds[i % 2], rng.random() < 0.5
        text = "Perhaps 7." if doubt else "It is 7."
        store.add([record_of(two, row, i, task=task, text=text)])
        store.label(f"record-{i}", bool(y[i] and not (doubt and task == "facts")), source="grader")
    found = refit_history(store, two)
    assert found.profile is None
    assert found.history is not None
    assert found.history.tasks == ("facts", "math")
    assert found.history.signals == ("confidence", "mean_entropy")
    assert found.high < 0
    assert found.history.text

    with_noise = refit_history(store, two, method="constant")
    assert with_noise.history is None
    assert "no clear improvement" in with_noise.reason
