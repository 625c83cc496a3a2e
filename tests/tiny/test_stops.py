"""Early stops that ship with the built-in model: whose questions they rest on, and what they do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.decide.stop import PRESETS
from bitcal_integrations.profile import Profile
from bitcal_integrations.tiny import measure, stops
from bitcal_integrations.tiny.assets import CARD_FILE, METRICS_FILE, profile_file
from bitcal_integrations.tiny.card import SETTINGS, title
from bitcal_integrations.tiny.card_text import render
from bitcal_integrations.tiny.tasks import Question, stream

SHIPPED = json.loads(METRICS_FILE.read_text("utf-8"))["stops"]  # by the card's title of a setting


def test_certificates_rest_on_questions_of_their_own() -> None:
    asked = stops.draw(200, 1000)
    assert len({e.group for e in asked}) == len(asked) == 200
    assert stops.draw(100, 1000) == asked[:100]
    labels = measure.draw("calibration", 1000, measure.LABELS_SEED)
    test = measure.draw("test", 1000, measure.TEST_SEED)
    assert not {e.group for e in asked} & {e.group for e in labels + test}
    assert {e.by["task"] for e in asked} == {"math"}


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint4") as model:
        yield model


@pytest.fixture(scope="module")
def repeated() -> list[Question]:
    """Word problems that ask for their steps to be repeated, of no split that was measured on."""
    fresh = (q for q in stream("math", "test", "repeated") if q.wording.endswith("+check"))
    return [q for q, _ in zip(fresh, range(12), strict=False)]


def test_a_problem_with_repeated_steps_ends_early_and_says_why(
    model: CalibratedModel, repeated: list[Question]
) -> None:
    prompts = [list(q.messages) for q in repeated]
    full = model.ask(prompts, task="math")
    ended = model.ask(prompts, task="math", early_stop="balanced")
    settled = [(a, b) for a, b in zip(full, ended, strict=True) if b.generation.finish == "settled"]
    assert len(settled) >= 3
    certificate = next(c for c in model.profile.task("math").stops if c.max_loss == 0.02)
    for whole, early in settled:
        spent = early.generation.n_tokens + early.generation.probe_tokens
        assert spent < whole.generation.n_tokens
        told = json.loads(json.dumps(early.bitcal()))["stopped"]
        assert told["level"] == "settled"
        assert told["rule"] == str(certificate.plan.settled)
        assert told["promise"]["max_loss"] == PRESETS["balanced"]
        assert told["promise"]["delta"] == stops.DELTA
        assert told["promise"]["n"] == certificate.n >= 1000
        assert early.confidence.value == certificate.probability(early.generation.checkpoints)


def test_certificates_ship_with_the_default_dtype() -> None:
    assert {"none bfloat16", "qint4 bfloat16"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_profile_has_the_certificates_that_the_card_tells_of(name: str) -> None:
    setting = measure.Setting.of(name)
    profile = Profile.load(profile_file(setting.weights, setting.dtype, setting.repair))
    assert bool(profile.task("math").stops) == (title(name) in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_certificates_say_what_they_rest_on(name: str) -> None:
    setting = measure.Setting.of("-".join(name.rsplit(" ", 1)))
    profile = Profile.load(profile_file(setting.weights, setting.dtype, setting.repair))
    made = {c.max_loss: c for c in profile.task("math").stops}
    assert sorted(made) == sorted(PRESETS.values())
    shown = SHIPPED[name]
    for preset, loss in PRESETS.items():
        one, card = made[loss], shown["presets"][preset]
        assert (one.n, one.losses["settled"]) == (card["tested"], card["lost"])
        assert one.n + one.fitted == shown["runs"]
        assert one.n >= 1000
        assert one.plan is None or one.losses["settled"] / one.n < loss
    assert f"| {name.replace(' ', ' | ')} | {shown['right']:.3f} | fast |" in (
        CARD_FILE.read_text("utf-8")
    )


def test_what_the_card_says_of_a_preset_without_a_rule(
    model: CalibratedModel, tmp_path: Path
) -> None:
    runs = stops.log(model, stops.draw(4, 100), tmp_path / "runs.jsonl.gz", None)
    before = model.profile
    try:
        profile = stops.certified(model, before, runs)
    finally:
        model.use_profile(before)
    found = stops.told(profile, runs)
    assert found["runs"] == 4
    assert {one["rule"] for one in found["presets"].values()} == {None}
    metrics = json.loads(METRICS_FILE.read_text("utf-8")) | {"stops": {"qint4 bfloat16": found}}
    training = json.loads((METRICS_FILE.parent / "training.json").read_text("utf-8"))
    assert "nowhere: settled: 2 runs to test are too few" in render(metrics, training)
