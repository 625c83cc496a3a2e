"""Scores of a model that look at the types of its layers only, for tests of plans."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from optimum.quanto import QModuleMixin
from torch import nn

from bitcal_integrations.quantize._layer_bytes import linear_layers

KINDS = ("qint2", "qint4", "qint8", None)


def types_of(model: Any) -> dict[str, str | None]:
    """The type that each linear layer has at this moment."""
    return {
        name: module.weight_qtype.name if isinstance(module, QModuleMixin) else None
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }


def table(model: Any, seed: int = 0) -> dict[tuple[str, str | None], float]:
    """A loss for each layer and type: fewer bits cost more, from layer to layer otherwise."""
    draw = random.Random(seed)
    size = {"qint2": 1.0, "qint4": 0.1, "qint8": 0.01, None: 0.0}
    names = list(linear_layers(model, "*lm_head"))
    return {(n, k): size[k] * w for n in names for w in [draw.uniform(0.5, 3)] for k in KINDS}


def additive(losses: dict[tuple[str, str | None], float]) -> Callable[[Any], float]:
    return lambda model: 5.0 + sum(losses[item] for item in types_of(model).items())
