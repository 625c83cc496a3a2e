"""Questions whose toy answers are right with a known probability."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from bitcal_integrations.dataset import Example, read_examples
from bitcal_integrations.testing.toy import ToyModel

N = 300


def questions(n: int = N, per_group: int = 1) -> list[Example]:
    """Numbered questions whose right answer is "yes"."""
    return read_examples(
        [{"prompt": f"q{i}", "gold": "yes", "group": f"g{i // per_group}"} for i in range(n)]
    )


def toy(name: str, overconfident: float = 1.0, seed: int = 0, n: int = N) -> Callable[[], ToyModel]:
    """A function that makes a toy which says p and is right with probability p ** overconfident.

    A share of its answers is the same under every name: the pairs are correlated, as those of
    two weight types are.
    """
    table: dict[str, Any] = {}
    for i in range(n):
        shared = random.Random(i)
        p, draw = shared.uniform(0.2, 0.98), shared.random()
        if random.Random(f"{name}{seed}{i}").random() < 0.3:
            draw = random.Random(f"{name}{i}").random()
        table[f"q{i}"] = ("yes" if draw < p**overconfident else "no", p)
    return lambda: ToyModel(table, name=name)
