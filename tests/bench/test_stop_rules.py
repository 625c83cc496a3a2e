"""Baselines on hand-made runs: where each ends, and what it pays."""

from __future__ import annotations

import pytest

from bitcal_integrations.bench.stops import BASELINES, Case, Chunk, Controller, Setting, chunks_of
from bitcal_integrations.bench.stops.rules import end_at, loses, unrest, within
from bitcal_integrations.decide.stop import Checkpoint, Exit, LoggedRun, Trial
from bitcal_integrations.types import Step


def run_of(
    answers: str,
    right: str = "4",
    full: str = "4",
    *,
    sure: tuple[float, ...] = (),
    name: str = "q",
) -> LoggedRun:
    """A run of 10 tokens a checkpoint and 10 more at its end; each trial answer takes 3 tokens.

    `answers` are the trial answers, one character each, "-" for none.
    """
    places = []
    for at, answer in enumerate(answers):
        score = sure[at] if sure else 0.5
        trial = Trial(
            None if answer == "-" else answer,
            {"trial_probability": score, "trial_entropy": score - 1},
            3,
        )
        places.append(Checkpoint(10 * (at + 1), {"lowest": -score, "logprob": -score}, trial))
    return LoggedRun(
        tuple(places), 10 * (len(answers) + 1), full, full == right,
        tuple(answer == right for answer in answers), id=name,
    )  # fmt: skip


def ends(rule: str, *runs: LoggedRun, **setting: object) -> list[Exit]:
    cases = [Case(run) for run in runs]
    made = BASELINES[rule](Setting(cases, budget=100, **setting))
    return [made(case) for case in cases]


def test_l0_is_the_full_run() -> None:
    (end,) = ends("L0", run_of("94"))
    assert end == Exit(None, "answer", 30, 0, "4", True)


def test_a_budget_leaves_room_for_the_answer() -> None:
    run = run_of("944")
    assert within(run, 40) == Exit(None, "answer", 40, 0, "4", True)
    assert within(run, 39) == Exit(2, "settled", 33, 0, "4", True)
    assert within(run, 22) == Exit(0, "settled", 13, 0, "9", False)
    assert within(run, 5) == Exit(0, "settled", 13, 0, "9", False)  # it cannot end earlier
    assert within(LoggedRun((), 9, "4", True), 5).tokens == 9


def test_the_fixed_budget_costs_what_it_is_compared_with() -> None:
    runs = [run_of("4444", name=str(i)) for i in range(10)]
    assert {end.tokens for end in ends("fixed budget", *runs, spent=30.0)} == {23}
    assert {end.tokens for end in ends("fixed budget", *runs, spent=43.0)} == {43}


def test_random_ends_the_same_share_of_runs_every_time() -> None:
    runs = [run_of("4444", name=str(i)) for i in range(2000)]
    found = ends("random", *runs, ends=0.3)
    early = [end.index for end in found if end.index is not None]
    assert abs(len(early) / 2000 - 0.3) < 0.04
    assert {early.count(i) > 100 for i in range(4)} == {True}
    assert found == ends("random", *runs, ends=0.3)
    assert all(end.probe_tokens == 0 for end in found)


def test_deepconf_gives_up_the_weakest_tenth() -> None:
    runs = [run_of("44", sure=(0.1, i / 100), name=str(i)) for i in range(100)]
    found = ends("DeepConf", *runs)
    given_up = [end for end in found if end.finish == "hopeless"]
    assert len(given_up) == 10
    assert {(end.answer, end.right, end.tokens, end.probe_tokens) for end in given_up} == {
        (None, False, 20, 0)
    }


def test_trial_answers_are_paid() -> None:
    run = run_of("944", sure=(0.5, 0.96, 0.99))
    assert ends("DEER, p >= .95", run) == [Exit(1, "settled", 23, 3, "4", True)]
    assert ends("Dynasor, 3 alike", run_of("9444")) == [Exit(3, "settled", 43, 9, "4", True)]
    assert ends("Dynasor, 3 alike", run_of("94-4")) == [Exit(None, "answer", 50, 12, "4", True)]


def test_the_tuned_threshold_is_the_lowest_that_lost_little() -> None:
    good = [run_of("44", sure=(0.8, 0.9), name=str(i)) for i in range(95)]
    bad = [run_of("94", sure=(0.6, 0.9), name=f"bad {i}") for i in range(5)]
    found = ends("DEER, tuned", *good, *bad, max_loss=0.02)
    assert {end.index for end in found[:95]} == {0}
    assert {end.index for end in found[95:]} == {1}


