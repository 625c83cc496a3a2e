"""certify_stop: what is promised, when nothing is, and what it takes."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from logged_help import runs, with_scores

from bitcal_integrations.decide import StopCertificate, StopPlan, certify_stop
from bitcal_integrations.decide._stop_walk import Study
from bitcal_integrations.decide.logged import Checkpoint, LoggedRun, Trial
from bitcal_integrations.decide.stop import PRESETS, _split, replay
from bitcal_integrations.errors import BadRequest, BitcalError, CalibrationError, UnknownName

RUNS = runs(1500, 1)


def alike(n: int, lossy: int = -1) -> list[LoggedRun]:
    """Runs of one checkpoint, which end there without a loss but for one; half score higher."""
    places = [(Checkpoint(10, {"s": s}, Trial("4", {}, 2)),) for s in (0.6, 0.5)]
    return [LoggedRun(places[i % 2], 50, "4", True, (i != lossy,), id=str(i)) for i in range(n)]


class TestByHand:
    """At max_loss .02 and delta .1 no loss takes 114 runs, one loss 194; 40% of the runs go before.

    .98^114 = .0999 <= .1 < .98^113 = .1019.
    """

    def test_114_runs_without_a_loss_are_enough(self) -> None:
        certificate = certify_stop(alike(190), 0.02, scores=["s"])
        assert (certificate.n, certificate.fitted) == (114, 76)
        assert certificate.plan is not None
        assert certificate.losses == {"settled": 0}
        assert certificate.ended == {"settled": 1.0}
        # every run takes 12 tokens of 50
        assert certificate.saved == pytest.approx(0.76)
        assert certificate.saved_low == pytest.approx(certificate.saved_high)

    def test_113_are_not(self) -> None:
        certificate = certify_stop(alike(188), 0.02, scores=["s"])
        assert certificate.n == 113
        assert certificate.plan is None
        assert certificate.reason == (
            "settled: 113 runs to test are too few: a loss of 0.02 needs 114 without one"
        )
        assert certificate.runs_needed is not None
        assert certificate.runs_needed > 188

    def test_one_loss_takes_194(self) -> None:
        high = [next(i for i in _split(alike(n), 0)[1] if i % 2 == 0) for n in (323, 322)]
        enough = certify_stop(alike(323, high[0]), 0.02, scores=["s"])
        short = certify_stop(alike(322, high[1]), 0.02, scores=["s"])
        assert (enough.n, short.n) == (194, 193)
        assert enough.plan is not None
        assert enough.losses == short.losses == {"settled": 1}
        assert short.plan is None
        assert short.reason.startswith("settled: 1 of 193 runs lost already under the most careful")

    def test_delta_is_split_over_levels_and_certificates(self) -> None:
        # .98^149 = .0493 <= .05 < .98^148 = .0503
        for more in ({"simultaneous": 2}, {"levels": ["settled", "hopeless"]}):
            given: dict[str, Any] = {"scores": ["s"], **more}
            assert certify_stop(alike(248), 0.02, **given).plan is not None  # tests 149
            assert certify_stop(alike(247), 0.02, **given).plan is None  # tests 148


def test_what_is_certified_keeps_its_promise_on_fresh_runs_and_saves() -> None:
    certificate = certify_stop(RUNS, 0.05)
    assert certificate.plan is not None
    fresh = runs(4000, 2)
    exits = [replay(run, certificate.plan) for run in fresh]
    lost = np.mean([bool(r.right and not e.right) for r, e in zip(fresh, exits, strict=True)])
    saved = 1 - sum(e.tokens + e.probe_tokens for e in exits) / sum(r.tokens for r in fresh)
    assert lost <= 0.05
    assert certificate.saved_low - 0.02 < saved < certificate.saved_high + 0.02
    assert saved > 0.1


def test_its_numbers_are_those_of_a_replay() -> None:
    certificate = certify_stop(RUNS, 0.05, levels=["hopeless", "settled"])
    assert certificate.plan is not None
    assert certificate.level == "settled+hopeless"
    tested = [RUNS[i] for i in _split(RUNS, 0)[1]]
    exits = [replay(run, certificate.plan) for run in tested]
    for level in ("settled", "hopeless"):
        ended = [e.finish == level for e in exits]
        assert certificate.ended[level] == pytest.approx(np.mean(ended))
        # Tested alone: which rule stands beside it hangs on the same runs.
        alone = StopPlan(**{level: getattr(certificate.plan, level)})
        lost = [bool(run.right and not replay(run, alone).right) for run in tested]
        assert certificate.losses[level] == sum(lost)
        both = [bool(r.right and not e.right) for r, e in zip(tested, exits, strict=True)]
        assert sum(b for b, e in zip(both, ended, strict=True) if e) <= sum(lost)
    spent = sum(e.tokens + e.probe_tokens for e in exits)
    assert certificate.saved == pytest.approx(1 - spent / sum(r.tokens for r in tested))
    assert certificate.ended["hopeless"] > 0
    promise = certificate.plan.promise
    assert promise is not None
    assert (promise["n"], promise["max_loss"]) == (len(tested), 0.05)
    assert promise["saved"] == certificate.saved


def test_giving_up_saves_more_than_settling_alone() -> None:
    both = certify_stop(RUNS, 0.05, levels=("settled", "hopeless"))
    alone = certify_stop(RUNS, 0.05, delta=0.05)
    assert both.plan is not None
    assert alone.plan is not None
    assert both.plan.settled == alone.plan.settled
    assert both.saved > alone.saved


def test_presets_save_the_more_the_more_they_may_lose() -> None:
    made = certify_stop(RUNS, list(PRESETS.values()))
    assert [c.max_loss for c in made] == [0.01, 0.02, 0.05]
    saved = [c.saved for c in made]
    assert saved == sorted(saved)
    assert saved[0] < saved[-1]
    assert made[1] == certify_stop(RUNS, 0.02)
    together = certify_stop(RUNS, list(PRESETS.values()), simultaneous=True)
    assert all(c.simultaneous == 3 for c in together)
    assert all(t.saved <= c.saved for t, c in zip(together, made, strict=True))


def test_changed_answers_need_no_labels() -> None:
    bare = [replace(run, right=None, right_at=()) for run in RUNS]
    certificate = certify_stop(bare, 0.05, kind="changed")
    assert certificate.plan is not None
    assert certificate.calibrator is None
    assert certificate.label_source == "none"
    assert "changes the answer of at most 5%" in certificate.promise
    tested = [bare[i] for i in _split(bare, 0)[1]]
    changed = sum(replay(run, certificate.plan).answer != run.answer for run in tested)
    assert certificate.losses == {"settled": changed}


class TestControls:
    """Scores that say nothing certify next to no saving."""

    SCORES = ("logprob", "entropy", "hope", "trial_probability", "trial_margin")

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_shuffled(self, seed: int) -> None:
        certificate = certify_stop(with_scores(RUNS, seed), 0.02, scores=self.SCORES)
        assert certificate.saved < 0.03

    def test_constant(self) -> None:
        certificate = certify_stop(with_scores(RUNS, None), 0.02, scores=self.SCORES)
        assert certificate.plan is None
        assert certificate.saved == 0
        assert certificate.reason

    def test_a_score_that_no_run_has_is_quoted(self) -> None:
        with pytest.raises(UnknownName, match=r"'logprop' was not measured .* logprob, .*agreem"):
            certify_stop(RUNS, 0.02, scores=["entropy", "logprop"])


def test_one_run_certifies_nothing_whatever_may_be_lost() -> None:
    certificate = certify_stop(RUNS[:1], 0.9, 0.5)
    assert certificate.plan is None
    assert certificate.reason


def test_no_group_is_in_both_parts_and_each_counts_once() -> None:
    grouped = [replace(run, group=f"g{i // 3}") for i, run in enumerate(RUNS)]
    fit, tested = _split(grouped, 5)
    groups = [{grouped[i].group for i in part} for part in (fit, tested)]
    assert not groups[0] & groups[1]
    assert (len(fit), len(tested)) == (600, 300)
    assert len(groups[1]) == 300
    assert certify_stop(grouped, 0.05, seed=5).n == 300
    assert set(_split(grouped, 6)[0]) != set(fit)


def test_runs_without_a_name_are_their_own_groups() -> None:
    assert certify_stop([replace(run, id="") for run in RUNS], 0.05).n == 900


def test_the_fit_part_alone_lays_the_path() -> None:
    """Other losses on the certify part may end the walk elsewhere, but change no rule on it."""
    _, tested = _split(RUNS, 0)
    worse = list(RUNS)
    for i in tested[:60]:
        worse[i] = replace(RUNS[i], right=True, right_at=(False,) * len(RUNS[i].checkpoints))
    paths = []
    for logged in (RUNS, worse):
        study = Study(logged, *_split(logged, 0), "wrong", None, StopPlan(), "labels", 0)
        paths.append(study.path("settled", None))
    assert paths[0] == paths[1]
    assert 5 < len(paths[0]) <= 30
    assert all(a.cost > b.cost and a.loss <= b.loss for a, b in pairwise(paths[0]))


def test_a_settled_answer_has_a_confidence() -> None:
    certificate = certify_stop(runs(1500, 1, right=0.6), 0.05)
    assert certificate.calibrator is not None
    assert certificate.plan is not None
    fresh = runs(1500, 7, right=0.6)
    p: list[float | None] = []
    right: list[bool | None] = []
    for run in fresh:
        out = replay(run, certificate.plan)
        if out.finish == "settled":
            assert out.index is not None
            p.append(certificate.probability(run.checkpoints[: out.index + 1]))
            right.append(out.right)
    assert np.mean(np.array(p, float)) == pytest.approx(np.mean(np.array(right, float)), abs=0.05)
    assert certificate.probability([]) is None
    assert certificate.probability([Checkpoint(3, {})]) is None


def test_without_wrong_exits_there_is_no_confidence() -> None:
    assert certify_stop(alike(400), 0.02, scores=["s"]).calibrator is None


def test_two_thousand_runs_take_seconds() -> None:
    many = runs(2000, 8, steps=(9, 12))
    before = time.process_time()
    certify_stop(many, list(PRESETS.values()))
    assert time.process_time() - before < 15


@pytest.mark.parametrize("levels", [("settled",), ("settled", "hopeless")])
def test_json_gives_it_back(levels: Any) -> None:
    made = certify_stop(RUNS, [0.05, 0.0001], levels=levels, label_source="teacher: big")
    for certificate in made:
        text = json.dumps(certificate.to_dict())
        assert StopCertificate.from_dict(json.loads(text)).to_dict() == certificate.to_dict()
    again = StopCertificate.from_dict(json.loads(json.dumps(made[0].to_dict())))
    assert again == made[0]
    assert str(again) == str(made[0])
    assert "agreement with the teacher big" in again.promise
    assert made[1].plan is None


@pytest.mark.parametrize(
    ("data", "quoted"), [({"version": 9}, "version 9"), ({"version": 1, "n": 4}, "no 'plan'")]
)
def test_json_of_something_else_is_refused(data: Any, quoted: str) -> None:
    with pytest.raises(BitcalError, match=quoted):
        StopCertificate.from_dict(data)


def test_the_same_runs_and_seed_give_the_same() -> None:
    assert certify_stop(RUNS[:400], 0.05, seed=3) == certify_stop(RUNS[:400], 0.05, seed=3)


@pytest.mark.parametrize(
    ("given", "quoted"),
    [
        ({"max_loss": 0}, "max_loss=0 "),
        ({"max_loss": []}, r"max_loss=\[\]"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"kind": "other"}, "'other' is not one of wrong, changed"),
        ({"levels": ("both",)}, "one or both of settled, hopeless"),
        ({"levels": ()}, r"levels=\(\)"),
        ({"spacing": "word"}, "spacing='word'"),
        ({"scores": "logprob"}, "scores='logprob'"),
        ({"label_source": "guess"}, "label_source='guess'"),
        ({"simultaneous": True}, "simultaneous=True"),
        ({"closing": ""}, "closing=''"),
        ({"seed": -1}, "seed=-1"),
        ({"runs": None}, "runs=None is not a list"),
    ],
)
def test_wrong_arguments_are_quoted(given: dict[str, Any], quoted: str) -> None:
    with pytest.raises(BadRequest, match=quoted):
        certify_stop(**{"runs": alike(4), **given})


@pytest.mark.parametrize(
    ("made", "quoted"),
    [
        ([], "runs hold nothing"),
        ([*alike(3), "run"], r"runs\[3\] is 'run'"),
        ([replace(alike(1)[0], checkpoints=())], "none of the 1 runs has a checkpoint"),
        ([*alike(3), replace(alike(1)[0], right=None, id="u")], "whether run 'u' is right"),
        ([replace(alike(1)[0], tokens=0)], "run '0' has tokens=0"),
        ([LoggedRun((Checkpoint(5, {}),), 9, "4", True, id="b")], "'b' has no trial answer"),
        ([*alike(2), replace(alike(1)[0], unit="chain")], "runs hold chain and generation"),
    ],
)
def test_runs_that_nothing_can_be_learned_from_are_quoted(made: Any, quoted: str) -> None:
    with pytest.raises((BadRequest, CalibrationError), match=quoted):
        certify_stop(made)
