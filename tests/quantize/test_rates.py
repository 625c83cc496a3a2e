"""A rate is proved on texts set aside: one too high gives way to lower ones, or to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import tiny_model, tiny_tokenizer

from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.quantize import _rates
from bitcal_integrations.quantize import recover as training
from bitcal_integrations.quantize._rates import LOWER, learn_at_best
from bitcal_integrations.quantize._recovery import Recovery
from bitcal_integrations.quantize._targets import Lesson, lessons_of
from bitcal_integrations.quantize.recover import gains_of
from bitcal_integrations.quantize.weights import load_weights

TEXTS = [([5 + i, 9, 30 + i], [40 + i, 50, 60 + i][: 1 + i % 3]) for i in range(12)]
HOW = Recovery(epochs=4, rate=0.02, rows=4)


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return lessons_of(tiny_model("llama"), TEXTS, HOW)


@pytest.fixture(scope="module")
def student() -> Any:
    loaded = load_weights(tiny_model("llama"), tokenizer=tiny_tokenizer(), weights="qint8")
    with torch.no_grad():
        list(gains_of(loaded.model).values())[-1].mul_(0.9)
    return loaded.model


def test_a_rate_that_helps_is_taken_at_once(student: Any, lessons: list[Lesson]) -> None:
    found = learn_at_best(student, lessons, HOW)
    assert found.learned is not None
    assert found.how == HOW
    assert found.after < found.before
    again = training.learn(student, lessons[:-1], HOW)
    assert all(torch.equal(g, again.gains[n]) for n, g in found.learned.gains.items())


def test_a_rate_too_high_gives_way_to_a_lower_one(student: Any, lessons: list[Lesson]) -> None:
    high = Recovery(epochs=4, rate=0.2, rows=4)
    alone = training.learn(student, lessons[:-1], high)
    before = _rates._loss(student, lessons[-1:], high)
    assert _rates._loss(student, lessons[-1:], high, alone.gains) > before
    found = learn_at_best(student, lessons, high)
    assert found.learned is not None
    assert found.how.rate in [share * high.rate for share in LOWER[1:]]
    assert found.before == before > found.after


def test_where_no_rate_helps_nothing_is_learned(student: Any, lessons: list[Lesson]) -> None:
    found = learn_at_best(student, lessons, Recovery(epochs=4, rate=16.0, rows=4))
    assert found.learned is None
    assert found.how.rate == 16
    assert found.before == found.after > 0
    assert found.why_not.endswith("at no rate from 16 down to 1")


def test_a_cut_run_takes_no_step_of_any_rate_twice(
    student: Any, lessons: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    high = Recovery(epochs=4, rate=0.2, rows=4)
    whole = learn_at_best(student, lessons, high)
    told: list[int] = []

    def cut(done: int, total: int, label: str) -> None:
        told.append(done)
        if told.count(total) == 2:  # all steps of the first rate, and those of the second
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn_at_best(student, lessons, high, keep=tmp_path, progress=cut)
    rates: list[float] = []
    run = training._Course.run

    def counted(self: Any, *given: Any) -> Any:
        rates.append(self.how.rate)
        return run(self, *given)

    monkeypatch.setattr(training._Course, "run", counted)
    found = learn_at_best(student, lessons, high, keep=tmp_path)
    assert not {high.rate * share for share in LOWER[:2]} & set(rates)
    assert found.how == whole.how
    assert found.learned is not None
    assert whole.learned is not None
    assert all(torch.equal(g, whole.learned.gains[n]) for n, g in found.learned.gains.items())


def test_one_batch_is_enough_and_none_is_not(student: Any, lessons: list[Lesson]) -> None:
    assert learn_at_best(student, lessons[:1], HOW).learned is not None
    with pytest.raises(CalibrationError, match="no prompt was answered"):
        learn_at_best(student, [], HOW)
