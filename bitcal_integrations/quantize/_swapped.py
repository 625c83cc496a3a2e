"""Layers of a float model quantized for a while: the float weights are kept and put back.

Knows quanto's layers; what is done meanwhile is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from optimum.quanto import QLinear, qtypes
from torch import nn

Optimizer = Callable[[str], Any]


@contextmanager
def quantized(
    model: Any, kinds: Mapping[str, str | None], optimizer: Optimizer | None = None
) -> Iterator[None]:
    """Within this, these layers of a float model are quantized; afterwards they are as before.

    The float weights stay in memory beside the quantized ones.
    """
    floats: dict[str, nn.Module] = {}
    try:
        for name, kind in kinds.items():
            if kind is not None:
                layer = model.get_submodule(name)
                made = _frozen(layer, kind, optimizer)
                floats[name] = layer
                model.set_submodule(name, made)
        yield
    finally:
        for name, layer in floats.items():
            model.set_submodule(name, layer)


@torch.no_grad()
def _frozen(layer: nn.Module, kind: str, optimizer: Optimizer | None) -> nn.Module:
    """A quantized layer of the same weights, which stay where they are."""
    chosen = None if optimizer is None else optimizer(kind)
    made = QLinear.from_module(layer, weights=qtypes[kind], optimizer=chosen)
    made.eval()
    made.freeze()
    return made.requires_grad_(False)
