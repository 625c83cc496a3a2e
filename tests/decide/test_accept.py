"""Certificates: cases derived by hand, ties, edges, groups, words, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from bitcal_integrations.decide import Certificate, certify_threshold, labels_needed
from bitcal_integrations.decide._path import STEPS
from bitcal_integrations.errors import BadRequest, CalibrationError

EVEN = np.linspace(0.99, 0.5, 100)  # 100 distinct scores from high to low


def test_all_right_accepts_all() -> None:
    made = certify_threshold(EVEN, [1] * 100, max_error=0.1, delta=0.1)
    assert (made.threshold, made.coverage, made.errors, made.accepted) == (0.0, 1.0, 0, 100)


def test_the_path_stops_at_the_first_failure() -> None:
    # Right down to rank 60, wrong below. Of k accepted, k - 60 are wrong; the exact test says
    # which k is the last that passes at 10%.
    y = (np.arange(100) < 60).astype(int)
    made = certify_threshold(EVEN, y, max_error=0.1, delta=0.1)
    passing = [k for k in range(60, 101) if binom.cdf(k - 60, k, 0.1) <= 0.1]
    assert passing[-1] == 62  # two errors of 62: P = .039; three of 63: P = .109
    assert 60 <= made.accepted <= 62
    assert made.errors == made.accepted - 60
    assert made.accepted == int((made.threshold <= EVEN).sum())


def test_all_wrong_accepts_nothing_and_no_number_of_labels_helps() -> None:
    made = certify_threshold(EVEN, [0] * 100)
    assert (made.threshold, made.coverage, made.nearest, made.labels_needed) == (
        None,
        0,
        None,
        None,
    )
    assert made.reason.startswith("38 of 38 rows")


def test_one_error_among_the_best_does_not_end_it() -> None:
    """One error in 38 is borne at .1 and .1: binom.cdf(1, 38, .1) = .0955; in 22 it is not."""
    assert binom.cdf(1, 38, 0.1) <= 0.1 < binom.cdf(1, 37, 0.1)
    y = np.ones(100, dtype=int)
    y[97] = 0  # the third best of EVEN
    assert certify_threshold(EVEN, y, max_error=0.1, delta=0.1).coverage == 1.0


def test_one_row_names_what_is_needed() -> None:
    made = certify_threshold([0.9], [1])
    assert made.threshold is None
    assert "1 labels with a p are too few" in made.reason
    assert "22" in made.reason
    assert made.labels_needed == labels_needed(0.1, 0.1)
    # One right answer of one: 1 - alpha <= .1 first holds at alpha = .9.
    assert made.nearest == 0.9


def test_21_labels_are_too_few_and_22_are_enough() -> None:
    assert certify_threshold(EVEN[:21], [1] * 21).threshold is None
    assert certify_threshold(EVEN[:22], [1] * 22).threshold == 0.0


def test_nearest_and_labels_needed_of_a_near_miss() -> None:
    # One error in ten everywhere: .1 itself can never be certified, a laxer target can.
    y = np.tile([1] * 9 + [0], 10)
    made = certify_threshold(EVEN, y, max_error=0.1, delta=0.1)
    assert made.threshold is None
    assert 0.1 < made.nearest < 0.4
    assert certify_threshold(EVEN, y, max_error=made.nearest).threshold is not None
    assert certify_threshold(EVEN, y, max_error=made.nearest - 0.01).threshold is None
    # One error in twenty: .1 takes more labels than these 40.
    few = certify_threshold(EVEN[:40], np.tile([0] + [1] * 19, 2))
    assert few.threshold is None
    assert few.labels_needed > 40


def test_tied_rows_go_together_and_the_boundary_is_left_out() -> None:
    # Scores of .9 are right, those of .6 are half wrong: only the upper block can be certified.
    p = np.repeat([0.9, 0.6], 50)
    y = np.concatenate([np.ones(50), np.tile([0, 1], 25)])
    made = certify_threshold(p, y)
    assert made.accepted == 50
    assert 0.6 < made.threshold <= 0.6000000001
    assert certify_threshold(p[::-1], y[::-1]) == made


def test_a_constant_score_is_all_or_nothing() -> None:
    assert certify_threshold([0.7] * 100, [1] * 100).coverage == 1.0
    assert certify_threshold([0.7] * 100, [0, 1] * 50).threshold is None


def test_an_unknown_p_is_never_accepted() -> None:
    p = np.concatenate([EVEN, np.full(100, np.nan)])
    made = certify_threshold(p, [1] * 100 + [0] * 100)
    assert (made.coverage, made.unknown, made.n, made.accepted) == (0.5, 100, 200, 100)
    assert certify_threshold([np.nan] * 50, [1] * 50).threshold is None


def test_labels_needed_counts_the_unknown_ones() -> None:
    """Half of the rows have no p, so that it takes twice as many."""
    made = certify_threshold([0.9, np.nan], [1, 0])
    assert made.labels_needed == 2 * labels_needed(0.1, 0.1)


def test_joint_counts_accepted_and_wrong_among_all() -> None:
    # 30 of 100 wrong, all at the bottom: 4 errors of 100 pass at .1 (P = .024), 5 too (.058),
    # 6 not (.117); the path has every second or third rank.
    y = (np.arange(100) < 70).astype(int)
    made = certify_threshold(EVEN, y, risk="joint")
    assert binom.cdf(5, 100, 0.1) <= 0.1 < binom.cdf(6, 100, 0.1)
    assert 72 <= made.accepted <= 75
    assert made.errors == made.accepted - 70


def test_system_counts_the_fallback() -> None:
    y = (np.arange(100) < 60).astype(int)
    perfect = certify_threshold(EVEN, y, risk="system", fallback_correct=[1] * 100)
    assert 60 <= perfect.accepted <= 65  # at most 5 errors of 100
    assert perfect.errors <= 5
    wrong = certify_threshold(EVEN, y, risk="system", fallback_correct=[0] * 100)
    assert wrong.threshold is None
    # A fallback with 4 errors below the threshold leaves room for one more.
    other = np.ones(100)
    other[90:94] = 0
    assert certify_threshold(EVEN, y, risk="system", fallback_correct=other).errors == 5


def test_one_row_of_each_group_is_drawn() -> None:
    p, y = np.repeat(EVEN, 3), np.ones(300)
    groups = np.repeat(np.arange(100), 3)
    made = certify_threshold(p, y, groups=groups)
    assert (made.n, made.accepted) == (100, 100)
    assert certify_threshold(p, y, groups=[f"g{g}" for g in groups], seed=0) == made
    assert certify_threshold(p, y, groups=[0] * 300).threshold is None


def test_several_certificates_share_delta() -> None:
    y = (np.arange(100) < 60).astype(int)
    alone = certify_threshold(EVEN, y, [0.1, 0.2])
    together = certify_threshold(EVEN, y, [0.1, 0.2], simultaneous=True)
    assert [c.simultaneous for c in together] == [2, 2]
    for one, both, target in zip(alone, together, (0.1, 0.2), strict=True):
        half = certify_threshold(EVEN, y, target, delta=0.05)
        assert (both.threshold, both.delta) == (half.threshold, 0.1)
        assert both.accepted <= one.accepted + 100 / STEPS  # their paths begin at other rows
    assert certify_threshold(EVEN, y, 0.1, simultaneous=2) == together[0]


def test_round_trip_through_json() -> None:
    for made in (certify_threshold(EVEN, [1] * 100), certify_threshold(EVEN, [0] * 100)):
        assert Certificate.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(CalibrationError, match="version 7"):
        Certificate.from_dict({**made.to_dict(), "version": 7})
    with pytest.raises(BadRequest, match="not a whole certificate: no 'threshold'"):
        Certificate.from_dict({"version": 1})


@pytest.mark.parametrize("risk", ["selective", "joint", "system"])
def test_a_teacher_is_agreed_with(risk: str) -> None:
    extra = {"fallback_correct": [1] * 100} if risk == "system" else {}
    for n_right in (100, 0):
        y = [1] * n_right + [0] * (100 - n_right)
        by_teacher = certify_threshold(EVEN, y, risk=risk, label_source="teacher: big one", **extra)
        said = f"{by_teacher} {by_teacher.promise} {by_teacher.reason}"
        assert "right" not in said
        assert "wrong" not in said
        if by_teacher.threshold is not None and n_right:
            assert "agrees with the teacher big one" in by_teacher.promise
    assert "is right" in certify_threshold(EVEN, [1] * 100, risk=risk, **extra).promise


@pytest.mark.parametrize("bad", [0, 1, -0.1, 2, float("nan"), True, "0.1", None])
def test_a_wrong_share_is_quoted(bad: object) -> None:
    with pytest.raises(BadRequest, match=f"max_error={bad!r}"):
        certify_threshold(EVEN, [1] * 100, max_error=bad)
    with pytest.raises(BadRequest, match=f"delta={bad!r}"):
        certify_threshold(EVEN, [1] * 100, delta=bad)


@pytest.mark.parametrize(
    ("p", "y", "options", "says"),
    [
        ([0.5, 1.5], [1, 1], {}, r"p\[1\] is 1.5"),
        ([0.5, 0.6], [1, 2], {}, "y holds 2.0"),
        ([0.5, 0.6], [1], {}, r"\(2,\), \(1,\)"),
        ([], [], {}, "above 0"),
        ([0.5], [1], {"risk": "total"}, "'total' is not one of selective, joint, system"),
        ([0.5], [1], {"risk": "system"}, "fallback_correct"),
        ([0.5], [1], {"fallback_correct": [1]}, "fallback_correct"),
        ([0.5], [1], {"groups": [1, 2]}, "groups has the shape"),
        ([0.5, 0.6], [1, 1], {"groups": [None, "a"]}, "groups holds None"),
        (["a"], [1], {}, "p must hold numbers only: .*'a'"),
        ([0.5], ["a"], {}, "y must hold numbers only: .*'a'"),
        ([0.5], [1], {"simultaneous": True}, "needs a list"),
        ([0.5], [1], {"simultaneous": 0}, "simultaneous=0"),
        ([0.5], [1], {"max_error": []}, "at least one"),
        ([0.5], [1], {"label_source": "guess"}, "'guess' is not 'labels'"),
    ],
)
def test_wrong_input_is_quoted(p: list, y: list, options: dict, says: str) -> None:
    with pytest.raises((BadRequest, CalibrationError), match=says):
        certify_threshold(p, y, **options)
