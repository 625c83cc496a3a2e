"""Which answers to label: known probabilities, nested choices, and estimates that stay true."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drift_help import answers, made_profile, record_of

from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.monitor._sampling import choose, draw, weighted_mean
from bitcal_integrations.monitor.labels import estimate, open_picks, pick_labels
from bitcal_integrations.monitor.store import Store, feedback
from bitcal_integrations.monitor.stored import drift_of

PROFILE = made_profile()


def population(n: int, seed: int) -> tuple[list[str], Any, Any]:
    """Ids, confidences and labels of a model that is mostly wrong where it is most confident."""
    x, y = answers(n, seed)
    p = np.clip(x[:, 0], 0.02, 0.98)
    top = p > np.quantile(p, 0.95)
    y = np.where(top, np.random.default_rng(seed + 1).random(n) < 0.2, y)
    return [f"{seed}-{i}" for i in range(n)], p, y.astype(float)


# ---- choosing ----------------------------------------------------------------------------------


def test_every_stratum_is_labelled_and_the_most_confident_more() -> None:
    ids, p, _ = population(5000, 0)
    chosen = choose(ids, p, 120)
    where = {i: k for k, i in enumerate(ids)}
    quantile = np.argsort(np.argsort(p)) / p.size
    at = [quantile[where[c.id]] for c in chosen]
    counts = np.histogram(at, [0, 0.2, 0.4, 0.6, 0.8, 0.95, 1])[0]
    assert len(chosen) == 120
    assert min(counts[:-1]) >= 15
    assert counts[-1] >= 1.8 * min(counts[:-1])
    assert {c.why == "audit" for c in chosen} == {True, False}


def test_the_probability_is_how_often_an_answer_is_chosen() -> None:
    _, p, _ = population(400, 1)
    times, said, rounds = np.zeros(400), np.zeros(400), 400
    for seed in range(rounds):
        for choice in choose([str(i) for i in range(400)], p, 60, seed=seed):
            times[int(choice.id)] += 1
            said[int(choice.id)] = max(said[int(choice.id)], choice.probability)
    strata = np.digitize(p, np.quantile(p, [0.2, 0.4, 0.6, 0.8, 0.95]), right=True)
    for k in range(6):
        inside = strata == k
        often = times[inside].mean() / rounds
        assert often == pytest.approx(said[inside].mean(), abs=0.02)


def test_the_audit_is_a_share_of_everything_known_or_not() -> None:
    ids = [f"a{i}" for i in range(20_000)]
    p = np.where(np.arange(20_000) % 4 == 0, np.nan, 0.7)
    chosen = choose(ids, p, 0)
    kinds = Counter(int(c.id[1:]) % 4 == 0 for c in chosen)
    assert all(c.why == "audit" and c.probability == 0.01 for c in chosen)
    assert 120 <= kinds[False] <= 180
    assert 30 <= kinds[True] <= 75


def test_answers_without_a_confidence_are_labelled_too() -> None:
    ids = [f"a{i}" for i in range(1000)]
    p = np.where(np.arange(1000) % 10 == 0, np.nan, np.linspace(0.1, 0.9, 1000))
    whys = Counter(c.why for c in choose(ids, p, 80, audit=0))
    assert whys["no confidence"] >= 8
    assert len(whys) == 7


def test_later_choices_add_to_earlier_ones() -> None:
    ids, p, _ = population(2000, 2)
    first = {c.id: c.probability for c in choose(ids, p, 50)}
    again = choose(ids, p, 50, picked=first)
    new = [c for c in again if c.id not in first]
    raised = [c for c in again if c.id in first]
    assert len(new) == 50
    assert all(c.probability > first[c.id] for c in raised)
    once = {c.id: c.probability for c in choose(ids, p, 100)}
    assert {*first, *(c.id for c in new)} == set(once)
    both = {**first, **{c.id: c.probability for c in again}}
    assert both == pytest.approx(once, rel=0.15)


def test_an_answer_has_one_number_for_ever() -> None:
    u = np.array([draw(str(i)) for i in range(2000)])
    assert abs(u.mean() - 0.5) < 0.03
    assert np.array_equal(u, [draw(str(i)) for i in range(2000)])
    assert draw("a", 1) != draw("a", 2)


def test_few_answers_and_few_values() -> None:
    assert {c.id for c in choose(["a", "b"], [0.5, 0.5], 10)} == {"a", "b"}
    assert all(c.probability == 1 for c in choose(["a", "b"], [0.5, 0.5], 10))
    assert choose([], [], 10) == []
    assert [c.id for c in choose(["a"], [math.nan], 10, audit=1.0)] == ["a"]


def test_wrong_arguments_are_refused() -> None:
    for n in (-1, 2.5, True):
        with pytest.raises(BadRequest, match="n="):
            choose(["a"], [0.5], n)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="audit=2"):
        choose(["a"], [0.5], 1, audit=2)
    with pytest.raises(BadRequest, match="2 confidences were given for 1 answers"):
        choose(["a"], [0.5, 0.5], 1)


# ---- estimating --------------------------------------------------------------------------------


def test_a_weighted_mean_by_hand() -> None:
    found = weighted_mean([1, 0, 1], [0.5, 0.25, 1.0])
    assert found.value == pytest.approx((2 + 0 + 1) / (2 + 4 + 1))
    assert found.effective == pytest.approx(49 / (4 + 16 + 1))
    sums = np.array([2 * (1 - 3 / 7), 4 * (0 - 3 / 7), 1 - 3 / 7])
    half = 1.959963984540054 * math.sqrt(sums @ sums / 49 * 3 / 2)
    assert found.high - found.value == pytest.approx(half)


def test_even_chances_give_the_plain_share_and_wilsons_interval() -> None:
    found = weighted_mean([1] * 8 + [0] * 2, [0.1] * 10, share=True)
    assert found.value == 0.8
    assert found.effective == pytest.approx(9)  # n - 1: the share's own variance is estimated
    assert weighted_mean([1] * 10, [0.1] * 10, share=True).low == pytest.approx(0.722, abs=0.001)


def test_rows_of_one_question_count_as_one() -> None:
    lone = weighted_mean([1, 1, 0, 0] * 10, [0.5] * 40)
    pairs = weighted_mean([1, 1, 0, 0] * 10, [0.5] * 40, groups=np.arange(40) // 2)
    assert pairs.value == lone.value
    assert pairs.high - pairs.low == pytest.approx(math.sqrt(2) * (lone.high - lone.low), rel=0.03)


def test_wrong_chances_are_refused() -> None:
    for bad in ([0.0], [1.5], [math.nan]):
        with pytest.raises(CalibrationError, match="probability"):
            weighted_mean([1], bad)
    with pytest.raises(CalibrationError, match="need one probability each"):
        weighted_mean([1, 0], [0.5])


def test_the_estimate_is_unbiased_where_the_plain_share_is_not() -> None:
    _, p, y = population(3000, 3)
    truth, weighted, plain, held = y.mean(), [], [], 0
    for seed in range(150):
        chosen = choose([str(i) for i in range(3000)], p, 150, seed=seed)
        rows = [int(c.id) for c in chosen]
        found = weighted_mean(y[rows], [c.probability for c in chosen], share=True)
        weighted.append(found.value)
        plain.append(y[rows].mean())
        held += found.low <= truth <= found.high
    error = np.std(weighted) / math.sqrt(150)
    assert abs(np.mean(weighted) - truth) < 4 * error + 0.002
    assert abs(np.mean(plain) - truth) > 8 * error
    assert held >= 135


# ---- with a store ------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "records.db", create=True) as opened:
        yield opened


def filled(store: Store, n: int = 600) -> Any:
    """Answers of which the most confident are right less often than they say; labels by id."""
    x, y = answers(n, 5)
    records = [record_of(PROFILE, row, i) for i, row in enumerate(x)]
    p = np.array([r.confidence.value for r in records])
    y = np.where(p > 0.85, np.random.default_rng(6).random(n) < 0.5, y)
    store.add(records)
    return {r.id: float(v) for r, v in zip(records, y, strict=True)}


def test_choices_are_kept_and_open_until_they_are_labelled(store: Store) -> None:
    truth = filled(store)
    picks = pick_labels(store, 60)
    assert len(picks) == 60
    kept = {p.record_id: p for p in store.picks()}
    assert kept == {p.record_id: p for p in picks}
    assert {row.id for row in open_picks(store)} == set(kept)
    for pick in picks[:20]:
        feedback(pick.record_id, truth[pick.record_id], source="me", store=store)
    assert len(open_picks(store)) == 40
    more = pick_labels(store, 30)
    assert len(more) == 30
    assert not {p.record_id for p in more} & set(kept)


def test_estimates_weigh_what_was_chosen_and_leave_out_what_users_report(store: Store) -> None:
    truth = filled(store)
    picks = pick_labels(store, 200)
    for pick in picks:
        feedback(pick.record_id, truth[pick.record_id], store=store)
    chosen = {p.record_id for p in picks}
    complaints = [i for i, right in truth.items() if not right and i not in chosen][:80]
    for record_id in complaints:
        feedback(record_id, False, store=store)
    found = estimate(store)
    right = np.mean(list(truth.values()))
    assert found.accuracy is not None
    assert found.gap is not None
    assert found.brier is not None
    assert found.accuracy.low <= right <= found.accuracy.high
    assert found.as_they_came is not None
    assert found.as_they_came < found.accuracy.low
    assert (found.answers, found.open, found.unchosen) == (600, 0, 80)
    assert found.gap.value > 0.02  # the confidence says too much
    assert 0 < found.brier.value < 1


def test_what_users_said_before_an_answer_was_chosen_raises_no_alarm(store: Store) -> None:
    x, y = answers(800, 9)
    records = [record_of(PROFILE, row, i) for i, row in enumerate(x)]
    truth = {r.id: bool(v) for r, v in zip(records, y, strict=True)}
    store.add(records)
    for record_id in [i for i, right in truth.items() if not right][::2]:
        feedback(record_id, False, store=store)
    picks = pick_labels(store, 200)
    assert len(picks) == len(open_picks(store)) == 200  # the reported ones among them too
    early = estimate(store)
    assert (early.accuracy, early.open) == (None, 200)
    assert drift_of(store, PROFILE).labels == 0
    for pick in picks[:100]:
        feedback(pick.record_id, truth[pick.record_id], store=store)
    pick_labels(store, 50)  # raises the chances of those chosen before, which were chosen then
    for pick in picks[100:]:
        feedback(pick.record_id, truth[pick.record_id], source="me", store=store)
    report = drift_of(store, PROFILE)
    assert (report.state, report.labels) == ("ok", 200)


def test_no_labels_no_estimate(store: Store) -> None:
    filled(store, 20)
    found = estimate(store)
    assert found.accuracy is found.gap is found.brier is found.as_they_came is None
    assert found.answers == 20


def test_a_task_of_its_own(store: Store) -> None:
    two = made_profile("math", "facts")
    x, _ = answers(40, 7)
    kinds = ("math", "facts")
    store.add(record_of(two, row, i, task=kinds[i % 2]) for i, row in enumerate(x))
    picks = pick_labels(store, 40, task="facts", audit=0)
    assert len(picks) == 20
    assert estimate(store, task="math").open == 0
    assert len(open_picks(store, "facts")) == 20
