"""What a linear layer takes in each weight type, and how many bytes a budget stands for.

Counts codes, scales and shifts as they are stored, padding included; biases stay as they are and
are not counted. Knows shapes and dtypes only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from optimum.quanto import QModuleMixin
from torch import nn

from bitcal_integrations.errors import BadRequest, LoadError, NotQuantized
from bitcal_integrations.quantize._plan import Exclude, exclude_list, group_size

Budget: TypeAlias = "float | int | str"

PACKED = {"qint4": 4, "qint2": 2}  # bits of a code
_BITS = re.compile(r"(\d+(?:\.\d+)?)\s*bits?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])(i?)B")
_FORMS = "a share of the unquantized bytes (0.35), bits per weight ('3 bits') or bytes ('200 MiB')"


def linear_layers(model: nn.Module, exclude: Exclude) -> dict[str, nn.Linear]:
    """The float linear layers outside `exclude`, by name."""
    skip = exclude_list(exclude)
    found: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if isinstance(module, QModuleMixin):
            raise LoadError(
                f"the layer {name!r} is quantized already",
                "Weight types are chosen for a float model: load it with weights=None.",
            )
        if isinstance(module, nn.Linear) and not any(fnmatchcase(name, p) for p in skip):
            found[name] = module
    if not found:
        raise NotQuantized(
            f"{type(model).__name__} has no torch.nn.Linear layer outside exclude={skip}"
        )
    return found


def layer_bytes(layer: nn.Linear, kind: str | None) -> int:
    """Bytes of the weight in a type, None for the dtype it has.

    >>> layer_bytes(nn.Linear(256, 256, dtype=torch.bfloat16), "qint4") * 8 / 256**2
    4.25
    """
    rows, columns, item = layer.out_features, layer.in_features, layer.weight.element_size()
    if kind is None:
        return rows * columns * item
    if kind not in PACKED:
        return rows * columns + rows * item
    group = group_size(columns)
    scales, width = (rows, columns) if group is None else (rows * columns // group, group)
    return math.ceil(scales * PACKED[kind] / 8) * width + 2 * scales * item


def takes(layer: nn.Linear, kind: str | None) -> bool:
    """Whether `load` gives the layer this type; it puts qint8 where the int4 kernel refuses."""
    refused = group_size(layer.in_features) == 128 and layer.out_features % 16 != 0
    return not (kind == "qint4" and layer.weight.dtype == torch.bfloat16 and refused)


def budget_bytes(budget: Any, layers: Mapping[str, nn.Linear]) -> int:
    """How many bytes a budget allows these layers to take together."""
    weights = sum(layer.weight.numel() for layer in layers.values())
    floats = sum(layer_bytes(layer, None) for layer in layers.values())
    if isinstance(budget, str):
        return _of_text(budget.strip(), weights, floats)
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not budget > 0:
        raise _refused(budget)
    if isinstance(budget, int):
        return budget
    if budget > 1:
        raise _refused(budget)
    return int(budget * floats)


def _of_text(text: str, weights: int, floats: int) -> int:
    if found := _BITS.fullmatch(text):
        return int(float(found[1]) * weights / 8)
    if found := _SIZE.fullmatch(text):
        step = 1024 if found[3] else 1000
        return int(float(found[1]) * step ** (1 + "KMGT".index(found[2])))
    if text.isdecimal() and int(text) > 1:
        return int(text)
    try:
        share = float(text)
    except ValueError:
        raise _refused(text) from None
    if not 0 < share <= 1:
        raise _refused(text)
    return int(share * floats)


def _refused(budget: Any) -> BadRequest:
    return BadRequest(f"budget={budget!r} is not allowed: it is {_FORMS}")
