"""Weight types for a model and its prompts: what is scored is what the model serves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import logits_of, save_tiny

from bitcal_integrations import CalibratedModel, bits, load
from bitcal_integrations.bits import BitPlan, KindRow, by_kind, choose_bits
from bitcal_integrations.errors import (
    BadRequest,
    CalibrationError,
    EngineClosed,
    EngineError,
    LoadError,
)
from bitcal_integrations.quantize import align
from bitcal_integrations.quantize._repair import Repair
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import questions

PROMPTS = ["Why is the sky blue?", "Name a colour.", "1 + 1 =", "Say no."]
QUICK: dict[str, Any] = {"budget": "4 bits", "swaps": 2, "max_new_tokens": 6}
LAST = [f"model.layers.{n}.*" for n in (0, 1, 2)]  # of bitcal-tiny: all but the last layer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bits") / "llama")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[CalibratedModel]:
    with load(folder, weights=None, dtype="float32", profile=None) as model:
        yield model


@pytest.fixture(scope="module")
def tiny() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights=None, dtype="float32", parser="tiny") as model:
        yield model


def asked(n: int) -> list[dict[str, Any]]:
    return [
        {"id": q.id, "prompt": q.messages, "gold": q.gold} for q in questions("facts", "test", n)
    ]


@pytest.fixture(scope="module")
def found(model: CalibratedModel) -> BitPlan:
    return choose_bits(model, PROMPTS, **QUICK)


def test_a_plan_from_prompts_is_loaded_and_saved_bit_for_bit(
    found: BitPlan, folder: Path, tmp_path: Path
) -> None:
    assert found.unquantized == 0.0 < found.measured
    assert found.bytes <= found.budget == found.float_bytes * 4 // 32
    with load(folder, weights=found.plan, dtype="float32") as small:
        assert small.report()["weights"].keys() == {k for k in found.plan.values() if k}
        before = logits_of(small._loaded.model)
        small.save(tmp_path / "small")
    with load(tmp_path / "small") as again:
        assert torch.equal(logits_of(again._loaded.model), before)


def test_the_model_is_left_as_it_is(model: CalibratedModel, found: BitPlan) -> None:
    seen: list[Any] = []
    remove = model.add_sink(seen.append)
    before = logits_of(model._loaded.model)
    assert choose_bits(model, PROMPTS, **QUICK) == found
    remove()
    assert seen == []
    assert torch.equal(logits_of(model._loaded.model), before)
    assert model.report()["weights"] == {}


def test_prompts_are_drawn_by_the_seed(model: CalibratedModel) -> None:
    many = [f"Say {n}." for n in range(40)]
    drawn = {**QUICK, "swaps": 0, "options": ("qint2", "qint8"), "prompts": 3}
    one, other = (choose_bits(model, many, seed=seed, **drawn) for seed in (0, 1))
    assert one.why != other.why
    assert choose_bits(model, many[::-1], seed=0, **drawn) == one


def test_labels_are_drawn_in_larger_numbers_for_they_say_less() -> None:
    rows = [{"prompt": f"Say {n}.", "gold": f"{n}"} for n in range(600)]
    drawn = {name: bits._examples(rows, name, None, 0) for name in bits.OBJECTIVES}
    assert {name: len(found) for name, found in drawn.items()} == {"kl": 64, "brier": 512}
    assert drawn["brier"][:64] == drawn["kl"]
    assert len(bits._examples(rows[:5], "brier", None, 0)) == 5


def test_without_prompts_it_writes_its_own_texts(
    model: CalibratedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(align, "ROWS", 4)
    monkeypatch.setattr(align, "TOKENS", 16)
    options = {**QUICK, "budget": 0.5, "options": ("qint8", "qint2"), "swaps": 0}
    own = choose_bits(model, **options)
    assert own == choose_bits(model, **options)
    assert own.measured > 0


def test_brier_is_that_of_the_confidence_that_is_served(
    tiny: CalibratedModel,
) -> None:
    """Right and wrong answers of the built-in model, and its raw confidence in them."""
    data = asked(12)
    records = tiny.ask([row["prompt"] for row in data], max_new_tokens=160)
    right = [r.generation.answer.text == d["gold"] for r, d in zip(records, data, strict=True)]
    brier = sum((r.confidence.raw - y) ** 2 for r, y in zip(records, right, strict=True)) / 12
    made = choose_bits(
        tiny, data, budget=0.99, objective="brier", grader="tiny", exclude=["*lm_head", *LAST],
        options=("qint2", None), swaps=0, max_new_tokens=160,
    )  # fmt: skip
    assert 0 < sum(right) < 12
    assert made.unquantized == pytest.approx(brier, abs=1e-4)
    assert made.measured != made.unquantized
    assert set(made.plan) == set(made.why)
    assert all(name.startswith("model.layers.3.") for name in made.plan)


def test_a_cut_run_goes_on_where_it_was(
    model: CalibratedModel, found: BitPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, many = tmp_path / "out.bits.json", [f"Say {n}." for n in range(20)]
    whole = choose_bits(model, many, **QUICK)
    for stop_at in ("answering", "model.layers.0.mlp.up_proj qint4"):

        def cut(done: int, total: int, label: str, stop_at: str = stop_at) -> None:
            if label == stop_at and done:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            choose_bits(model, many, keep=keep, progress=cut, **QUICK)
        kept = json.loads(keep.read_text())["values"]
        assert len(kept["answers 0"]) == 16
    assert len(kept) > 10
    monkeypatch.setattr(
        CalibratedModel, "ask", lambda *_, **__: pytest.fail("an answer was asked for again")
    )
    assert choose_bits(model, many, keep=keep, **QUICK) == whole
    with pytest.raises(BadRequest, match="another data"):
        choose_bits(model, PROMPTS, keep=keep, **QUICK)


def test_a_repair_that_clips_is_planned_for_and_made(
    model: CalibratedModel, found: BitPlan, folder: Path
) -> None:
    clipped = Repair(("clip",))
    mended = choose_bits(model, PROMPTS, repair=clipped, **QUICK)
    assert mended.why != found.why
    with load(folder, weights=mended.plan, dtype="float32", repair=clipped) as small:
        assert small.report()["repair"] == clipped.parts()


def test_examples_come_from_a_file(model: CalibratedModel, found: BitPlan, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    assert choose_bits(model, path, **QUICK) == found
    with pytest.raises(CalibrationError, match="no right answer"):
        choose_bits(model, path, objective="brier", **QUICK)


def test_prompts_that_fail_are_left_out(
    model: CalibratedModel, found: BitPlan, caplog: pytest.LogCaptureFixture
) -> None:
    long = "x" * 600
    assert choose_bits(model, [*PROMPTS, long], **QUICK).measured > 0
    assert "was not answered" in caplog.text
    with pytest.raises(CalibrationError, match="none of the prompts"):
        choose_bits(model, [long], **QUICK)


def test_what_is_no_fault_of_a_prompt_ends_it_and_is_not_kept(
    model: CalibratedModel, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, broken = tmp_path / "out.bits.json", EngineError("the memory is full")
    with monkeypatch.context() as during:
        during.setattr(CalibratedModel, "ask", lambda *_, **__: [broken] * len(PROMPTS))
        with pytest.raises(EngineError, match="the memory is full"):
            choose_bits(model, PROMPTS, keep=keep, **QUICK)
    assert not keep.exists()
    with load(folder, weights=None, profile=None) as gone:
        pass
    for data in (PROMPTS, None):
        with pytest.raises(EngineClosed):
            choose_bits(gone, data, **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "ece"}, "objective='ece'"),
        ({"objective": "brier"}, "needs data"),
        ({"data": PROMPTS, "prompts": 0}, "prompts=0"),
        ({"repair": "magic"}, "repair='magic'"),
        ({"data": PROMPTS, "budget": "2 bits"}, "smallest"),
        ({"data": PROMPTS, "temprature": 1}, "temprature"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str, model: CalibratedModel) -> None:
    with pytest.raises(BadRequest, match=words):
        choose_bits(model, **{"budget": 0.5, **options})


def test_only_float_weights_in_this_process(folder: Path) -> None:
    with pytest.raises(BadRequest, match="no weights in this process"):
        choose_bits(ToyModel({}), PROMPTS, budget=0.5)
    with (
        load(folder, weights="qint4") as small,
        pytest.raises(LoadError, match="quantized already"),
    ):
        choose_bits(small, PROMPTS, **QUICK)


def test_a_plan_by_kind_of_layer() -> None:
    plan = {"m.layers.0.attn.q": "qint4", "m.layers.1.attn.q": "qint2", "m.layers.0.up": None}
    why = {
        "m.layers.0.attn.q": {"qint2": 3.0, "qint4": 1.0},
        "m.layers.1.attn.q": {"qint2": 0.5, "qint4": 0.25},
        "m.layers.0.up": {"qint2": 9.0, "qint4": 4.0},
    }
    found = BitPlan(plan, 10, 100, 12, 0.0, 1.5, 1.6, (), why)
    assert by_kind(found) == [
        KindRow("attn.q", {"qint4": ["0"], "qint2": ["1"]}, 1.5, 3.5),
        KindRow("up", {"float": ["0"]}, 0.0, 9.0),
    ]
