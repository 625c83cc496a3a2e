"""Logged runs: what they hold, and how a chain's records become one."""

from __future__ import annotations

import json

import pytest

from bitcal_integrations.decide.logged import Checkpoint, LoggedRun, Trial
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.types import (
    Answer,
    Confidence,
    Finish,
    Generation,
    Record,
    make_request,
)


def record(
    text: str, confidence: float | None, tokens: int, finish: Finish = "stop", probes: int = 0,
    answer: str | None = None,
) -> Record:  # fmt: skip
    span = None if answer is None else Answer(answer, text.index(answer), len(text))
    generation = Generation(text, finish, n_tokens=tokens, probe_tokens=probes, answer=span)
    return Record(make_request("?"), generation, Confidence(confidence))


def test_json_gives_it_back() -> None:
    run = LoggedRun(
        (Checkpoint(4, {"s": 0.5}), Checkpoint(9, {}, Trial(None, {"trial_margin": 2.0}, 5))),
        20, "4", None, (None, True), "length", "a", "g", {"weights": "qint4"}, "generation",
    )  # fmt: skip
    assert LoggedRun.from_dict(json.loads(json.dumps(run.to_dict()))) == run


def test_a_score_of_the_text_goes_before_one_of_the_trial() -> None:
    place = Checkpoint(4, {"a": 1.0}, Trial("x", {"a": 2.0, "trial_b": 3.0}, 1))
    assert (place.score("a"), place.score("trial_b"), place.score("c")) == (1.0, 3.0, None)


def test_an_answer_is_as_right_as_the_same_answer_at_the_end() -> None:
    places = tuple(Checkpoint(n, {}, Trial(a, {}, 1)) for n, a in ((3, "4"), (6, "5"), (9, None)))
    run = LoggedRun(places, 12, "4", True)
    assert [run.right_of(at) for at in range(3)] == [True, None, None]
    judged = LoggedRun(places, 12, "4", True, (False, True, None))
    assert [judged.right_of(at) for at in range(3)] == [False, True, None]


class TestChain:
    def test_each_step_is_a_checkpoint_whose_answer_is_free(self) -> None:
        steps = [
            record("it is 4", 0.6, 10, answer="4"), record(" 5 \n", None, 20, probes=7),
            record("", float("nan"), 0, "length"),
        ]  # fmt: skip
        run = LoggedRun.of_chain(
            steps, False, [True, False, None], id="q", group="g", by={"k": "v"}
        )
        assert [place.tokens for place in run.checkpoints] == [10, 37, 37]
        assert [dict(place.scores) for place in run.checkpoints] == [{"confidence": 0.6}, {}, {}]
        trials = [place.trial for place in run.checkpoints]
        assert trials == [Trial("4", {}, 0), Trial("5", {}, 0), Trial(None, {}, 0)]
        assert (run.tokens, run.answer, run.right, run.finish) == (37, None, False, "length")
        assert (run.unit, run.id, run.group, run.by) == ("chain", "q", "g", {"k": "v"})
        assert LoggedRun.from_dict(json.loads(json.dumps(run.to_dict()))) == run

    def test_without_labels_of_steps_the_last_answer_is_known_alone(self) -> None:
        run = LoggedRun.of_chain([record(t, 0.5, 1) for t in ("4", "5", "4")], True)
        assert [run.right_of(at) for at in range(3)] == [True, None, True]

    def test_what_is_no_chain_is_quoted(self) -> None:
        with pytest.raises(CalibrationError, match="chain 'q' has no record"):
            LoggedRun.of_chain([], True, id="q")
        with pytest.raises(CalibrationError, match="chain 'q' has 2 entries for 1 steps"):
            LoggedRun.of_chain([record("4", 0.5, 1)], True, [True, False], id="q")
