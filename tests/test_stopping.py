"""Early stops of the built-in model: what a log says, the model does, and a profile promises."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bitcal_integrations import CalibratedModel, Profile, load
from bitcal_integrations.decide.stop import (
    LoggedRun,
    StopCertificate,
    StopPlan,
    StopRule,
    certify_stop,
    replay,
)
from bitcal_integrations.errors import BadRequest, ProfileError
from bitcal_integrations.stopping import certify_stops, default_closing, log_runs
from bitcal_integrations.tiny.tasks import Question, questions
from bitcal_integrations.types import Record, Step

LONGEST = 160
PLANS = {
    "a trial": StopPlan(StopRule("settled", "trial_probability", 0.9, after=20)),
    "two that agree": StopPlan(StopRule("settled", "trial_agreement", 2)),
    "patient": StopPlan(StopRule("settled", "trial_margin", 4.0, patience=2)),
    "free": StopPlan(StopRule("settled", "closing", -1.0)),
    "gated": StopPlan(StopRule("settled", "trial_entropy", -0.1, gate=("closing", -2.0))),
    "each second": StopPlan(StopRule("settled", "trial_probability", 0.5, every=2)),
    "gives up": StopPlan(hopeless=StopRule("hopeless", "lowest", -0.0005, after=24)),
    "both": StopPlan(
        StopRule("settled", "trial_agreement", 2), StopRule("hopeless", "margin", 11.6, after=30)
    ),
}


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return questions("math", "test", 12)


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32", max_new_tokens=LONGEST) as model:
        yield model


def data(asked: Sequence[Question]) -> list[dict]:
    return [{"id": q.id, "prompt": q.prompt, "gold": q.gold} for q in asked]


@pytest.fixture(scope="module")
def runs(model: CalibratedModel, asked: list[Question]) -> list[LoggedRun]:
    return log_runs(model, data(asked), grader="tiny", task="math")


def by_id(runs: list[LoggedRun], asked: Sequence[Question]) -> list[LoggedRun]:
    found = {run.id: run for run in runs}
    return [found[q.id] for q in asked]


def assert_as_replayed(record: Record, run: LoggedRun, plan: StopPlan) -> None:
    end, generation = replay(run, plan), record.generation
    assert (generation.finish, generation.n_tokens, generation.probe_tokens) == (
        end.finish, end.tokens, end.probe_tokens
    )  # fmt: skip
    assert (generation.answer.text if generation.answer else None) == end.answer


# ---- logs -----------------------------------------------------------------------------------


def test_a_logged_run_ends_as_without_trials(
    model: CalibratedModel, runs: list[LoggedRun], asked: list[Question]
) -> None:
    bare = model.ask([q.prompt for q in asked], task="math")
    for question, record, run in zip(asked, bare, by_id(runs, asked), strict=True):
        answer = record.generation.answer
        assert (run.tokens, run.finish) == (record.generation.n_tokens, record.generation.finish)
        assert run.answer == (answer.text if answer else None)
        assert run.right == (run.answer == question.gold)
        lines = record.generation.raw.count("\n")
        assert len(run.checkpoints) == lines
        assert all(place.trial is not None for place in run.checkpoints)
        # The last line is the answer's own: asked for there, the model says what it says anyway.
        assert run.checkpoints[-1].trial.answer == run.answer
        assert run.right_of(lines - 1) == run.right


@pytest.mark.parametrize("weights", ["qint4", "qint8"])
def test_on_quantized_weights_the_text_stays_too(weights: str, asked: list[Question]) -> None:
    prompts = [q.prompt for q in asked[:4]]
    with load("bitcal-tiny", weights=weights, dtype="float32", max_new_tokens=LONGEST) as model:
        bare = model.ask(prompts)
        logged = model.ask(prompts, early_stop=StopPlan(log=True))
    for plain, watched in zip(bare, logged, strict=True):
        assert plain.text == watched.text
        assert watched.generation.checkpoints


def test_runs_are_seen_as_they_come_and_need_no_gold(
    model: CalibratedModel, asked: list[Question]
) -> None:
    seen: list[LoggedRun] = []
    told: list[tuple[int, int]] = []
    runs = log_runs(
        model, [{"prompt": q.prompt} for q in asked[:3]], on_run=seen.append,
        progress=lambda done, total, label: told.append((done, total)),
    )  # fmt: skip
    assert {run.id for run in seen} == {run.id for run in runs}
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert [run.right for run in runs] == [None] * 3
    assert all(run.right_of(0) is None for run in runs)


def test_the_closing_text_follows_the_parser() -> None:
    assert default_closing("tiny") == "#### "
    assert default_closing("choice") == default_closing(None) == "Answer:"
    for parser in ("json:answer", "regex:x", len):
        with pytest.raises(BadRequest, match="Give closing"):
            default_closing(parser)


# ---- live runs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_live_runs_equal_their_replay(
    name: str, model: CalibratedModel, runs: list[LoggedRun], asked: list[Question]
) -> None:
    plan = PLANS[name]
    logs = by_id(runs, asked)
    together = model.ask([q.prompt for q in asked], task="math", early_stop=plan)
    for record, run in zip(together, logs, strict=True):
        assert_as_replayed(record, run, plan)
    level = "hopeless" if name == "gives up" else "settled"
    assert level in {record.generation.finish for record in together}
    alone = model.ask(asked[0].prompt, task="math", early_stop=plan)
    assert alone.text == together[0].text
    *steps, record = model.stream(asked[1].prompt, task="math", early_stop=plan)
    assert_as_replayed(record, logs[1], plan)
    assert "".join(step.text for step in steps if isinstance(step, Step)) == record.text


def test_async_ways_too(model: CalibratedModel, asked: list[Question]) -> None:
    plan, prompt = PLANS["a trial"], asked[4].prompt

    async def all_ways() -> list[Record]:
        streamed = [x async for x in model.astream(prompt, early_stop=plan)]
        return [await model.aask(prompt, early_stop=plan), streamed[-1]]

    whole = model.ask(prompt, early_stop=plan)
    for record in asyncio.run(all_ways()):
        assert record.text == whole.text
        assert record.generation.stopped["level"] == "settled"


def test_what_is_told_of_a_settled_answer(model: CalibratedModel, asked: list[Question]) -> None:
    record = model.ask(asked[4].prompt, early_stop=PLANS["a trial"])
    assert record.confidence.value is None
    assert record.confidence.reason == "settled early by a plan without a certificate"
    told = json.loads(json.dumps(record.bitcal()))["stopped"]
    assert (told["level"], told["score"], told["threshold"]) == (
        "settled", "trial_probability", 0.9
    )  # fmt: skip
    assert told["path"][-1][0] == record.generation.checkpoints[-1].tokens
    again = Record.from_dict(json.loads(json.dumps(record.to_dict())))
    assert again.generation.stopped == record.generation.stopped
    assert again.request.early_stop == PLANS["a trial"].to_dict()
    assert model.ask(asked[4].prompt, early_stop=again.request.early_stop).text == record.text


def test_a_run_that_is_given_up_has_no_answer(
    model: CalibratedModel, asked: list[Question]
) -> None:
    plan = StopPlan(hopeless=StopRule("hopeless", "logprob", 1.0))
    record = model.ask(asked[3].prompt, early_stop=plan)
    assert record.generation.finish == "hopeless"
    assert record.generation.answer is None
    assert record.confidence.value is None
    assert record.confidence.reason == "no_answer: given up early (logprob <= 1)"
    assert record.generation.n_tokens < model.ask(asked[3].prompt).generation.n_tokens


# ---- certificates ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["slow", 3, {"closing": 3}, [1]])
def test_a_wrong_early_stop_is_quoted(wrong: object, model: CalibratedModel) -> None:
    with pytest.raises(BadRequest, match="early_stop"):
        model.ask("x", early_stop=wrong)


@pytest.fixture(scope="module")
def profile(model: CalibratedModel) -> Profile:
    runs, own = [exit_of(n) for n in range(300)], model.profile
    bare = replace(own.task("math"), stops=())  # without those that ship
    model.use_profile(replace(own, tasks={**own.tasks, "math": bare}))
    made = certify_stops(model, runs, ("fast", "conservative"), task="math")
    model.use_profile(own)
    return made


def test_a_name_finds_its_certificate_in_the_profile(
    profile: Profile, model: CalibratedModel, runs: list[LoggedRun], asked: list[Question],
    tmp_path: Path,
) -> None:  # fmt: skip
    none, fast = profile.task("math").stops
    assert (none.max_loss, none.plan, fast.max_loss) == (0.01, None, 0.05)
    assert fast.plan is not None, fast
    profile.save(tmp_path / "p.json")
    kept, own = Profile.load(tmp_path / "p.json"), model.profile
    assert [c.to_dict() for c in kept.task("math").stops] == [none.to_dict(), fast.to_dict()]
    model.use_profile(kept)
    try:
        records = model.ask([q.prompt for q in asked[:8]], task="math", early_stop="fast")
        refused = model.ask(asked[0].prompt, task="math", early_stop="conservative")
        warm = model.ask(asked[0].prompt, task="math", early_stop="fast", temperature=0.5, seed=1)
        model.use_profile(kept, strict=True)
        with pytest.raises(ProfileError, match="strict=True refuses early_stop='balanced'"):
            model.ask(asked[0].prompt, task="math", early_stop="balanced")
    finally:
        model.use_profile(own)
    for record, run in zip(records, by_id(runs, asked[:8]), strict=True):
        assert_as_replayed(record, run, fast.plan)
        if record.generation.finish == "settled":
            assert record.generation.stopped["promise"]["max_loss"] == 0.05
            assert record.generation.stopped["expected_saving"] == pytest.approx(fast.saved)
            assert record.confidence.value == fast.probability(record.generation.checkpoints)
            assert record.confidence.profile == profile.fingerprint
    assert "settled" in {record.generation.finish for record in records}
    assert refused.generation.finish == "stop"
    assert refused.generation.stopped["level"] is None
    assert (
        "early_stop='conservative': no early stop is promised"
        in (refused.generation.stopped["reason"])
    )
    assert "another decoding" in warm.generation.stopped["reason"]


def test_without_a_certificate_the_text_ends_by_itself(
    model: CalibratedModel, asked: list[Question]
) -> None:
    bare, asking = (model.ask(asked[0].prompt, early_stop=s) for s in (None, "balanced"))
    assert asking.text == bare.text
    assert asking.confidence.value == bare.confidence.value
    assert asking.bitcal()["stopped"] == {
        "level": None,
        "reason": "early_stop='balanced': the profile has no certificate for it "
        "(see stopping.certify_stops)",
    }
    lone = model.without_profile().ask(asked[0].prompt, early_stop="fast")
    assert lone.generation.stopped["reason"].startswith("early_stop='fast': no profile")


def exit_of(n: int) -> LoggedRun:
    """A run whose second of three lines settles it, with a trial that is right in 9 of 10."""
    right = n % 10 != 0
    log = LoggedRun.from_dict
    places = [
        {"tokens": 10 * k, "scores": {"tokens": 10.0 * k}, "trial": {
            "answer": "4" if right else "5", "tokens": 3,
            "scores": {"trial_probability": 0.99 - 0.3 * (not right) - n / 1e4}}}
        for k in (1, 2, 3)
    ]  # fmt: skip
    return log({
        "checkpoints": places, "tokens": 40, "answer": "4" if right else "5", "right": right,
        "right_at": [right] * 3, "finish": "stop", "id": str(n), "group": "", "by": {},
        "unit": "generation",
    })  # fmt: skip


def test_a_certificate_by_hand_gives_settled_answers_their_own_confidence(
    model: CalibratedModel, asked: list[Question]
) -> None:
    certificate: StopCertificate = certify_stop([exit_of(n) for n in range(300)], 0.05)
    assert certificate.calibrator is not None
    record = model.ask(asked[4].prompt, early_stop=certificate)
    assert record.generation.finish == "settled"
    c = record.confidence
    assert c.calibrated
    assert c.value == certificate.probability(record.generation.checkpoints)
    assert c.low <= c.value <= c.high
    assert c.reason == ""


def test_only_a_model_with_its_own_profile_can_hold_certificates(
    model: CalibratedModel, runs: list[LoggedRun]
) -> None:
    with pytest.raises(ProfileError, match="no profile"):
        certify_stops(model.without_profile(), runs)
    with pytest.raises(BadRequest, match="'quick'"):
        certify_stops(model, runs, ["quick"])
