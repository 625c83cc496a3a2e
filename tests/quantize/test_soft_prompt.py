"""Training of soft tokens on a loss of plain tensors, and the file they are kept in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bitcal_integrations.errors import BadRequest, LoadError
from bitcal_integrations.quantize.soft_prompt import (
    Kept,
    SoftPrompt,
    State,
    Tuning,
    as_soft_prompt,
    beside,
    tune,
)

HOW = Tuning(tokens=2, steps=30, batch=4, rate=0.2, every=5)
WANTED = torch.randn(24, 2, 3, generator=torch.Generator().manual_seed(1))
START = torch.zeros(2, 3)
FIT, HELD = range(18), range(18, 24)


def loss(soft: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Each row wants the soft tokens elsewhere."""
    return (soft - WANTED[list(rows)]).square().mean()


def tuned(how: Tuning = HOW, loss: Any = loss, **options: Any) -> State:
    return tune(loss, START, FIT, HELD, how, 1.0, **options)


def same(one: State, other: State) -> bool:
    tensors = all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("soft", "best"))
    return tensors and one.losses == other.losses and one.step == other.step


def failing(after: int) -> Callable[[torch.Tensor, Sequence[int]], torch.Tensor]:
    """The loss, until Ctrl-C comes."""
    left = [after]

    def loss_or_end(soft: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return loss(soft, rows)

    return loss_or_end


def test_it_learns_what_the_rows_want() -> None:
    rows = WANTED[list(FIT)] * 0.1 + 1.0
    aim = rows.mean(0)

    def near(soft: torch.Tensor, some: Sequence[int]) -> torch.Tensor:
        return (soft - rows[[i % len(rows) for i in some]]).square().mean()

    found = tune(near, START, FIT, HELD, replace(HOW, steps=200), 1.0)
    assert torch.allclose(found.best, aim, atol=0.1)
    assert found.losses[1] < 0.1 * found.losses[0]


def test_its_steps_are_those_of_adam() -> None:
    soft = START.clone().requires_grad_()
    adam = torch.optim.Adam([soft], lr=HOW.rate)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / HOW.steps)
    for _ in range(HOW.steps):
        adam.zero_grad()
        loss(soft, FIT).backward()
        adam.step()
        falling.step()
    found = tuned(replace(HOW, batch=len(FIT)))
    assert torch.allclose(found.soft, soft.detach(), atol=1e-5)


def test_same_seed_same_numbers() -> None:
    assert same(tuned(), tuned())
    assert not torch.equal(tuned().soft, tuned(replace(HOW, seed=1)).soft)


def test_the_best_place_for_held_out_rows_is_kept() -> None:
    def away(soft: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        return (soft - (0.0 if rows[0] in HELD else 5.0)).square().mean()

    found = tuned(loss=away)
    assert torch.equal(found.best, START)
    assert found.losses == (0.0, 0.0)
    assert found.soft.min() > 1


@pytest.mark.parametrize("after", [1, 14, 30])
def test_a_cut_training_goes_on_to_the_same_numbers(tmp_path: Path, after: int) -> None:
    keep = Kept(tmp_path / "part", {"model": "a"})
    with pytest.raises(KeyboardInterrupt):
        tuned(loss=failing(after), keep=keep)
    kept = keep.read()
    assert kept is not None
    assert 0 <= kept.step < HOW.steps
    assert same(tuned(keep=keep), tuned())
    assert same(tuned(keep=keep, loss=failing(0)), tuned())  # nothing is left to do
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    tuned(keep=Kept(tmp_path / "part", {"model": "a"}))
    with pytest.raises(BadRequest, match="part' holds a training of another model"):
        tuned(keep=Kept(tmp_path / "part", {"model": "b"}))


def test_it_tells_how_far_it_is() -> None:
    told: list[tuple[int, int, str]] = []
    tuned(replace(HOW, steps=3), progress=lambda *at: told.append(at))
    assert [at[:2] for at in told] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("option", "value"),
    [("tokens", 0), ("steps", 2.5), ("batch", True), ("every", -1), ("seed", -1), ("rate", 0)],
)
def test_settings_that_mean_nothing_are_refused(option: str, value: Any) -> None:
    with pytest.raises(BadRequest, match=f"{option}={value}"):
        Tuning(**{option: value})


class TestFile:
    """What is saved comes back as it was, and names its model."""

    prompt = SoftPrompt(WANTED[0], {"model": "a", "weights": {"x": "qint2"}}, {"loss": 0.5}, "bWFy")

    def test_it_comes_back(self, tmp_path: Path) -> None:
        self.prompt.save(tmp_path / "it.safetensors")
        found = as_soft_prompt(tmp_path / "it.safetensors")
        assert found is not None
        assert torch.equal(found.soft, self.prompt.soft)
        assert (found.parts, found.report) == (self.prompt.parts, self.prompt.report)
        assert (found.seen, found.digest) == (self.prompt.seen, self.prompt.digest)
        assert [path.name for path in tmp_path.iterdir()] == ["it.safetensors"]

    def test_other_numbers_have_another_digest(self) -> None:
        assert self.prompt.digest != replace(self.prompt, soft=WANTED[1]).digest

    def test_it_is_found_beside_its_own_weights_alone(self, tmp_path: Path) -> None:
        assert beside(tmp_path, self.prompt.parts) is None
        self.prompt.save(tmp_path / "bitcal_verdict.safetensors")
        assert beside(tmp_path, self.prompt.parts) is not None
        assert beside(tmp_path, {"model": "b"}) is None
        assert beside(torch.nn.Linear(1, 1), self.prompt.parts) is None

    def test_what_is_none_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(LoadError, match=r"none\.safetensors' cannot be read"):
            as_soft_prompt(tmp_path / "none.safetensors")
        (tmp_path / "text").write_text("no tensors here")
        with pytest.raises(LoadError, match="text' cannot be read"):
            as_soft_prompt(str(tmp_path / "text"))
        save_file({"soft": WANTED[0]}, tmp_path / "bare")
        with pytest.raises(LoadError, match="bare' holds format None"):
            as_soft_prompt(tmp_path / "bare")
        with pytest.raises(BadRequest, match="not 7"):
            as_soft_prompt(7)
