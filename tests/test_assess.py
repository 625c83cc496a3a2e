"""What the assessor makes of a generation: a probability, or None with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitcal_integrations.assess import EVERY, Assessor, Extras, extras_of, find_profile, unanswered
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.engines._ticket import Outcome
from bitcal_integrations.errors import BadRequest, ProfileError
from bitcal_integrations.features import make_schema
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import FILE_NAME, Profile, TaskProfile, decoding_of
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny import assets
from bitcal_integrations.types import Answer, Generation, Request, Timing

PARTS = {"model": "toy"}
TABLE = {f"Question {n}?": (f"yes{n}", 0.4 + n / 1000) for n in range(400)}


def profile_for(parser: str | None = None, **request: Any) -> Profile:
    """A profile whose calibrator was fitted on scores from .4 to .8 that are right as often."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.4, 0.8, 800)
    calibrator = fit_calibrator(p, rng.random(800) < p, names=("confidence",), method="platt")
    task = TaskProfile(
        parser, "exact", decoding_of(Request("", parser=parser, **request)),
        make_schema(["confidence"]), calibrator,
    )  # fmt: skip
    return Profile(PARTS, {"default": task}, "default")


@pytest.fixture
def model() -> Iterator[CalibratedModel]:
    with CalibratedModel(ToyModel(TABLE)._engine, "toy") as model:
        model.use_profile(profile_for())
        yield model


def test_a_calibrated_answer(model: CalibratedModel) -> None:
    confidence = model.ask("Question 200?").confidence
    assert confidence.value == pytest.approx(0.6, abs=0.05)
    assert confidence.calibrated
    assert confidence.low < confidence.value < confidence.high
    assert confidence.interval
    assert confidence.raw == pytest.approx(0.6)
    assert confidence.reason == ""
    assert confidence.profile == model.profile.fingerprint


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"temperature": 0.5}, "another decoding: temperature is 0.5, measured was 0.0"),
        ({"stop": "x"}, "another decoding: stop is ['x'], measured was []"),
        ({"parser": "gsm8k"}, "no_answer: nothing for parser 'gsm8k'"),
        ({"parser": "first_line"}, "parser is 'first_line', measured was None"),
        ({"chat": False}, "chat is False, measured was True"),
        ({"response_schema": {"type": "integer"}}, "another decoding: response_schema is '"),
    ],
)
def test_another_decoding_is_unknown(model: CalibratedModel, options: Any, reason: str) -> None:
    confidence = model.ask("Question 200?", **options).confidence
    assert confidence.value is None
    assert not confidence.calibrated
    assert reason in confidence.reason


def test_seed_length_and_top_p_of_greedy_decoding_do_not_matter(model: CalibratedModel) -> None:
    plain = model.ask("Question 200?").confidence.value
    other = model.ask("Question 200?", seed=5, max_new_tokens=9, top_p=0.4).confidence.value
    assert other == plain


@pytest.mark.parametrize(
    ("generation", "parser", "reason"),
    [
        (Generation("", "stop"), None, "the text is empty"),
        (Generation("abc", "length"), None, "cut at max_new_tokens"),
        (Generation("abc", "loop"), None, "repeats itself"),
        (Generation("abc", "stop"), "gsm8k", "nothing for parser 'gsm8k'"),
        (Generation("abc", "cancelled"), None, "was cancelled"),
        (Generation("abc", "error"), None, "failed"),
    ],
)
def test_what_holds_no_answer(generation: Generation, parser: str | None, reason: str) -> None:
    request = Request("q", parser=parser)
    assert reason in unanswered(request, generation)
    assert unanswered(request, generation).startswith("no_answer")
    confidence = Assessor(profile_for(parser), PARTS).confidence(request, generation)
    assert confidence.value is None
    assert reason in confidence.reason


def test_a_tool_call_is_no_answer() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    call = Generation('<tool_call>{"name": "add", "arguments": {}}</tool_call>', "stop")
    assert unanswered(Request("q", tools=(tool,)), call) == "no_answer: the text calls a tool"
    assert unanswered(Request("q"), call) == ""


def test_a_cut_text_with_its_answer_is_answered() -> None:
    generation = Generation("#### 12", "length", answer=Answer("12", 5, 7))
    assert unanswered(Request("q", parser="gsm8k"), generation) == ""


def test_the_tasks_parser_is_filled_in() -> None:
    assessor = Assessor(profile_for("first_line"), PARTS)
    assert assessor.resolve(Request("q")).parser == "first_line"
    assert assessor.resolve(Request("q", parser="gsm8k")).parser == "gsm8k"
    with pytest.raises(BadRequest, match="no task 'maths': it was measured on 'default'"):
        assessor.resolve(Request("q", task="maths"))


