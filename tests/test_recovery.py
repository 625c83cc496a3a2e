"""Recovery of whole models: a damage that is known is mended, what brings nothing is undone.

A final norm of half its size flattens every distribution and leaves each greedy token as it is: a
model that knows its facts still gives them, and doubts them without reason.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import logits_of, save_tiny

from bitcal_integrations import CalibratedModel, load, recovery
from bitcal_integrations.dataset import read_examples, split
from bitcal_integrations.errors import BadRequest, CalibrationError, EngineClosed
from bitcal_integrations.quantize import _rates
from bitcal_integrations.quantize import recover as training
from bitcal_integrations.quantize._repair import Repair
from bitcal_integrations.quantize.recover import gains_of, set_gains
from bitcal_integrations.recovery import (
    Recovery,
    forget,
    held_apart,
    kept_beside,
    recover_model,
)
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny import measure

QUICK = Recovery(rate=0.06, epochs=6, rows=11)
OPTIONS: dict[str, Any] = {
    "how": QUICK, "grader": "tiny", "parts": (0.4, 0.6), "parser": "tiny", "max_new_tokens": 12,
}  # fmt: skip
LAST, QUESTION = "model.norm.weight", "Name the capital of Lebanon."


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def examples() -> list[Any]:
    asked = measure.draw("calibration", 1000, 3)
    return [e for e in asked if e.by["bucket"] == "head"][:54]


@pytest.fixture(scope="module")
def teacher() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None, max_batch=64) as model:
        yield model


@pytest.fixture(scope="module")
def loaded() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint8", dtype="float32", max_batch=64) as model:
        yield model


@pytest.fixture
def model(loaded: CalibratedModel) -> Iterator[CalibratedModel]:
    """As it was loaded, whatever the test before has made of it."""
    weights = loaded._weights("tested")
    before = {name: gain.clone() for name, gain in gains_of(weights.model).items()}
    yield loaded
    set_gains(weights.model, before)
    weights.parts.pop("recover", None)
    loaded.use_profile(loaded.profile)


def gains(model: CalibratedModel) -> dict[str, torch.Tensor]:
    return {n: g.detach().clone() for n, g in gains_of(model._weights("tested").model).items()}


def damage(model: CalibratedModel) -> dict[str, torch.Tensor]:
    """Halve the last norm; the gains as they are now."""
    with torch.no_grad():
        gains_of(model._weights("tested").model)[LAST].mul_(0.5)
    return gains(model)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(gain, other[name]) for name, gain in one.items())


@pytest.fixture(scope="module")
def cut_run(
    loaded: CalibratedModel, examples: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """The folder of a run that was cut when the trained model was asked, and what went on."""
    labels: list[str] = []
    teachers: list[weakref.ref[Any]] = []

    def watched(*given: Any, **options: Any) -> CalibratedModel:
        teacher = load(*given, **options)
        teachers.append(weakref.ref(teacher._weights("tested").model))
        return teacher

    def cut(done: int, total: int, label: str) -> None:
        labels.append(label)
        if label == "recover":
            assert [teacher() for teacher in teachers] == [None], "loaded once, and let go"
        if "recover" in labels and label == "answering" and done:
            raise KeyboardInterrupt

    weights = loaded._weights("tested")
    before, parts, out = gains(loaded), dict(loaded.fingerprint_parts), tmp_path_factory.mktemp("o")
    spoilt = damage(loaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "load", watched)
        with pytest.raises(KeyboardInterrupt):
            recover_model(loaded, examples, keep=kept_beside(out), progress=cut, **OPTIONS)
    assert same(gains(loaded), spoilt), "a cut run leaves the model as it was"
    assert loaded.fingerprint_parts == parts
    set_gains(weights.model, before)
    return out, labels


def test_a_model_in_doubt_gets_its_confidence_back_where_the_run_was_cut(
    model: CalibratedModel,
    examples: list[Any],
    cut_run: tuple[Path, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, labels = cut_run
    assert list(dict.fromkeys(labels))[-3:] == ["teacher", "answering", "recover"]

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("what is kept was made again")

    monkeypatch.setattr(recovery, "load", again)
    monkeypatch.setattr(training._Course, "run", again)
    parts = dict(model.fingerprint_parts)
    assert model.ask(QUESTION).confidence.value is not None
    spoilt = damage(model)
    found = recover_model(model, examples, keep=kept_beside(out), **OPTIONS)
    assert found.kept, found.why
    assert found.brier.after < 0.5 * found.brier.before
    assert found.accuracy.difference == 0
    assert found.loss[1] < found.loss[0]
    assert found.rate == QUICK.rate
    assert (found.prompts, found.accuracy.n) == (22, 32)
    assert str(found).startswith("recover: kept, held-out Brier fell by")
    json.dumps(found.to_dict(), allow_nan=False)
    assert not same(gains(model), spoilt)

    now = model.fingerprint_parts
    assert {k for k in now if now[k] != parts.get(k)} == {"recover"}
    assert now["recover"]["rate"] == QUICK.rate
    judged = model.ask(QUESTION).confidence
    assert judged.value is None
    assert "another model: recover is" in judged.reason

    model.save(tmp_path / "small")
    with load(tmp_path / "small") as stored:
        assert stored.fingerprint_parts == now
        assert stored.profile is None
        assert torch.equal(*(logits_of(m._weights("x").model) for m in (model, stored)))
    forget(out)
    assert not kept_beside(out).exists()


def test_what_brings_nothing_is_undone(
    model: CalibratedModel,
    teacher: CalibratedModel,
    examples: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_rates, "LOWER", (1.0,))
    before, parts = gains(model), dict(model.fingerprint_parts)
    found = recover_model(
        model,
        examples,
        teacher=teacher,
        **{**OPTIONS, "how": Recovery(rate=1e-6, epochs=1, rows=64)},
    )
    assert not found.kept
    assert "held-out Brier changed by" in found.why
    assert str(found).startswith("recover: not kept")
    assert same(gains(model), before)
    assert model.fingerprint_parts == parts
    assert model.ask(QUESTION).confidence.value is not None


def test_a_plan_and_a_repair_stay_beside_it(tmp_path: Path) -> None:
    folder, clipped = save_tiny(tmp_path / "float"), Repair(("clip",))
    plan = {"*": "qint8", "*.mlp.*": "qint2"}
    with load(folder, weights=plan, dtype="float32", repair=clipped, profile=None) as model:
        parts = dict(model.fingerprint_parts)
        new = {name: gain * 1.25 for name, gain in gains(model).items()}
        with recovery._put_in(model, new, QUICK) as settle:
            settle(True)
        model.save(tmp_path / "small")
        with load(tmp_path / "small", repair=clipped) as stored:
            assert same(gains(stored), new)
            assert torch.equal(*(logits_of(m._weights("x").model) for m in (model, stored)))
            found = stored.fingerprint_parts
    assert {key for key in found if found[key] != parts.get(key)} == {"recover"}
    assert found["repair"] == clipped.parts()
    assert set(found["weights"].values()) == {"qint8", "qint2"}


def test_held_out_questions_share_no_group_with_prompts_and_the_rest_is_left_alone() -> None:
    rows = [{"prompt": f"Is {n} even?", "gold": "yes", "group": f"g{n // 3}"} for n in range(400)]
    for row in rows[::5]:
        del row["gold"]
    learning, held_out = held_apart(rows, seed=4)
    examples = read_examples(rows, need_gold=False)
    fitted = {e.id for e in examples if split(examples, seed=4)[e.id] == "fit"}
    assert not {e.group for e in learning} & {e.group for e in held_out}
    assert {e.id for e in learning} | {e.id for e in held_out} <= fitted
    assert all(e.gold is not None for e in held_out)
    assert any(e.gold is None for e in learning), "labels are not needed to learn"
    assert len(learning) == pytest.approx(100, abs=4)
    assert held_apart(rows, seed=4) == (learning, held_out)
    assert held_apart(rows, seed=5) != (learning, held_out)


@pytest.mark.parametrize("parts", [(0.5,), (0.5, 0.6), (0, 1), (0.5, 0.3, 0.2)])
def test_parts_are_checked(parts: Any) -> None:
    with pytest.raises(BadRequest, match="two shares above 0"):
        held_apart([("a", "b")], parts=parts)


def test_too_few_questions_are_refused_before_anything_is_asked() -> None:
    rows = [{"prompt": f"Is {n} even?", "gold": "yes", "group": f"g{n % 40}"} for n in range(400)]
    with pytest.raises(CalibrationError, match=r"in 40 groups are too few: 10 groups .* in 120 gr"):
        held_apart(rows)
    unlabelled = [{"prompt": row["prompt"]} for row in rows]
    with pytest.raises(CalibrationError, match="none of 400 examples has a right answer"):
        held_apart(unlabelled)


def test_what_cannot_be_recovered_is_said(
    teacher: CalibratedModel, model: CalibratedModel, examples: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(BadRequest, match="'bitcal-tiny' is not quantized"):
        recover_model(teacher, examples)
    with pytest.raises(Exception, match="the model 'toy' has no weights that could be recovered"):
        recover_model(ToyModel({}), examples)
    with (
        load(save_tiny(tmp_path / "other"), weights=None, profile=None) as other,
        pytest.raises(BadRequest, match="has other tokens than 'bitcal-tiny'"),
    ):
        recover_model(model, examples, teacher=other, **OPTIONS)


def test_who_could_not_answer_afterwards_is_refused_first(
    model: CalibratedModel, examples: list[Any], tmp_path: Path
) -> None:
    model.use_profile(model.profile, strict=True)
    with pytest.raises(BadRequest, match="was loaded with strict=True"):
        recover_model(model, examples, **OPTIONS)
    with load(save_tiny(tmp_path / "other"), weights="qint8", profile=None) as closed:
        pass
    with pytest.raises(EngineClosed, match="the model is closed"):
        recover_model(closed, examples, **OPTIONS)


def test_a_stored_folder_needs_its_teacher_named(
    model: CalibratedModel, examples: list[Any], tmp_path: Path
) -> None:
    model.save(tmp_path / "small")
    with (
        load(tmp_path / "small", profile=None) as stored,
        pytest.raises(BadRequest, match="name the unquantized model as the teacher"),
    ):
        recover_model(stored, examples, **OPTIONS)