def test_eat_waits_until_the_entropy_rests() -> None:
    run = run_of("9444", sure=(0.2, 0.9, 0.9, 0.9))
    first, second, *_ = spreads = unrest(run)
    mean = 0.8 * -0.8 + 0.2 * -0.1  # moving mean after the second of -0.8, -0.1
    assert first == 0
    assert second == pytest.approx(0.2 * (-0.1 - mean) ** 2 / (1 - 0.8**2))
    assert spreads[3] < spreads[2]
    calm = [run_of("444", sure=(0.9, 0.9, 0.9), name=str(i)) for i in range(20)]
    (end, *_) = ends("EAT, tuned", *calm)
    assert end == Exit(1, "settled", 23, 3, "4", True)  # never at the first one


def test_a_run_without_an_answer_at_a_checkpoint_goes_on() -> None:
    assert end_at(run_of("-4"), 0, [0]) == Exit(None, "answer", 30, 3, "4", True)


def test_loss_is_the_full_run_right_and_the_end_wrong() -> None:
    right, wrong = run_of("9"), run_of("4", full="9")
    assert loses(right, end_at(right, 0))
    assert not loses(wrong, end_at(wrong, 0))
    unjudged = LoggedRun(right.checkpoints, 20, "4")
    assert loses(unjudged, end_at(unjudged, 0))  # another answer


def chunks(*marked: bool, entropy: float = 0.1, alike: bool = False) -> tuple[Chunk, ...]:
    return tuple(
        Chunk(16 * (i + 1), entropy, alike if i else None, mark, "4", True)
        for i, mark in enumerate(marked)
    )


@pytest.mark.parametrize(("bits", "stops"), [(16, 8), (8, 9), (4, 10), (2, 10)])
def test_bitcal_tts_waits_after_the_mark_as_its_bits_say(bits: int, stops: int) -> None:
    seen = chunks(*[i >= 8 for i in range(12)])
    assert Controller(bits, 512).stop(seen) == stops


def test_bitcal_tts_has_a_floor_a_budget_and_a_break() -> None:
    early = chunks(*[i >= 1 for i in range(12)])
    assert Controller(16, 512).stop(early) == 7  # 128 tokens
    assert Controller(16, 512, floor=0).stop(chunks(False, False)) == 0  # no pair: all signals 1
    assert Controller(16, 96, floor=128).stop(early) == 5  # fewer than 16 tokens remain after it
    assert Controller(16, 512).stop(chunks(False, False, entropy=5.0)) == 0


def test_the_confidence_of_bitcal_tts_cannot_stop_a_run_that_does_not_repeat() -> None:
    for bits, most in ((4, 0.85 * 0.65), (16, 1.05 * 0.65)):
        best = Controller(bits, 512).confidence(Chunk(160, 0.0, False, False), [False] * 9)
        assert best == pytest.approx(most)
        assert best < 0.75
    repeating = chunks(*[False] * 12, alike=True)
    assert Controller(4, 512).stop(repeating) == 7


def test_the_baseline_ends_with_what_the_text_says_there() -> None:
    run = LoggedRun((), 300, "42", True)
    cut = tuple(Chunk(16 * i, 0.1, False, i >= 9, "4", False) for i in range(1, 18))
    made = BASELINES["BitCal-TTS"](Setting([Case(run, cut)], budget=512, bits=16))
    assert made(Case(run, cut)) == Exit(8, "settled", 144, 0, "4", False)
    assert made(Case(run, cut[:8])) == Exit(None, "answer", 300, 0, "42", True)


def test_the_floor_is_shortened_with_the_runs() -> None:
    run = LoggedRun((), 73, "4", True)  # a quarter of 292 tokens
    seen = chunks(*[True] * 4)
    made = BASELINES["BitCal-TTS, scaled"](Setting([Case(run, seen)], budget=512, bits=16))
    assert made(Case(run, seen)).tokens == 32


def test_chunks_are_sixteen_tokens_and_compared_as_text() -> None:
    raw = "abc" * 16 + "abc" * 16 + "xyz" * 14 + "####" + "4 " + "tail"
    pieces = [raw[i : i + 3] for i in range(0, 138, 3)] + ["####", "4 ", "tail"]
    steps, at = [], 0
    for number, piece in enumerate(pieces):
        steps.append(
            Step(1, piece, at, at + len(piece), -0.1, float(number), 1.0, 2.0)
        )  # fmt: skip
        at += len(piece)
    found = chunks_of(raw, steps, lambda text: (text[-2:], text.endswith("4 ")))
    assert [c.tokens for c in found] == [16, 32, 48]
    assert [c.entropy for c in found] == [15.0, 31.0, 47.0]
    assert [c.alike for c in found] == [None, True, False]
    assert [c.marked for c in found] == [False, False, True]
    assert [c.right for c in found] == [False, False, True]
    assert Chunk.from_dict(found[2].to_dict()) == found[2]