def test_a_foreign_profile_gives_no_number_and_names_the_part() -> None:
    foreign = Assessor(profile_for(), {"model": "other"})
    confidence = foreign.confidence(Request("q"), Generation("abc", "stop"))
    assert confidence.value is None
    assert "model is 'other', measured was 'toy'" in confidence.reason
    assert foreign.resolve(Request("q", task="anything")).parser is None
    with pytest.raises(ProfileError, match="strict=True refuses"):
        Assessor(profile_for(), {"model": "other"}, strict=True)
    with pytest.raises(ProfileError, match="no profile"):
        Assessor(None, PARTS, strict=True)


def test_scores_unlike_the_calibration_set_are_shifted(model: CalibratedModel) -> None:
    """The value stays, no bound is claimed; scores like those measured end it again."""
    table = {f"Easy {n}?": ("yes", 0.97) for n in range(2 * EVERY)}
    with CalibratedModel(ToyModel(table)._engine, "toy") as other:
        other.use_profile(profile_for())
        records = other.ask(list(table))
    assert records[0].confidence.reason == ""
    last = records[-1].confidence
    assert "shifted" in last.reason
    assert last.value is not None
    assert (last.low, last.high, last.interval) == (0.0, 1.0, "none: shifted")
    like = model.ask([f"Question {n * 151 % 400}?" for n in range(400)])  # scores in no order
    assert not any("shifted" in r.confidence.reason for r in like)


def test_a_missing_feature_is_unknown() -> None:
    profile = profile_for()
    task = replace(profile.task(), schema=make_schema(["agreement"]))
    assessor = Assessor(replace(profile, tasks={"default": task}), PARTS)
    with ToyModel(TABLE) as toy:
        generation = toy.ask("Question 1?").generation
    confidence = assessor.confidence(Request("q"), generation)
    assert confidence.value is None
    assert confidence.reason == "not measured: agreement"


def test_extras_are_asked_once_for_two_schemas() -> None:
    request, generation = Request("q"), Generation("abc", "stop")
    few, more = make_schema(["agreement"], samples=2), make_schema(["cocoa"], samples=3)
    assert len(extras_of((few, None, more), request, generation).requests) == 3
    assert extras_of((few,), request, Generation("", "stop")).requests == ()


def test_a_failed_extra_pass_leaves_its_signal_out() -> None:
    request = Request("q")
    done = Outcome(Generation("a", "stop", n_tokens=2), Timing())
    extras = Extras(("", "", "p_true", "perturb"), (request,) * 4)
    samples, passes, tokens = extras.gather([done, done, ValueError("no"), done])
    assert len(samples) == 2
    assert set(passes) == {"perturb"}
    assert tokens == 6


def test_where_a_profile_is_found(tmp_path: Path) -> None:
    profile = profile_for()
    profile.save(tmp_path / FILE_NAME)
    assert find_profile("auto", tmp_path, {}, "float32").fingerprint == profile.fingerprint
    assert find_profile(tmp_path / FILE_NAME, "anything", {}, "float32") is not None
    assert find_profile(profile, tmp_path, {}, "float32") is profile
    assert find_profile("auto", object(), {}, "float32") is None
    assert find_profile(None, tmp_path, {}, "float32") is None
    with pytest.raises(ProfileError, match="cannot be read"):
        find_profile(str(tmp_path / "none.json"), tmp_path, {}, "float32")
    with pytest.raises(BadRequest, match="'auto', None, a path or a Profile"):
        find_profile(3, tmp_path, {}, "float32")


REPAIR = {"name": "data-free", "steps": ["fold", "clip"], "seed": 0, "fold_steps": 300}


def test_a_repaired_model_never_takes_the_profile_of_a_plain_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "PROFILE_DIR", tmp_path)
    plain = replace(profile_for(), parts={**PARTS, "repair": None})
    mended = replace(plain, parts={**PARTS, "repair": REPAIR})
    kinds = {"a": "qint2", "b": "qint2"}

    def found(repair: Any, kinds: dict[str, str] = kinds) -> Profile | None:
        return find_profile("auto", assets.MODEL_NAME, kinds, "float32", repair)

    plain.save(assets.profile_file("qint2", "float32"))
    assert found(None) is not None
    assert found(REPAIR) is None
    mended.save(assets.profile_file("qint2", "float32", "data-free"))
    assert found(None).parts["repair"] is None
    assert found(REPAIR).parts["repair"] == REPAIR
    assert found({**REPAIR, "seed": 3}) is None
    assert found({**REPAIR, "steps": ["clip"]}) is None
    assert found(REPAIR, {"a": "qint2", "b": "qint8"}) is None


def test_why_there_is_no_profile_for_a_repair() -> None:
    other = {**REPAIR, "seed": 3}
    assert "has not been measured with the repair" in Assessor(None, {"repair": other}).foreign
    assert "'seed': 3" in Assessor(None, {"repair": other}).foreign
    assert "repair" not in Assessor(None, {"repair": None}).foreign
