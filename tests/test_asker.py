"""Asking: answers as they come, extra passes before the Record, profiles kept with weights."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest, EngineClosed, ProfileError
from bitcal_integrations.fit import fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import FILE_NAME, Profile
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import Question, questions
from bitcal_integrations.types import Record

SHORT = {"parser": "first_line", "max_new_tokens": 24}
FEATURES = ["confidence", "agreement", "p_true"]


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return questions("facts", "calibration", 40, seed=8)


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint8", dtype="float32", profile=None) as model:
        yield model


@pytest.fixture(scope="module")
def profile(model: CalibratedModel, asked: list[Question]) -> Profile:
    """A profile on features that need samples and an extra pass."""
    rows = [{"prompt": q.messages, "gold": q.gold} for q in asked]
    return fit_profile(model, rows, features=FEATURES, method="platt", **SHORT)


@pytest.fixture
def served(model: CalibratedModel, profile: Profile) -> CalibratedModel:
    view = model.without_profile()
    view.use_profile(profile)
    return view


def test_answers_come_with_their_index(model: CalibratedModel, asked: list[Question]) -> None:
    prompts = [q.messages for q in asked]
    found = dict(model.ask_each(prompts, **SHORT))
    together = model.ask(prompts, **SHORT)
    assert sorted(found) == list(range(len(prompts)))
    assert [found[i].text for i in range(len(prompts))] == [r.text for r in together]


def test_leaving_the_loop_cancels_the_rest(model: CalibratedModel, asked: list[Question]) -> None:
    answers = model.ask_each([q.messages for q in asked] * 4, **SHORT)
    next(answers)
    answers.close()
    assert isinstance(model.ask("Still there?", max_new_tokens=2), Record)


def test_a_failure_stands_at_its_place() -> None:
    toy = ToyModel({"a": ("b", 0.5)})
    toy.close()
    ((index, error),) = toy.ask_each(["a"])
    assert index == 0
    assert isinstance(error, EngineClosed)


def test_every_way_of_asking_gives_the_same_confidence(
    served: CalibratedModel, asked: list[Question]
) -> None:
    prompt = asked[0].messages
    one = served.ask(prompt, **SHORT)
    *_, streamed = served.stream(prompt, **SHORT)
    ((_, each),) = served.ask_each([prompt], **SHORT)

    async def others() -> tuple[Record, Record]:
        *_, last = [item async for item in served.astream(prompt, **SHORT)]
        return await served.aask(prompt, **SHORT), last

    for record in (streamed, each, *asyncio.run(others())):
        assert record.confidence.value == pytest.approx(one.confidence.value, abs=1e-4)
        assert record.generation.probe_tokens == one.generation.probe_tokens
    assert set(FEATURES) <= set(one.confidence.signals)
    assert one.confidence.value is not None
    assert one.generation.probe_tokens > 0  # samples and the verdict are counted


def test_more_features_on_request(model: CalibratedModel, asked: list[Question]) -> None:
    record = model.ask(asked[0].messages, features=["agreement"], **SHORT)
    assert 0 <= record.confidence.signals["agreement"] <= 1
    assert record.confidence.value is None
    plain = model.ask(asked[0].messages, **SHORT)
    assert "agreement" not in plain.confidence.signals
    assert plain.generation.probe_tokens == 0


def test_a_profile_travels_with_saved_weights(
    served: CalibratedModel, asked: list[Question], tmp_path: Path
) -> None:
    served.save(tmp_path / "m")
    assert (tmp_path / "m" / FILE_NAME).is_file()
    with load(tmp_path / "m", strict=True) as again:
        value = again.ask(asked[1].messages, max_new_tokens=24).confidence.value
    assert value == pytest.approx(served.ask(asked[1].messages, **SHORT).confidence.value, abs=1e-4)
    kept = tmp_path / "m" / FILE_NAME
    with load("bitcal-tiny", weights="qint4", dtype="float32", profile=kept) as other:
        reason = other.ask(asked[1].messages, **SHORT).confidence.reason
    assert "weights is qint4 x 28, measured was qint8 x 28" in reason
    with pytest.raises(ProfileError, match="strict=True refuses"):
        load("bitcal-tiny", weights="qint4", dtype="float32", profile=kept, strict=True)


def test_a_foreign_profile_is_not_saved_with_the_weights(
    model: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    with load("bitcal-tiny", weights=None, dtype="float32", profile=profile) as other:
        other.save(tmp_path / "m")
    assert not (tmp_path / "m" / FILE_NAME).exists()


def test_using_a_profile_by_path_or_not_at_all(
    model: CalibratedModel, profile: Profile, tmp_path: Path
) -> None:
    profile.save(tmp_path / "p.json")
    view = model.without_profile()
    view.use_profile(tmp_path / "p.json")
    assert view.profile is not None
    view.use_profile(None)
    assert view.profile is None
    with pytest.raises(BadRequest, match="profile='auto' is for load"):
        view.use_profile("auto")
    assert model.profile is None
