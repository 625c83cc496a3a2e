"""Which linear layer gets which weight type, and the step from a float layer to a frozen one.

A plan is {fnmatch pattern: type or None}; when several patterns match a name the later one wins,
and `exclude` wins over all of them. Knows nothing about files, dtypes of checkpoints or devices.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from optimum.quanto import QLinear, QModuleMixin, qtypes
from torch import nn

from bitcal_integrations.errors import LoadError, NotQuantized

logger = logging.getLogger(__name__)

TYPES = ("qint8", "qint4", "qint2", "qfloat8")
Weights: TypeAlias = "str | None | Mapping[str, str | None]"
Exclude: TypeAlias = "str | Sequence[str] | None"


def public_name(quanto_name: str) -> str:
    """The name we use for a quanto type: `qfloat8` for the one float8 layout that we write."""
    return "qfloat8" if quanto_name == "qfloat8_e4m3fn" else quanto_name


def check_weights(weights: Any) -> Weights:
    """The argument itself, if it is "auto", None, a weight type or a plan of them."""
    if weights is None or weights == "auto":
        return weights
    if isinstance(weights, Mapping):
        if not weights:
            raise LoadError("weights={} is an empty plan", "Use None to quantize nothing.")
        for pattern, kind in weights.items():
            if not isinstance(pattern, str):
                raise LoadError(f"the pattern {pattern!r} of the plan is not a string")
            if kind is not None and kind not in TYPES:
                raise _unknown(kind)
        return dict(weights)
    if not isinstance(weights, str) or weights not in TYPES:
        raise _unknown(weights)
    return weights


def _unknown(offender: Any) -> LoadError:
    allowed = ", ".join(TYPES)
    return LoadError(
        f"weights={offender!r} is not a weight type: use {allowed}, None, 'auto', "
        "or a {pattern: type} plan of these"
    )


def wants_quantization(weights: Weights) -> bool:
    if isinstance(weights, Mapping):
        return any(kind is not None for kind in weights.values())
    return weights not in (None, "auto")


def exclude_list(exclude: Exclude) -> list[str]:
    if exclude is None:
        return []
    return [exclude] if isinstance(exclude, str) else list(exclude)


def group_size(in_features: int) -> int | None:
    """How many weights share one scale at 4 and 2 bits, as quanto chooses it; None: a whole row."""
    if in_features <= 128:
        return None
    return next((g for g in (128, 96, 64, 32) if in_features % g == 0), None)


def assign(
    model: nn.Module, weights: Weights, exclude: Exclude, dtype: torch.dtype
) -> dict[str, str]:
    """Module name -> weight type, for every linear layer that is to be quantized."""
    if not wants_quantization(weights):
        return {}
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, QModuleMixin)
    }
    skip = exclude_list(exclude)
    names = [n for n in linears if not any(fnmatchcase(n, pattern) for pattern in skip)]
    plan = weights if isinstance(weights, Mapping) else {"*": weights}
    kinds: dict[str, str | None] = {}
    for pattern, kind in plan.items():
        matched = [n for n in names if fnmatchcase(n, pattern)]
        if isinstance(weights, Mapping) and names and not matched:
            raise LoadError(
                f"the pattern {pattern!r} of the plan matches no linear layer outside "
                f"exclude={skip}; the layers are named like {names[0]!r}"
            )
        kinds.update(dict.fromkeys(matched, kind))
    chosen = {n: k for n in names if (k := kinds.get(n)) is not None}
    if not chosen:
        raise NotQuantized(
            f"{type(model).__name__} has no torch.nn.Linear layer outside exclude={skip}, "
            f"so weights={weights!r} would quantize nothing"
        )
    return {n: _servable(n, linears[n], kind, dtype) for n, kind in chosen.items()}


def _servable(name: str, linear: nn.Linear, kind: str, dtype: torch.dtype) -> str:
    """The type itself, or qint8 where the packed int4 kernel of bfloat16 refuses the shape."""
    group = group_size(linear.in_features)
    if kind in ("qint4", "qint2") and group is None:
        logger.info("%s: one %s scale per row (%d inputs)", name, kind, linear.in_features)
    if kind != "qint4" or dtype != torch.bfloat16 or group != 128 or linear.out_features % 16 == 0:
        return kind
    logger.warning(
        "%s gets qint8: the bfloat16 int4 kernel needs outputs divisible by 16, not %d",
        name,
        linear.out_features,
    )
    return "qint8"


@torch.no_grad()
def quantize_linear(model: nn.Module, name: str, kind: str, optimizer: Any = None) -> None:
    """Put a frozen quantized layer in the place of a float one; quanto's own scales by default."""
    module = swap_linear(model, name, kind, optimizer)
    module.freeze()
    module.requires_grad_(False)


def quantize_linears(model: nn.Module, kinds: Mapping[str, str]) -> None:
    """The same for every layer that has a type."""
    for name, kind in kinds.items():
        quantize_linear(model, name, kind)


def swap_linear(model: nn.Module, name: str, kind: str, optimizer: Any = None) -> QLinear:
    """Put an unfrozen quanto layer in the place of a float one; it may be on the meta device."""
    linear = model.get_submodule(name)
    module = QLinear.from_module(linear, weights=qtypes[kind], optimizer=optimizer)
    module.name = name
    module.eval()
    model.set_submodule(name, module)
    for leaf in linear._parameters:  # whoever still holds the float layer must not hold its memory
        linear._parameters[leaf] = None
    return module
