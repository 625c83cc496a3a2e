"""Norm gains learn what the unquantized model says: the loss against references, all families."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, tiny_model, tiny_tokenizer
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.quantize import recover as training
from bitcal_integrations.quantize._recovery import Recovery
from bitcal_integrations.quantize._store import stored_tensors
from bitcal_integrations.quantize._targets import from_tensors, targets_of, tensors_of
from bitcal_integrations.quantize._texts import Batch, answer_logits, batch_of, with_rest
from bitcal_integrations.quantize.recover import (
    gains_of,
    learn,
    loss_of,
    recover,
    set_gains,
)
from bitcal_integrations.quantize.weights import load_weights, save_weights

TEXTS = [([5 + i, 9, 30 + i], [40 + i, 50, 60 + i][: 1 + i % 3]) for i in range(8)]
BATCHES = [batch_of(TEXTS[:4]), batch_of(TEXTS[4:])]


QUICK = Recovery(epochs=4, rate=0.02, top=32)


@pytest.fixture(autouse=True, scope="module")
def _no_gradients() -> Iterator[None]:
    """As where a caller serves models; training switches them on for itself."""
    with torch.no_grad():
        yield


def quantized(family: str = "llama", weights: str = "qint2", dtype: Any = torch.float32) -> Any:
    return load_weights(tiny_model(family, dtype), tokenizer=tiny_tokenizer(), weights=weights)


def apart(model: Any, teacher: Any, gains: Any = None) -> float:
    """The mean KL divergence from the teacher over all answers, straight from the definition."""
    total, n = 0.0, 0
    for batch in BATCHES:
        now = log_softmax(answer_logits(model, batch, gains), -1)
        want = log_softmax(answer_logits(teacher, batch), -1)
        total += float((want.exp() * (want - now)).sum())
        n += len(now)
    return total / n


@pytest.fixture(scope="module")
def teacher() -> Any:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def student() -> Any:
    return quantized().model


def test_a_batch_scores_every_token_of_its_answers() -> None:
    batch = batch_of([([5, 6], [7, 8]), ([5], [9])])
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.scored.tolist() == [[False, True, True, False], [True, False, False, False]]
    for texts in ([], [([], [1])], [([1], [])]):
        with pytest.raises(BadRequest):
            batch_of(texts)


def test_padding_changes_nothing(teacher: Any) -> None:
    together = answer_logits(teacher, BATCHES[0])
    alone = torch.cat([answer_logits(teacher, batch_of([text])) for text in TEXTS[:4]])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_the_textbook_one_where_all_tokens_are_kept(
    temperature: float, teacher: Any, student: Any
) -> None:
    batch = BATCHES[0]
    how = Recovery(alpha=0.7, temperature=temperature)
    targets = targets_of(teacher, batch, 10**6, temperature)
    ours, theirs = answer_logits(student, batch), answer_logits(teacher, batch)
    kl = kl_div(
        log_softmax(ours / temperature, -1), log_softmax(theirs / temperature, -1),
        log_target=True, reduction="batchmean",
    )  # fmt: skip
    want = 0.7 * temperature**2 * kl + 0.3 * cross_entropy(ours, batch.said)
    assert float(loss_of(ours, batch, targets, how)) == pytest.approx(float(want), rel=1e-5)


def test_a_sum_of_tokens_hides_a_part_of_the_divergence_and_never_adds_to_it(
    teacher: Any, student: Any
) -> None:
    batch, how = BATCHES[0], Recovery()
    ours = answer_logits(student, batch)
    found = [
        float(loss_of(ours, batch, targets_of(teacher, batch, top, 1.0), how))
        for top in (1, 8, 64, 272)
    ]
    assert found == sorted(found)
    assert 0 < found[0] < found[-1]


def test_the_rest_by_hand() -> None:
    chances = torch.tensor([[0.5, 0.3, 0.2]]).log()
    found = with_rest(chances, torch.tensor([[2, 0]])).exp()
    assert found.tolist() == [pytest.approx([0.2, 0.5, 0.3])]
    assert with_rest(chances, torch.tensor([[2, 0, 1]])).shape == (1, 3)


def test_lessons_come_back_from_tensors(teacher: Any) -> None:
    lessons = [(b, targets_of(teacher, b, 4, 1.0)) for b in BATCHES]
    again = from_tensors(tensors_of(lessons))
    for pair, other in zip(lessons, again, strict=True):
        for one, two in zip(pair, other, strict=True):
            assert type(one) is type(two)
            assert all(torch.equal(t, vars(two)[name]) for name, t in vars(one).items())
    assert from_tensors({}) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_and_only_its_gains_change(family: str, tmp_path: Path) -> None:
    teacher, loaded = tiny_model(family), quantized(family)
    model = loaded.model
    stored = {k: t.clone() for k, t in stored_tensors(model)}
    before, logits = apart(model, teacher), answer_logits(model, BATCHES[0]).detach()
    learned = recover(model, teacher, BATCHES, QUICK)
    assert torch.equal(answer_logits(model, BATCHES[0]), logits), "nothing is put in yet"
    old = set_gains(model, learned.gains)
    assert apart(model, teacher) < 0.95 * before
    changed = {k for k, t in stored_tensors(model) if not torch.equal(t, stored[k])}
    assert changed
    assert changed <= set(gains_of(model)) == set(learned.gains)
    assert all("norm" in name or ".ln_" in name for name in changed)
    save_weights(loaded, tmp_path / "small")
    stored_again = load_weights(tmp_path / "small").model
    assert torch.equal(*(answer_logits(m, BATCHES[0]) for m in (model, stored_again)))
    set_gains(model, old)
    assert torch.equal(answer_logits(model, BATCHES[0]), logits)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in gains_of(model).values())


@pytest.mark.parametrize(
    ("family", "weights"),
    [("llama", "qint8"), ("llama", "qint4"), ("llama", "qint2"), ("falcon", "qint4")],
)
def test_steps_too_small_for_bfloat16_add_up(family: str, weights: str) -> None:
    """A gain near 1 moves by 1/256 at least in bfloat16; nothing is rounded in between."""
    teacher = tiny_model(family, torch.bfloat16)
    model = quantized(family, weights, torch.bfloat16).model
    last = list(gains_of(model).values())[-1]
    last.mul_(0.75)
    before = apart(model, teacher)
    learned = recover(model, teacher, BATCHES, Recovery(epochs=12, rate=0.01))
    assert {gain.dtype for gain in learned.gains.values()} == {torch.bfloat16}
    assert apart(model, teacher, learned.gains) < before


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_measured_by_what_a_norm_does(family: str) -> None:
    """Gemma's gains are 0 where those of others are 1: a step of all of them is equally long."""
    model = quantized(family).model
    for name in gains_of(model):
        assert training._size(model, name) == pytest.approx(1.0, abs=1e-3)
    gain = next(iter(gains_of(model).values()))
    gain.add_(2.0)
    assert training._size(model, next(iter(gains_of(model)))) == pytest.approx(3.0, abs=1e-2)


