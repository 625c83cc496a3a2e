"""The knapsack is exact, the same each time, and quick at the size of a large model."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from bitcal_integrations.quantize._knapsack import knapsack


@pytest.mark.parametrize("seed", range(40))
def test_the_knapsack_is_exact(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(10):
        n, options = draw.randint(1, 6), draw.randint(1, 4)
        sizes = [[draw.randint(1, 30) for _ in range(options)] for _ in range(n)]
        losses = [
            [draw.choice([draw.uniform(-1, 5), draw.randint(0, 3)]) for _ in s] for s in sizes
        ]
        room = draw.randint(sum(map(min, sizes)), sum(map(max, sizes)) + 3)
        ways = list(itertools.product(range(options), repeat=n))

        def total(of: list[list[Any]], way: Any) -> Any:
            return sum(row[at] for row, at in zip(of, way, strict=True))

        best = min(total(losses, way) for way in ways if total(sizes, way) <= room)
        found = knapsack(sizes, losses, room)
        assert total(sizes, found) <= room
        assert total(losses, found) == pytest.approx(best, abs=1e-9)


def test_of_equals_the_smaller_then_the_first_is_taken() -> None:
    assert knapsack([[3, 2, 2, 1]], [[0.0, 0.0, 0.0, 1.0]], 9) == [1]
    assert knapsack([[1, 2], [1, 2]], [[1.0, 0.0], [1.0, 0.0]], 3) in ([0, 1], [1, 0])
    runs = {tuple(knapsack([[1, 2]] * 6, [[1.0, 0.0]] * 6, 9)) for _ in range(3)}
    assert len(runs) == 1


def test_a_model_of_seven_billion_weights_takes_no_time() -> None:
    """224 layers of real shapes: a table over single bytes would have two billion columns."""
    draw = random.Random(0)
    shapes = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]
    sizes, losses = [], []
    for rows, columns in shapes * 32:
        n, base = rows * columns, draw.lognormvariate(0, 1)
        sizes.append([n // 4 + n // 32, n // 2 + n // 32, n + 2 * rows, 2 * n])
        losses.append([base, base * draw.uniform(0.05, 0.1), base * draw.uniform(0, 1e-3), 0.0])
    room = sum(row[-1] for row in sizes) // 5
    found = knapsack(sizes, losses, room)
    used = sum(row[at] for row, at in zip(sizes, found, strict=True))
    assert room * 0.999 < used <= room
    with pytest.raises(ValueError, match="do not fit"):
        knapsack(sizes, losses, 10)
