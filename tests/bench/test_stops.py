"""The study on simulated runs: what must come out is known."""

from __future__ import annotations

import json

import pytest
from stop_help import simulated

from bitcal_integrations.bench.stops import BASELINES, Options, compare, split, study
from bitcal_integrations.bench.stops.controls import constant, names_of, shuffled
from bitcal_integrations.bench.stops.numbers import Resample, share
from bitcal_integrations.bench.stops.rules import loses
from bitcal_integrations.bench.stops.study import outcome_of
from bitcal_integrations.decide._stop_table import Table
from bitcal_integrations.decide.stop import PRESETS, replay
from bitcal_integrations.errors import CalibrationError


@pytest.fixture(scope="module")
def found():
    return study(simulated(3000), Options(draws=200))


def test_the_study_certifies_and_replays_on_other_runs(found) -> None:
    assert found.counts == {"chosen": 1500, "test": 1500}
    assert found.kind == "wrong"
    lines = {line.rule: line for line in found.lines}
    without = {"BitCal-TTS", "BitCal-TTS, scaled"}  # what they look at was not kept
    assert set(lines) == (set(BASELINES) - without) | set(PRESETS)
    full, ours = lines["L0"], lines["balanced"]
    assert full.saved.value == full.premature.value == full.changed.value == 0
    assert full.tokens.value == 90
    assert 0.75 < full.accuracy.value < 0.85
    assert ours.saved.low > 0.1
    assert ours.premature.value <= 0.02 + 0.01
    assert ours.promised == 0.02
    assert full.promised is None


def test_what_is_lost_and_gained_adds_up(found) -> None:
    for line in found.lines:
        assert line.accuracy.value >= found.lines[0].accuracy.value - line.premature.value - 1e-9
        spent = line.tokens.value + line.probes.value
        assert line.saved.value == pytest.approx(1 - spent / 90)
        for figure in (line.tokens, line.saved, line.changed):
            assert figure.low <= figure.value <= figure.high


def test_the_matched_baselines_are_matched(found) -> None:
    lines = {line.rule: line for line in found.lines}
    ours = lines["balanced"]
    assert lines["random"].ended.value == pytest.approx(ours.ended.value, abs=0.03)
    assert lines["fixed budget"].saved.value >= ours.saved.value - 0.01
    assert lines["random"].premature.low > ours.premature.high
    assert lines["fixed budget"].premature.low > ours.premature.high


def test_scores_that_know_nothing_save_nothing(found) -> None:
    assert found.controls["constant"].plan is None
    assert found.controls["shuffled"].saved < 0.1 < found.certificates["fast"].saved


def test_without_labels_changes_are_counted() -> None:
    found = study(simulated(1200, labels=False), Options(draws=50, baselines=("L0",)))
    assert found.kind == "changed"
    ours = {line.rule: line for line in found.lines}["fast"]
    assert ours.accuracy is None
    assert ours.premature is None
    assert ours.changed.value < 0.08
    assert ours.saved.value > 0


def test_a_study_is_plain_json(found) -> None:
    data = json.loads(json.dumps(found.to_dict()))
    assert data["lines"][0]["tokens"] == {"value": 90.0, "low": 90.0, "high": 90.0}
    assert data["controls"]["constant"]["plan"] is None


@pytest.mark.parametrize("preset", PRESETS)
def test_many_runs_at_once_end_as_each_is_replayed(found, preset: str) -> None:
    plan = found.certificates[preset].plan
    runs = [case.run for case in simulated(300, seed=7)]
    out = outcome_of(Table.of(runs, "wrong"), plan)
    exits = [replay(run, plan) for run in runs]
    assert out.tokens[0].tolist() == [end.tokens for end in exits]
    assert out.probes[0].tolist() == [end.probe_tokens for end in exits]
    assert out.settled[0].tolist() == [end.finish == "settled" for end in exits]
    assert out.lost[0].tolist() == [loses(r, e) for r, e in zip(runs, exits, strict=True)]


def test_groups_stay_together() -> None:
    runs = [case.run for case in simulated(101)]
    chosen, test = split(runs, 0.3, seed=5)
    assert sorted(chosen + test) == list(range(101))
    assert not {runs[i].group for i in chosen} & {runs[i].group for i in test}
    assert 25 < len(test) < 35


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(CalibrationError, match="19 runs to choose rules and 50"):
        compare(simulated(19), simulated(50), Options())


def test_controls_keep_answers_and_take_the_sense_out_of_scores() -> None:
    runs = [case.run for case in simulated(30)]
    for spoilt in (shuffled(runs), constant(runs)):
        for run, other in zip(runs, spoilt, strict=True):
            assert other.right_at == run.right_at
            assert [p.trial.answer for p in other.checkpoints] == [
                p.trial.answer for p in run.checkpoints
            ]
    assert names_of(runs) == ["logprob", "trial_probability"]  # tokens tell the place alone
    before = [p.scores["logprob"] for run in runs for p in run.checkpoints]
    mixed = [p.scores["logprob"] for run in shuffled(runs) for p in run.checkpoints]
    assert mixed != before
    assert sorted(mixed) == sorted(before)
    assert {s for run in constant(runs) for p in run.checkpoints for s in p.scores.values()} == {0}


def test_intervals_are_paired_and_by_group() -> None:
    again = Resample([str(i // 5) for i in range(500)], draws=400)
    values = [float(i // 5 % 2) for i in range(500)]  # all rows of a group alike
    figure = again.mean(values)
    assert figure.value == 0.5
    assert 0.08 < figure.high - 0.5 < 0.12  # 100 groups, not 500 rows: 1.96 * sqrt(.25 / 100)
    assert again.saved(values, values).high == 0.0
    assert share([True] * 9 + [False]).low == pytest.approx(0.5958, abs=1e-3)
