"""Makes quanto's tensors safe to run: no compiler, and no misaligned memory.

quanto compiles a C++ or CUDA extension inside site-packages at the first int4 or int2 forward.
Here the one function that our weights need from it is given in torch, with equal output and speed.
Knows nothing about models beyond their modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from optimum.quanto import QModuleMixin, QTensor
from optimum.quanto.library.extensions import extension as _extension
from torch import nn

ALIGNMENT = 16  # bytes; the packed int8 kernel of the CPU reads whole vectors and crashes below it


def unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The values of 2 or 4 bits that lie in a uint8 tensor, lowest bits first, as uint8.

    >>> unpack(torch.tensor([[0x21]], dtype=torch.uint8), 4).tolist()
    [[1], [2]]
    """
    mask = 2**bits - 1
    return torch.cat([(packed >> (bits * i)) & mask for i in range(8 // bits)])


def install_unpack() -> None:
    """Replace quanto's compiled extensions by `unpack`, unless the user has loaded one already.

    The CUDA extension is also taken off quanto's list: its AWQ and Marlin kernels would start nvcc
    when the first weight is frozen. Without it quanto uses kernels that come with torch.
    """
    registered = _extension._extensions
    for name in ("quanto_cpp", "quanto_cuda", "quanto_hip", "quanto_mps"):
        extension = registered.get(name)
        if extension is None or extension._lib is not None:
            continue
        extension._lib = SimpleNamespace(unpack=unpack)
        if name == "quanto_cuda":
            del registered[name]


def inner_tensors(tensor: Any) -> Iterator[tuple[Any, str]]:
    """Every (owner, attribute) inside a quantized tensor that holds plain memory."""
    names, _ = tensor.__tensor_flatten__()
    for name in names:
        inner = getattr(tensor, name)
        if type(inner) is torch.Tensor:
            yield tensor, name
        else:
            yield from inner_tensors(inner)


def quantized_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that hold a frozen quantized weight, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, QModuleMixin) and isinstance(module.weight, QTensor):
            yield name, module


def weight_of(module: nn.Module) -> Any:
    """The weight of a layer, typed as anything: quanto's tensors have no stubs."""
    return module.weight


def align(model: nn.Module) -> int:
    """Clone every inner tensor that does not start on an aligned address; how many there were."""
    moved = 0
    for _, module in quantized_modules(model):
        for owner, name in inner_tensors(weight_of(module)):
            inner = getattr(owner, name)
            if inner.data_ptr() % ALIGNMENT:
                setattr(owner, name, inner.clone())
                moved += 1
    return moved


def exact_shift(weight: Any, shift: torch.Tensor) -> torch.Tensor:
    """The stored shift of a packed int4 weight, such that packing it again gives the same numbers.

    The packed form keeps `8 * scale - shift` rounded to bfloat16; the way back rounds again, and
    for groups far from zero it can end beside the shift that leads to the kept number.
    """
    scale, kept = weight._scale_shift.unbind(2)
    half = 8 * scale
    shape = shift.shape
    best = shift.reshape(kept.t().shape).t().contiguous()
    bits = best.view(torch.int16)
    for step in (-2, -1, 1, 2):
        near = (bits + step).view(torch.bfloat16)
        better = (half - best != kept) & (half - near == kept)
        best = torch.where(better, near, best)
    return best.t().reshape(shape).contiguous()


install_unpack()
