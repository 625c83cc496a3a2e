"""The profile's file, its fingerprint, and what replayed canaries say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitcal_integrations.canary import Canary, judge
from bitcal_integrations.errors import ProfileError
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import Profile, decoding_of, differing, fingerprint_of
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Request

N = 300
TABLE = {f"Question {n}?": (f"yes{n}", 0.3 + n / 600, f"no{n}") for n in range(N)}
EXAMPLES = [(q, entry[0]) for q, entry in TABLE.items()]


def serve(table: dict, name: str = "toy") -> CalibratedModel:
    return CalibratedModel(ToyModel(table)._engine, name)


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with serve(TABLE) as model:
        yield model


@pytest.fixture(scope="module")
def profile(model: CalibratedModel) -> Profile:
    return fit_profile(model, EXAMPLES, grader="exact")


def test_the_same_model_is_the_same(model: CalibratedModel, profile: Profile) -> None:
    check = profile.check(model)
    assert (check.state, check.agreement, check.difference) == ("same", 1.0, 0.0)
    assert check.n == 64
    assert check.fingerprint == ""


def test_a_model_with_other_scores_is_shifted(profile: Profile) -> None:
    table = {q: (a, p - 0.05, w) for q, (a, p, w) in TABLE.items()}
    with serve(table) as other:
        check = profile.check(other)
    assert check.state == "shifted"
    assert check.difference == pytest.approx(0.05, abs=1e-6)


def test_a_model_with_other_answers_is_void(profile: Profile) -> None:
    table = {q: ("something else", p) for q, (_, p, _) in TABLE.items()}
    with serve(table, "other") as other:
        check = profile.check(other)
    assert check.state == "void"
    assert "model is 'other', measured was 'toy'" in str(check)


@pytest.mark.parametrize(
    ("agreement", "difference", "state"),
    [
        (1.0, 0.0, "same"),
        (0.95, 0.02, "same"),
        (0.94, 0.0, "shifted"),
        (1.0, 0.03, "shifted"),
        (0.8, 0.1, "shifted"),
        (0.79, 0.0, "void"),
        (1.0, 0.11, "void"),
    ],
)
def test_where_the_lines_are(agreement: float, difference: float, state: str) -> None:
    assert judge(agreement, difference, 64, "").state == state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": []}, "tasks []"),
        ({"tasks": {}, "parts": None}, "parts None"),
        ({"tasks": {}}, "tasks {}"),
        ({"tasks": {"default": []}}, "not a whole profile"),
        ({"tasks": {"default": {"parser": 3}}}, "not a whole profile"),
        ({"default": "math"}, "the default task 'math' is none of 'default'"),
        ({"canaries": 3}, "not a whole profile"),
        ({"made_with": None}, "made_with None"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(
    profile: Profile, tmp_path: Path, change: dict, words: str
) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**profile.to_dict(), **change}))
    with pytest.raises(ProfileError) as caught:
        Profile.load(path)
    assert words in str(caught.value)


def test_without_canaries_nothing_can_be_replayed(model: CalibratedModel, profile: Profile) -> None:
    with pytest.raises(ProfileError, match="no canaries"):
        replace(profile, canaries=()).check(model)


@pytest.mark.parametrize(
    ("unscored", "state"), [(0, "same"), (2, "same"), (10, "shifted"), (20, "void"), (64, "void")]
)
def test_an_answer_without_its_score_is_not_the_same(
    model: CalibratedModel, profile: Profile, unscored: int, state: str
) -> None:
    class Mute:
        fingerprint_parts = model.fingerprint_parts

        def ask(self, prompts: list[Any], **options: Any) -> list[Any]:
            unknown = replace(model.ask("say 1", **options).confidence, raw=None)
            records = model.ask(prompts, **options)
            mute = [replace(r, confidence=unknown) for r in records[:unscored]]
            return mute + records[unscored:]

    check = profile.check(Mute())
    assert (check.state, check.unscored) == (state, unscored)
    assert check.agreement == 1.0
    assert ("have none now" in str(check)) == (unscored > 0)
    assert math.isnan(check.difference) == (unscored == 64)


def test_tasks_by_name(profile: Profile) -> None:
    assert profile.task() is profile.task("default")
    named = replace(profile, tasks={"maths": profile.task()}, default="maths")
    assert named.task("default") is named.task("maths")
    with pytest.raises(ProfileError, match="no task 'facts': it was measured on 'maths'"):
        named.task("facts")


def test_joining_tasks(model: CalibratedModel, profile: Profile) -> None:
    other = fit_profile(model, EXAMPLES[:150], grader="exact", task="half")
    both = profile.with_tasks(other)
    assert set(both.tasks) == {"default", "half"}
    assert both.default == "default"
    assert len(both.canaries) == 64
    assert {c.task for c in both.canaries} == {"default", "half"}
    assert both.check(model).state == "same"
    foreign = replace(other, parts={"model": "other"})
    with pytest.raises(ProfileError, match="two models cannot be joined: model is 'other'"):
        profile.with_tasks(foreign)


def test_the_fingerprint_names_what_differs() -> None:
    a = {"model": "m", "weights": {"x": "qint4", "y": "qint4"}, "dtype": "float32"}
    b = {**a, "weights": {"x": "qint8", "y": "qint4"}}
    assert fingerprint_of(a) != fingerprint_of(b)
    assert fingerprint_of(a) == fingerprint_of(dict(reversed(a.items())))
    assert differing(a, a) == ""
    assert differing(a, b) == "weights is qint4 x 1, qint8 x 1, measured was qint4 x 2"
    assert "new is 1" in differing(a, {**a, "new": 1})


def test_what_of_a_request_is_decoding() -> None:
    one = Request("a", max_new_tokens=5, seed=3, top_p=0.5)
    assert decoding_of(one) == decoding_of(Request("b"))
    sampled = Request("a", temperature=0.7, top_p=0.5)
    assert decoding_of(sampled) != decoding_of(replace(sampled, top_p=0.9))
    assert decoding_of(one) != decoding_of(replace(one, stop=("x",)))
    assert decoding_of(one) != decoding_of(replace(one, loop_stop=False))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": "other"}', '{"format": "bitcal-profile", "version": 99}',
     '{"format": "bitcal-profile", "version": 1}'],
)  # fmt: skip
def test_a_file_that_is_no_profile(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(ProfileError):
        Profile.load(path)


def test_a_damaged_profile_is_refused(profile: Profile, tmp_path: Path) -> None:
    data = profile.to_dict()
    del data["tasks"]["default"]["calibrator"]
    (tmp_path / "p.json").write_text(json.dumps(data))
    with pytest.raises(ProfileError, match="calibrator"):
        Profile.load(tmp_path / "p.json")
    with pytest.raises(ProfileError, match="cannot be read"):
        Profile.load(tmp_path / "none.json")


def test_a_canary_keeps_messages() -> None:
    canary = Canary(({"role": "user", "content": "Hi"},), "default", 8, "yes", 0.5)
    assert Canary.from_dict(json.loads(json.dumps(canary.to_dict()))) == canary
