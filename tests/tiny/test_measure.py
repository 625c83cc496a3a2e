"""How the built-in model is measured: fresh questions, honest parts, a card that says it all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitcal_integrations import load
from bitcal_integrations.canary import CANARIES
from bitcal_integrations.profile import Profile
from bitcal_integrations.repair import Repair
from bitcal_integrations.tiny import measure
from bitcal_integrations.tiny.assets import CARD_FILE, METRICS_FILE, PROFILE_DIR, profile_file
from bitcal_integrations.tiny.card import SETTINGS, add_low_bits, kept, write
from bitcal_integrations.tiny.measure import Setting
from bitcal_integrations.tiny.tasks import TASKS


def test_a_smaller_draw_begins_a_larger_one() -> None:
    few, many = measure.draw("test", 1000, 5), measure.draw("test", 2000, 5)
    assert [e.id for e in many[:1000]] == [e.id for e in few]
    counts = [sum(e.by["task"] == task for e in many) for task in TASKS]
    assert counts == [800, 600, 600]


def test_equal_questions_share_a_group_and_no_id() -> None:
    drawn = measure.draw("calibration", 3000, 5)
    assert len({e.id for e in drawn}) == len(drawn)
    assert len({e.group for e in drawn}) < len(drawn)  # facts are finite
    calibration, test = {e.group for e in drawn}, {e.group for e in measure.draw("test", 3000, 5)}
    assert not calibration & test


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Profile]:
    """A few hundred answers of float weights, and the profile that they give."""
    folder = tmp_path_factory.mktemp("answers")
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None, max_batch=64) as model:
        for part, split, n in (("labels", "calibration", 300), ("test", "test", 100)):
            drawn = measure.draw(split, n, 1)
            measure.ask(model, drawn, folder / f"none-float32.{part}.jsonl", None)
        rows = kept("none-float32", folder)["labels"]
        return folder, measure.fit(model, rows, seed=0)


def test_a_profile_has_every_task(measured: tuple[Path, Profile]) -> None:
    profile = measured[1]
    assert set(profile.tasks) == {"default", *TASKS}
    assert profile.default == "default"
    assert profile.task().parser == "tiny"
    assert profile.task("math").counts["examples"] == 120
    assert len(profile.canaries) == CANARIES


def test_the_card_counts_what_was_measured(measured: tuple[Path, Profile], tmp_path: Path) -> None:
    folder, profile = measured
    rows = kept("none-float32", folder)["test"]
    result = measure.scores(rows, profile)
    right = sum(bool(r.correct) for r in rows)
    assert result["all"]["n"] == 100
    assert result["all"]["accuracy"] == round(right / 100, 4)
    assert sum(result[task]["n"] for task in TASKS) == 100
    assert sum(v["n"] for v in result["math"]["steps"].values()) == 40
    found = {"questions": 100, "labels": 300, "seed": 1, "results": {"none float32": result}}
    found["samples"] = measure.samples(rows)
    (tmp_path / "training.json").write_text(
        (METRICS_FILE.parent / "training.json").read_text("utf-8")
    )
    write(tmp_path, found)
    card = (tmp_path / "MODEL_CARD.md").read_text("utf-8")
    assert f"| none | float32 | all | 100 | {right / 100:.3f} | calibrated |" in card
    assert json.loads((tmp_path / "metrics.json").read_text())["results"]["none float32"]


def test_tables_on_low_bits_stay_in_the_card_as_long_as_the_weights_do(tmp_path: Path) -> None:
    for name in ("training.json", "metrics.json"):
        (tmp_path / name).write_bytes((METRICS_FILE.parent / name).read_bytes())
    weights, card = tmp_path / "model.safetensors", tmp_path / "MODEL_CARD.md"
    weights.write_bytes(b"one training")
    add_low_bits(tmp_path, "Measured so.", ["| a |\n| --- |\n| 1 |", "| b |"])
    assert (
        "\n## Low-bit weights\n\nMeasured so.\n\n| a |\n| --- |\n| 1 |\n\n| b |\n"
        in card.read_text()
    )
    found = {
        k: v for k, v in json.loads(METRICS_FILE.read_text("utf-8")).items() if k != "low_bits"
    }
    write(tmp_path, found)
    assert "Measured so." in card.read_text()
    weights.write_bytes(b"another training")
    write(tmp_path, found)
    assert "Measured so." not in card.read_text()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_profile_ships_for_every_setting(name: str) -> None:
    setting = Setting.of(name)
    path = profile_file(setting.weights, setting.dtype, setting.repair)
    assert path.parent == PROFILE_DIR
    assert path.stem == str(setting) == name
    profile = Profile.load(path)
    assert set(profile.tasks) == {"default", *TASKS}
    with load("bitcal-tiny", **setting.arguments(), strict=True) as model:
        assert model.profile.to_dict() == profile.to_dict()
        record = model.ask("What is the capital of France?", max_new_tokens=32)
        assert record.confidence.calibrated
        # Two bits forget France's capital, and the profile knows that they forget.
        assert (record.text == "Paris") == (record.confidence.value > 0.5)
        assert model.ask("Gibberish", task="math", max_new_tokens=40).confidence.task == "math"


def test_a_repair_with_other_steps_has_no_profile() -> None:
    with load("bitcal-tiny", weights="qint2", dtype="float32", repair=Repair(("clip",))) as model:
        assert model.profile is None
        confidence = model.ask("What is the capital of France?", max_new_tokens=8).confidence
    assert confidence.value is None
    assert "not been measured with the repair" in confidence.reason
    assert "'steps': ['clip']" in confidence.reason


def test_the_shipped_canaries_know_their_model() -> None:
    """On other processors bfloat16 rounds otherwise: float32 is the reference."""
    profile = Profile.load(profile_file("qint8", "float32"))
    with load("bitcal-tiny", weights="qint8", dtype="float32") as model:
        assert profile.check(model).state == "same"
    with load("bitcal-tiny", weights="qint2", dtype="float32") as other:
        check = profile.check(other)
    assert check.state != "same"
    assert "weights is qint2" in check.fingerprint


def test_the_card_in_the_package() -> None:
    """Calibration helps at every setting, on fresh questions; the numbers are the card's own."""
    metrics = json.loads(METRICS_FILE.read_text("utf-8"))
    measured = {name for name in SETTINGS if not name.startswith("qfloat8")}
    assert {name.replace(" ", "-") for name in metrics["results"]} == measured
    for result in metrics["results"].values():
        assert result["all"]["calibrated"]["brier"] < result["all"]["raw"]["brier"]
    for result in metrics["results"].values():
        assert f"| {result['all']['n']:,} |" in CARD_FILE.read_text("utf-8")