def test_same_seed_same_gains(student: Any, teacher: Any) -> None:
    one, two = (recover(student, teacher, BATCHES, QUICK) for _ in range(2))
    assert all(torch.equal(gain, two.gains[name]) for name, gain in one.gains.items())
    assert training.digest_of(one.gains) == training.digest_of(two.gains)
    name = "model.norm.weight"
    two.gains[name][3] += 1e-3
    assert training.digest_of(one.gains) != training.digest_of(two.gains)


def test_a_cut_run_goes_on_where_it_was(
    student: Any, teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SEGMENT", 3)
    whole = recover(student, teacher, BATCHES, QUICK)
    steps: list[int] = []

    def cut(done: int, total: int, label: str) -> None:
        steps.append(done)
        assert (total, label) == (8, "recover")
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(student, teacher, BATCHES, QUICK, keep=tmp_path, progress=cut)
    assert not any(module._forward_hooks for module in student.modules())
    steps.clear()
    found = recover(
        student, teacher, BATCHES, QUICK, keep=tmp_path, progress=lambda at, *_: steps.append(at)
    )
    assert steps == [3, 6, 6, 7, 8], "the first six steps are not taken again"
    assert all(torch.equal(gain, whole.gains[name]) for name, gain in found.gains.items())
    assert (found.first, found.last) == (whole.first, whole.last)
    other = recover(student, teacher, BATCHES, Recovery(epochs=4, rate=0.01), keep=tmp_path)
    assert any(not torch.equal(gain, whole.gains[name]) for name, gain in other.gains.items())


def test_only_the_tokens_themselves_where_alpha_is_0(student: Any, teacher: Any) -> None:
    found = recover(student, teacher, BATCHES, Recovery(alpha=0, epochs=8))
    said = torch.cat([b.said for b in BATCHES])

    def entropy(gains: Any) -> float:
        logits = torch.cat([answer_logits(student, b, gains) for b in BATCHES])
        return float(cross_entropy(logits, said))

    assert entropy(found.gains) < entropy(None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs=0 must be a whole number from 1 up"),
        ({"rows": True}, "rows=True"),
        ({"seed": -1}, "seed=-1"),
        ({"temperature": 0}, "temperature=0 must be a number above 0"),
        ({"rate": math.nan}, "rate=nan"),
        ({"alpha": 1.5}, "alpha=1.5 must be a number between 0 and 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        Recovery(**settings)


def test_what_cannot_be_done_is_said(student: Any, teacher: Any) -> None:
    with pytest.raises(BadRequest, match="the teacher has 288 tokens and the model 272"):
        recover(student, tiny_model("llama", vocab=288), BATCHES)
    with pytest.raises(BadRequest, match="Linear has no norm with gains"):
        gains_of(torch.nn.Linear(2, 2))
    with pytest.raises(BadRequest, match="no batch"):
        learn(student, [], QUICK)
    with pytest.raises(BadRequest, match="the token 300 is not one of the model's 272"):
        targets_of(teacher, batch_of([([300], [1])]), 4, 1.0)
    with pytest.raises(BadRequest, match="not the gains of LlamaForCausalLM"):
        set_gains(student, {"model.norm.weight": torch.ones(256)})


def test_a_loss_that_is_no_number_ends_the_training(student: Any, teacher: Any) -> None:
    batch = BATCHES[0]
    targets = targets_of(teacher, batch, 4, 1.0)
    bad = (
        Batch(batch.ids, batch.mask, batch.scored),
        type(targets)(targets.top, targets.chances * math.nan),
    )
    with pytest.raises(CalibrationError, match=r"loss is nan at step 0 of 4.*rate below 0\.02"):
        learn(student, [bad], QUICK)
