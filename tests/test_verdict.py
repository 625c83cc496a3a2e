"""A verdict prompt on the built-in model: tuned, put in use, saved, refused; answers stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from verdict_help import SHORT, rows

from bitcal_integrations import load
from bitcal_integrations.decode.batch import Batch
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.soft import soft_of
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.fit import evaluate, fit_profile
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.profile import FILE_NAME, Profile
from bitcal_integrations.quantize.soft_prompt import FILE_NAME as VERDICT
from bitcal_integrations.quantize.soft_prompt import SoftPrompt, Tuning
from bitcal_integrations.stopping import log_runs
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import questions
from bitcal_integrations.verdict import tune_verdict, use_verdict

HOW = Tuning(tokens=8, steps=9, batch=8, rate=0.8, every=9)
TUNED = ["confidence", "p_true", "p_true_tuned"]


def tuned(model: CalibratedModel, **options: Any) -> SoftPrompt:
    return tune_verdict(model, rows(36, 8), **{"tuning": HOW, **SHORT, **options})


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
    return fit_profile(view, rows(12, 9, "test"), features=TUNED[::2], method="platt", **SHORT)


@pytest.fixture(scope="module")
def plain(alone: CalibratedModel) -> Profile:
    """A profile that needs none, measured without."""
    return fit_profile(alone, rows(12, 9, "test"), features=["confidence"], method="platt", **SHORT)


@pytest.fixture(scope="module")
def fresh() -> list[Any]:
    asked = questions("facts", "test", 24, 3)
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


def test_answers_stay_where_verdicts_share_their_batches(
    alone: CalibratedModel, model: CalibratedModel, fresh: list[Any]
) -> None:
    """Each verdict is asked as its answer comes, while the others are still being written."""
    prompts = [prompt for prompt, _ in fresh[:10]]
    before = alone.ask(prompts, **SHORT)
    seen, step = [], Batch.admit

    def spied(batch: Batch, arrived: Sequence[Row]) -> Any:
        kinds = {soft_of(row.request) is not None for row in [*batch.rows, *arrived]}
        seen.append(kinds)
        return step(batch, arrived)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "admit", spied)
        records = dict(model.ask_each(prompts, features=TUNED, **SHORT))
    assert {True, False} in seen
    for i, bare in enumerate(before):
        assert records[i].generation.raw.encode() == bare.generation.raw.encode()
        tokens = [[s.token_id for s in r.generation.steps] for r in (records[i], bare)]
        assert tokens[0] == tokens[1]


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
    model: CalibratedModel, verdict: SoftPrompt, profile: Profile, plain: Profile
) -> None:
    assert profile.parts["verdict"] == verdict.digest
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


def test_a_joined_profile_needs_it_where_one_of_its_tasks_does(
    profile: Profile, plain: Profile
) -> None:
    def only(name: str, one: Profile) -> Profile:
        return replace(one, tasks={name: one.task()}, default=name, canaries=())

    for one, other in ((plain, profile), (profile, plain)):
        both = only("a", one).with_tasks(only("b", other))
        assert (set(both.tasks), both.parts) == ({"a", "b"}, profile.parts)
    assert profile.with_tasks(plain).parts == plain.parts  # it took the place of the only one


def test_without_the_feature_a_profile_is_that_of_the_bare_model(
    alone: CalibratedModel, model: CalibratedModel, tmp_path: Path
) -> None:
    few, kept = rows(8, 9, "test"), tmp_path / "answers.jsonl"
    options = {"features": ["confidence"], "method": "platt", "answers": kept, **SHORT}
    found = fit_profile(alone, few, **options)
    again, size = fit_profile(model, few, **options), kept.stat().st_size
    assert again.parts == found.parts == alone.fingerprint_parts
    assert kept.stat().st_size == size


def test_what_another_verdict_said_of_kept_answers_is_not_taken(
    model: CalibratedModel, verdict: SoftPrompt, profile: Profile, tmp_path: Path
) -> None:
    kept, few = tmp_path / "answers.jsonl", rows(3, 12, "test")
    model.use_profile(profile)
    evaluate(model, few, answers=kept, **SHORT)
    other = SoftPrompt(verdict.soft + 1, verdict.parts)
    use_verdict(model, other)
    model.use_profile(replace(profile, parts={**profile.parts, "verdict": other.digest}))
    changed = f"another model: its verdict was '{verdict.digest}', now '{other.digest}'"
    with pytest.raises(CalibrationError, match=changed):
        evaluate(model, few, answers=kept, **SHORT)


def test_stops_are_certified_from_runs_logged_with_or_without_it(
    alone: CalibratedModel, model: CalibratedModel, plain: Profile
) -> None:
    """A verdict prompt changes no text, so runs are of the same model with it and without."""
    how: dict[str, Any] = {"closing": "\nIn short: ", "spacing": 1, **SHORT, "parser": None}
    asked = rows(2, 13, "test")
    runs = [log_runs(one, asked, **how)[0].asked for one in (alone, model)]
    assert runs[0] == runs[1]
    assert runs[0]["model"] == plain.fingerprint


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
    use_verdict(model, None)
    model.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / VERDICT).exists()
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


def test_another_model_is_refused(verdict: SoftPrompt) -> None:
    with (
        load("bitcal-tiny", weights=None, dtype="float32", profile=None) as other,
        pytest.raises(BadRequest, match="tuned on another model: weights is none, measured was"),
    ):
        use_verdict(other, verdict)
    with pytest.raises(BadRequest, match="tuned on another model"):
        use_verdict(ToyModel({}), verdict)
