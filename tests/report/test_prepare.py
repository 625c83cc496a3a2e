"""Prepared numbers against cases worked out by hand, scikit-learn and scipy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from bitcal_integrations.decide import Certificate
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.report import Evaluation, prepare_evaluation
from bitcal_integrations.types import Confidence, Labelled

Row = Callable[..., Labelled]
CERTIFICATE = {"threshold": 0.6, "coverage": 0.7, "max_error": 0.4, "delta": 0.1, "n": 50}


def close(value: float | None, expected: float) -> bool:
    return value is not None and math.isclose(value, expected, abs_tol=1e-12)


def test_scores_of_four_rows(four: list[Labelled]) -> None:
    e = prepare_evaluation(four)
    base, raw, calibrated = e.scores
    assert [s.name for s in e.scores] == ["base rate", "raw score", "calibrated"]
    assert e.accuracy.value == 0.5
    assert close(base.brier.value, 0.25)
    assert close(base.nll.value, math.log(2))
    assert close(base.auroc.value, 0.5)
    assert close(base.aurc.value, 0.5)
    assert close(raw.brier.value, (0.05**2 + 0.9**2 + 0.3**2 + 0.5**2) / 4)
    assert close(calibrated.brier.value, (0.09**2 + 0.81**2 + 0.39**2 + 0.31**2) / 4)
    assert close(calibrated.nll.value, -math.log(0.91 * 0.19 * 0.61 * 0.69) / 4)
    assert close(calibrated.ece.value, abs(0.66 - 0.5))  # four rows are one bin
    assert close(calibrated.auroc.value, 3 / 4)  # one of four pairs stands the wrong way
    assert close(calibrated.aurc.value, (0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert close(e.change.value, calibrated.brier.value - raw.brier.value)
    assert close(e.gain.value, calibrated.brier.value - 0.25)


def test_the_interval_of_independent_shares_is_wilsons(four: list[Labelled]) -> None:
    e = prepare_evaluation(four)
    found = binomtest(2, 4).proportion_ci(method="wilson")
    assert close(e.accuracy.low, found.low)
    assert close(e.accuracy.high, found.high)
    assert e.scores[2].brier.low is None  # four groups are too few to resample


def test_curves_of_four_rows(four: list[Labelled], row: Row) -> None:
    e = prepare_evaluation([*four, row(None, False, raw=0.2)])
    assert e.counts.scored == 4
    view = e.views[1]
    risk = [(0.91, 0.25, 0.0), (0.81, 0.5, 0.5), (0.61, 0.75, 1 / 3), (0.31, 1.0, 0.5)]
    assert np.allclose(view.risk.points, risk)
    # Of five judged rows the unknown one is always sent on: never less than a fifth.
    deferral = [(t, 1 - 0.8 * share, 1 - wrong) for t, share, wrong in risk]
    assert np.allclose(view.deferral.points, deferral)
    bars = {round(b.low, 2): (b.right, b.wrong) for b in view.histogram if b.right or b.wrong}
    assert bars == {0.3: (0, 1), 0.6: (1, 0), 0.8: (0, 1), 0.9: (1, 0)}
    (only,) = view.bins
    assert (only.n, round(only.confidence, 12), only.accuracy) == (4, 0.66, 0.5)


@pytest.mark.parametrize(
    ("risk", "error", "of"), [("selective", 1 / 3, 3), ("joint", 1 / 4, 4), ("system", None, 0)]
)
def test_what_a_threshold_does(
    four: list[Labelled], risk: str, error: float | None, of: int
) -> None:
    (p,) = prepare_evaluation(four, [{**CERTIFICATE, "risk": risk}]).promises
    assert (p.n, p.accepted, p.share) == (4, 3, 0.75)
    assert p.error.value == error
    if error is not None:
        found = binomtest(1, of).proportion_ci(method="wilson")
        assert close(p.error.low, found.low)


def test_a_certificate_is_read_from_its_class(four: list[Labelled]) -> None:
    certificate = Certificate(0.6, 0.7, 0.4, 0.1, 50, 3, 35)
    given, same = prepare_evaluation(four, [certificate, certificate.to_dict()]).promises
    assert given == same
    assert (given.accepted, given.claim) == (3, "is right")


def test_a_certificate_for_one_task_is_seen_on_its_rows(four: list[Labelled]) -> None:
    rows = [replace(four[0], task="a"), *(replace(r, task="b") for r in four[1:])]
    (p,) = prepare_evaluation(rows, [{**CERTIFICATE, "task": "b"}]).promises
    assert (p.n, p.accepted, p.error.value) == (3, 2, 0.5)


def test_scores_are_those_of_scikit_learn(many: list[Labelled]) -> None:
    e = prepare_evaluation(many)
    known = [r for r in many if r.correct is not None and r.confidence.value is not None]
    y = [r.correct for r in known]
    for scores, p in (
        (e.scores[1], [r.confidence.raw for r in known]),
        (e.scores[2], [r.confidence.value for r in known]),
    ):
        assert scores.n == len(known)
        assert close(scores.brier.value, brier_score_loss(y, p))
        assert close(scores.nll.value, log_loss(y, p))
        assert close(scores.auroc.value, roc_auc_score(y, p))
    assert e.bins == 15 == len(e.views[1].bins)
    assert sum(b.n for b in e.views[1].bins) == len(known)


def test_every_row_is_counted(many: list[Labelled]) -> None:
    fitted = [replace(r, part="fit") for r in many[:100]]
    kept = [replace(r, part="report") for r in many[100:]]
    e = prepare_evaluation(fitted + kept)
    c = e.counts
    assert c.left_out == {"fit": 100}
    assert c.rows == 300 == c.judged + c.unjudged == sum(f.rows for f in e.finishes)
    assert c.judged == c.right + c.wrong
    assert c.unjudged == sum(r.correct is None for r in kept)
    assert c.unknown == sum(r.confidence.value is None for r in kept)
    assert c.unknown == sum(t.rows for t in e.reasons) == sum(t.unknown for t in e.finishes)
    assert c.groups == 75
    for breakdown in e.breakdowns:
        assert sum(s.rows for s in breakdown.slices) == 300
        assert sum(s.unknown for s in breakdown.slices) == c.unknown
    assert [b.by for b in e.breakdowns] == ["task", "weights", "level"]


def test_not_a_number_is_unknown(four: list[Labelled], row: Row) -> None:
    e = prepare_evaluation([*four, row(math.nan, True, raw=0.4)])
    assert (e.counts.unknown, e.counts.scored) == (1, 4)
    assert [(t.name, t.rows, t.right) for t in e.reasons] == [("no reason given", 1, 1)]


def test_a_row_without_the_users_label_has_its_own_line(four: list[Labelled]) -> None:
    rows = [replace(four[0], by={"level": "easy"}), *four[1:]]
    slices = prepare_evaluation(rows).breakdowns[-1].slices
    assert [(s.label, s.rows, s.accuracy.value) for s in slices] == [
        ("(no label)", 3, 1 / 3),
        ("easy", 1, 1.0),
    ]


def test_many_labels_are_joined_not_dropped(row: Row) -> None:
    rows = [row(0.7, True, by={"id": f"{i:03}"}) for i in range(50)]
    slices = prepare_evaluation(rows).breakdowns[-1].slices
    assert len(slices) == 41
    assert (slices[-1].label, slices[-1].rows) == ("(10 others)", 10)


def test_rows_of_one_group_count_once(many: list[Labelled]) -> None:
    once = [replace(r, group=r.id) for r in many[:120]]
    twice = [replace(r, id=f"{r.id}-{i}") for r in once for i in range(2)]
    narrow = [replace(r, group=r.id) for r in twice]
    width = [
        e.scores[2].brier.high - e.scores[2].brier.low  # type: ignore[operator]
        for e in map(prepare_evaluation, (once, twice, narrow))
    ]
    assert math.isclose(width[0], width[1], rel_tol=0.2)
    assert math.isclose(width[2] / width[0], 2**-0.5, rel_tol=0.2)


def test_the_wrong_are_sorted_and_shortened(row: Row) -> None:
    rows = [row(i / 100, i % 2 == 0, prompt="long " * 1000 + "end?") for i in range(60)]
    wrong = prepare_evaluation(rows).wrong
    assert [round(w.confidence or 0, 2) for w in wrong] == [x / 100 for x in range(59, 39, -2)]
    assert len(wrong[0].prompt) <= 400
    assert wrong[0].prompt.endswith("end?")


def test_a_conversation_is_shown_with_its_roles(row: Row) -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "4?"})
    (w,) = prepare_evaluation([row(0.9, False, prompt=messages, answer=None)]).wrong
    assert w.prompt == "system: Be brief.\nuser: 4?"
    assert w.answer == "It is 5"


@pytest.mark.parametrize("where", ["profile", "certificate"])
def test_one_teacher_is_enough(four: list[Labelled], where: str) -> None:
    source = {"label_source": "teacher: big-model"}
    given = {"profile": source} if where == "profile" else {"certificates": [source]}
    assert prepare_evaluation(four, **given).claim == "agrees with big-model"  # type: ignore[arg-type]
    assert prepare_evaluation(four, profile={"label_source": "labels"}).claim == "is right"


def test_without_a_profile_only_the_raw_score_is_shown(four: list[Labelled]) -> None:
    rows = [replace(r, confidence=Confidence(raw=r.confidence.raw, reason="none")) for r in four]
    e = prepare_evaluation(rows, [CERTIFICATE])
    assert [s.n for s in e.scores] == [4, 4, 0]
    assert [v.name for v in e.views] == ["raw score"]
    assert e.promises[0].share is None
    assert e.change.value is None


def tiny(row: Row) -> dict[str, list[Labelled]]:
    return {
        "nothing": [],
        "one right": [row(0.8, True)],
        "one wrong": [row(0.8, False)],
        "one unjudged": [row(0.8, None)],
        "one unknown": [row(None, True)],
        "sure and wrong": [row(1.0, False), row(0.0, True)],
        "one class": [row(0.5 + i / 100, True) for i in range(30)],
        "constant": [row(0.5, i % 2 == 0) for i in range(30)],
        "one group": [row(0.5 + i / 100, i % 2 == 0, group="g") for i in range(30)],
        "no labels": [row(0.5, None) for _ in range(30)],
        "no score in common": [row(0.8, True, raw=None), row(None, False, raw=0.3)],
        "only fitted on": [row(0.8, True, part="fit")],
    }


@pytest.mark.parametrize("name", tiny(lambda *_, **__: None))  # type: ignore[arg-type]
def test_little_data_gives_numbers_or_none(name: str, row: Row) -> None:
    e = prepare_evaluation(tiny(row)[name], [CERTIFICATE])
    assert isinstance(e, Evaluation)
    data = e.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_one_class_has_no_auroc_but_a_bounded_accuracy(row: Row) -> None:
    e = prepare_evaluation(tiny(row)["one class"])
    assert e.scores[2].auroc.value is None
    assert e.accuracy.value == 1
    assert e.accuracy.low is not None
    assert e.accuracy.low < 0.9


def test_the_same_rows_give_the_same_numbers(many: list[Labelled]) -> None:
    first, again = (prepare_evaluation(many[:80], [CERTIFICATE], seed=3) for _ in range(2))
    assert first == again
    assert prepare_evaluation(many[:80], seed=4).scores[2].brier.low != first.scores[2].brier.low


def test_wrong_input_is_quoted(four: list[Labelled]) -> None:
    with pytest.raises(BadRequest, match="Labelled rows, not of 'text'"):
        prepare_evaluation(["text"])  # type: ignore[list-item]
    with pytest.raises(BadRequest, match=r"its dict, not 0\.1"):
        prepare_evaluation(four, [0.1])
