"""A verdict prompt on the built-in model: tuned, put in use, saved, refused; answers stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitcal_integrations import load
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.fit import evaluate, fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import FILE_NAME, Profile
from bitcal_integrations.quantize.soft_prompt import FILE_NAME as VERDICT
from bitcal_integrations.quantize.soft_prompt import SoftPrompt, Tuning
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import questions
from bitcal_integrations.verdict import tune_verdict, use_verdict

SHORT: dict[str, Any] = {"parser": "first_line", "max_new_tokens": 12}
HOW = Tuning(tokens=8, steps=14, batch=8, rate=0.5, every=7)
LESS = Tuning(tokens=2, steps=6, batch=4, every=2)
TUNED = ["confidence", "p_true", "p_true_tuned"]


def rows(n: int, seed: int, split: str = "calibration") -> list[dict[str, Any]]:
    asked = questions("facts", split, n, seed)
    return [{"prompt": q.messages, "gold": q.gold} for q in asked]


def tuned(model: CalibratedModel, **options: Any) -> SoftPrompt:
    return tune_verdict(model, rows(48, 8), **{"tuning": HOW, **SHORT, **options})


@pytest.fixture(scope="module")
def alone() -> Iterator[CalibratedModel]:
    """The model as it is loaded."""
    with load("bitcal-tiny", weights="qint8", dtype="float32", profile=None) as model:
        yield model


@pytest.fixture(scope="module")
def verdict(alone: CalibratedModel) -> SoftPrompt:
    return tuned(alone)


@pytest.fixture
def model(alone: CalibratedModel, verdict: SoftPrompt) -> CalibratedModel:
    """The same model with the verdict prompt in use."""
    view = alone.without_profile()
    use_verdict(view, verdict)
    return view


@pytest.fixture(scope="module")
def profile(alone: CalibratedModel, verdict: SoftPrompt) -> Profile:
    """A profile whose confidence needs the verdict prompt."""
    view = alone.without_profile()
    use_verdict(view, verdict)
    return fit_profile(view, rows(16, 9, "test"), features=TUNED[::2], method="platt", **SHORT)


@pytest.fixture(scope="module")
def fresh() -> list[Any]:
    asked = questions("facts", "test", 40, 3)
    return [(q.messages, q.gold) for q in asked]


def test_answers_and_other_signals_stay_as_they_are(
    alone: CalibratedModel, model: CalibratedModel, fresh: list[Any]
) -> None:
    for prompt, _ in fresh[:4]:  # one by one: who shares a batch moves the last digits
        one = alone.ask(prompt, features=TUNED[:2], **SHORT)
        other = model.ask(prompt, features=TUNED, **SHORT)
        assert one.generation.raw.encode() == other.generation.raw.encode()
        assert one.generation.steps == other.generation.steps
        signals = dict(other.confidence.signals)
        assert 0 < signals.pop("p_true_tuned") < 1
        assert signals.pop("p_true") == pytest.approx(one.confidence.signals["p_true"], abs=1e-5)
        assert one.confidence.signals == {"p_true": one.confidence.signals["p_true"], **signals}
        assert other.confidence.value is None


def test_nothing_is_asked_unless_the_feature_is_named(
    alone: CalibratedModel, model: CalibratedModel, fresh: list[Any]
) -> None:
    record, before = model.ask(fresh[0][0], **SHORT), alone.ask(fresh[0][0], **SHORT)
    assert record.generation == before.generation
    assert record.generation.probe_tokens == 0
    assert record.confidence == before.confidence


def test_it_says_better_how_often_answers_are_right(
    model: CalibratedModel, verdict: SoftPrompt, fresh: list[Any]
) -> None:
    assert verdict.report["loss"] < 0.5 * verdict.report["loss_before"]
    records = model.ask([prompt for prompt, _ in fresh], features=TUNED, **SHORT)
    right = np.array([r.text.strip() == gold for r, (_, gold) in zip(records, fresh, strict=True)])
    signals = {n: np.array([r.confidence.signals[n] for r in records]) for n in TUNED[1:]}
    brier = {name: float(((p - right) ** 2).mean()) for name, p in signals.items()}
    assert brier["p_true_tuned"] < brier["p_true"] - 0.03


def test_what_is_served_is_what_was_trained(
    alone: CalibratedModel, model: CalibratedModel, verdict: SoftPrompt, fresh: list[Any]
) -> None:
    from bitcal_integrations.decode import soft
    from bitcal_integrations.decode.net import Net
    from bitcal_integrations.signals import p_true

    record = model.ask(fresh[0][0], features=TUNED, **SHORT)
    net = Net(alone._loaded.model, alone.tokenizer)  # type: ignore[union-attr]
    (asked,) = p_true.requests(record.request, record.generation)
    ids = [net.pad] * HOW.tokens + list(net.encode(asked).ids)
    false, true = soft.told_apart(net, ("False", "True"))
    loss = soft.Prompts(net, [ids, ids], [false, true]).loss
    with torch.no_grad():
        no, yes = (float((-loss(verdict.soft, [row])).exp()) for row in (0, 1))
    # The signal adds other beginnings of the two words, of which there is little left.
    assert record.confidence.signals["p_true_tuned"] == pytest.approx(yes / (yes + no), abs=0.02)


def test_a_profile_with_it_holds_for_this_verdict_alone(
    alone: CalibratedModel, model: CalibratedModel, verdict: SoftPrompt, profile: Profile
) -> None:
    plain = fit_profile(
        model, rows(16, 9, "test"), features=["confidence"], method="platt", **SHORT
    )
    assert profile.parts["verdict"] == verdict.digest
    assert plain.parts == alone.fingerprint_parts
    question = rows(1, 10, "test")[0]["prompt"]
    model.use_profile(profile, strict=True)
    value = model.ask(question, **SHORT).confidence.value
    assert value is not None
    use_verdict(model, verdict)  # the very one is no change
    assert model.ask(question, **SHORT).confidence.value == value
    with pytest.raises(Exception, match="verdict is None, measured was"):
        use_verdict(model, None)  # strict
    assert model.verdict is verdict

    model.use_profile(profile)
    use_verdict(model, SoftPrompt(verdict.soft + 1, verdict.parts))
    other = model.ask(question, **SHORT).confidence
    assert other.value is None
    assert "verdict is" in other.reason
    use_verdict(model, None)
    assert model.ask(question, **SHORT).confidence.value is None
    model.use_profile(plain)
    use_verdict(model, verdict)
    assert model.ask(question, **SHORT).confidence.value is not None
    assert _joined(plain, profile) == _joined(profile, plain) == {"a", "b"}


def _joined(one: Profile, other: Profile) -> set[str]:
    from dataclasses import replace

    first = replace(one, tasks={"a": one.task()}, default="a", canaries=())
    second = replace(other, tasks={"b": other.task()}, default="b", canaries=())
    both = first.with_tasks(second)
    assert "verdict" in both.parts
    return set(both.tasks)


def test_it_is_saved_and_loaded_with_its_model(
    model: CalibratedModel, verdict: SoftPrompt, profile: Profile, tmp_path: Path
) -> None:
    model.use_profile(profile)
    model.save(tmp_path / "saved")
    question = rows(1, 10, "test")[0]["prompt"]
    expected = model.ask(question, **SHORT).confidence
    with load(tmp_path / "saved", strict=True) as again:
        assert again.verdict is not None
        assert again.verdict.digest == verdict.digest
        assert again.ask(question, **SHORT).confidence == expected
    (tmp_path / "saved" / VERDICT).unlink()
    assert (tmp_path / "saved" / FILE_NAME).is_file()
    with load(tmp_path / "saved") as bare:
        assert "verdict is None" in bare.ask(question, **SHORT).confidence.reason


def test_what_it_was_tuned_on_is_not_measured_with_it(
    model: CalibratedModel, profile: Profile
) -> None:
    mixed = [*rows(5, 9, "test"), *rows(5, 8)]
    with pytest.raises(CalibrationError, match=r"tuned on \d of these 10 examples"):
        fit_profile(model, mixed, features=TUNED, **SHORT)
    model.use_profile(profile)
    with pytest.raises(CalibrationError, match="Keep the examples apart"):
        evaluate(model, mixed, **SHORT)


def test_same_seed_same_verdict_and_a_cut_one_goes_on(
    alone: CalibratedModel, tmp_path: Path
) -> None:
    whole = tune_verdict(alone, rows(20, 8), tuning=LESS, **SHORT)
    kept: dict[str, Any] = {
        "answers": tmp_path / "answers.jsonl",
        "out": tmp_path / "verdict.safetensors",
    }

    def cut(done: int, total: int, label: str) -> None:
        if (done, label) == (3, "tuning the verdict prompt"):
            raise KeyboardInterrupt

    def go(progress: Any) -> SoftPrompt:
        return tune_verdict(
            alone,
            rows(20, 8),
            tuning=LESS,
            progress=progress,
            **SHORT,
            **kept,
        )

    with pytest.raises(KeyboardInterrupt):
        go(cut)
    assert {p.name for p in tmp_path.iterdir()} == {"answers.jsonl", "verdict.safetensors.part"}
    steps: list[int] = []
    again = go(lambda done, total, label: steps.append(done))
    assert steps == [20, 4, 5, 6]
    assert torch.equal(again.soft, whole.soft)
    assert again.report == whole.report
    assert {p.name for p in tmp_path.iterdir()} == {"answers.jsonl", "verdict.safetensors"}
    assert SoftPrompt.load(kept["out"]).digest == whole.digest


def test_another_model_is_refused(verdict: SoftPrompt) -> None:
    with (
        load("bitcal-tiny", weights=None, dtype="float32", profile=None) as other,
        pytest.raises(BadRequest, match="tuned on another model: weights is none, measured was"),
    ):
        use_verdict(other, verdict)
    with pytest.raises(BadRequest, match="tuned on another model"):
        use_verdict(ToyModel({}), verdict)


def test_what_nothing_can_be_tuned_on_is_refused(alone: CalibratedModel) -> None:
    with pytest.raises(BadRequest, match="'toy' has no weights in this process"):
        tune_verdict(ToyModel({}), rows(30, 8))
    with pytest.raises(BadRequest, match="early_stop is not an option of tune_verdict"):
        tune_verdict(alone, rows(20, 8), early_stop="balanced")
    with pytest.raises(BadRequest, match="lies in no folder that exists"):
        tune_verdict(alone, rows(20, 8), out="no such folder/verdict.safetensors")
    with pytest.raises(BadRequest, match="p_true_tuned is not allowed: 'bitcal-tiny' has no tuned"):
        alone.ask("Why?", features=["p_true_tuned"])
    with pytest.raises(CalibrationError, match="of 10 judged answers are right"):
        tune_verdict(alone, rows(10, 8), **SHORT)
    wrong = [{**row, "gold": "no such place"} for row in rows(20, 8)]
    with pytest.raises(CalibrationError, match="0 of 20 judged answers are right"):
        tune_verdict(alone, wrong, **SHORT)
    one = [{**row, "group": "all"} for row in rows(20, 8)]
    with pytest.raises(CalibrationError, match="are of one group, 'all'"):
        tune_verdict(alone, one, **SHORT)
