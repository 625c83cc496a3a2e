"""A layer with room to spare holds what one that copies everything would hold."""

from __future__ import annotations

import random

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from bitcal_integrations.decode._roomy import RoomyLayer
from bitcal_integrations.decode.batch import _order

HEADS, KEY, VALUE = 2, 4, 3  # keys and values of different sizes, as some models have them


def states(rows: int, columns: int, dice: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    keys = torch.randn(rows, HEADS, columns, KEY, generator=dice)
    return keys, torch.randn(rows, HEADS, columns, VALUE, generator=dice)


def filled(rows: int, columns: int, dice: torch.Generator) -> tuple[RoomyLayer, DynamicLayer]:
    mine, plain = RoomyLayer(), DynamicLayer()
    new = states(rows, columns, dice)
    with torch.no_grad():
        for layer in (mine, plain):
            layer.update(*new)
    return mine, plain


def padded(tensor: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(tensor, (0, 0, max(0, columns), 0))


def assert_same(mine: RoomyLayer, plain: DynamicLayer) -> None:
    torch.testing.assert_close(mine.keys, plain.keys, rtol=0, atol=0)
    torch.testing.assert_close(mine.values, plain.values, rtol=0, atol=0)
    assert mine.get_seq_length() == plain.get_seq_length()


@pytest.mark.parametrize("seed", range(20))
@torch.no_grad()
def test_any_course_of_steps_gives_what_copying_gives(seed: int) -> None:
    choose, dice = random.Random(seed), torch.Generator().manual_seed(seed)
    mine, plain = filled(3, 5, dice)
    for _ in range(120):
        rows, width = plain.keys.shape[0], plain.keys.shape[2]
        act = choose.choice(("step", "step", "step", "join", "leave", "trim", "crop", "put back"))
        if act == "step":
            new = states(rows, choose.choice((1, 1, 1, 4)), dice)
            for one, other in zip(mine.update(*new), plain.update(*new), strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=0)
        elif act == "join" and rows < 40:
            other, same = filled(choose.randint(1, 3), choose.randint(1, 2 * width), dice)
            mine.seat(other)
            gap = width - same.keys.shape[2]
            for name in ("keys", "values"):
                one, two = getattr(plain, name), getattr(same, name)
                setattr(plain, name, torch.cat([padded(one, -gap), padded(two, gap)]))
        elif act == "leave" and rows > 1:
            stay = [choose.random() < 0.6 for _ in range(rows - 1)]
            order = _order([*stay, True])
            mine.keep(order)
            plain.batch_select_indices(torch.tensor(order))
        elif act in ("trim", "crop") and width > 2:
            columns = choose.randint(1, width // 2)
            if act == "crop":
                mine.crop(-columns)
                plain.crop(-columns)
            else:
                mine.trim_left(columns)
                plain.keys, plain.values = plain.keys[:, :, columns:], plain.values[:, :, columns:]
        elif act == "put back" and width > 2:
            for layer in (mine, plain):  # as decode.cache.drop_last does
                layer.keys[0, :, 1:] = layer.keys[0, :, :-1].clone()
                layer.values[0, :, 1:] = layer.values[0, :, :-1].clone()
        assert_same(mine, plain)


@torch.no_grad()
def test_a_step_and_a_row_that_leaves_copy_nothing_else() -> None:
    mine, plain = filled(4, 20, torch.Generator().manual_seed(0))
    new = states(4, 1, torch.Generator().manual_seed(1))
    for layer in (mine, plain):
        layer.update(*new)
    place = mine.keys.data_ptr()
    for _ in range(8):
        mine.update(*new)
    mine.keep([0, 3, 2])
    assert mine.keys.data_ptr() == place
    assert mine.keys.shape == (3, HEADS, 29, KEY)
    torch.testing.assert_close(mine.keys[1, :, :21], plain.keys[3])


def held(layer: RoomyLayer) -> int:
    return sum(t.untyped_storage().nbytes() for t in (layer.keys, layer.values))


@torch.no_grad()
def test_memory_goes_with_the_rows_that_needed_it() -> None:
    """One short row stays behind many long ones, which left at once."""
    dice = torch.Generator().manual_seed(0)
    mine, _ = filled(16, 400, dice)
    mine.update(*states(16, 1, dice))
    assert held(mine) <= 1.07 * mine.keys[0, 0].numel() / KEY * 16 * HEADS * (KEY + VALUE) * 4
    mine.keep([15])
    mine.trim_left(393)
    kept = mine.keys.clone()
    assert held(mine) == 8 * HEADS * (KEY + VALUE) * 4
    mine.update(*states(1, 1, dice))
    assert torch.equal(mine.keys[:, :, :8], kept)


@torch.no_grad()
def test_values_that_were_replaced_alone_are_kept() -> None:
    dice = torch.Generator().manual_seed(0)
    mine, _ = filled(2, 6, dice)
    mine.update(*states(2, 1, dice))
    mine.values = mine.values * 5
    wanted = mine.values.clone()
    assert torch.equal(mine.update(*states(2, 1, dice))[1][:, :, :7], wanted)


@torch.no_grad()
def test_what_a_gone_row_left_behind_is_never_read() -> None:
    """A row of numbers that overflowed would spoil all sums: what is masked must be finite."""
    dice = torch.Generator().manual_seed(0)
    mine, _ = filled(2, 6, dice)
    mine.update(*(torch.full((2, HEADS, 1, size), torch.nan) for size in (KEY, VALUE)))
    mine.update(*states(2, 6, dice))
    mine.trim_left(7)  # the broken column is before the window now
    mine.keep([0])
    longer, _ = filled(1, 12, dice)
    mine.seat(longer)
    assert mine.keys.isfinite().all()
    assert mine.values.isfinite().all()


def test_with_gradients_nothing_is_written_in_place() -> None:
    mine = RoomyLayer()
    new = [s.requires_grad_() for s in states(2, 3, torch.Generator().manual_seed(0))]
    mine.update(*new)
    keys, values = mine.update(*new)
    (keys.sum() + values.sum()).backward()
    assert torch.equal(new[0].grad, torch.full_like(new[0], 2.0))
