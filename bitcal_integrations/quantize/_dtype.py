"""Where a model runs and in which float type, with the reason.

bfloat16 is the default because quanto has packed int8 and int4 kernels for it and dequantizes at
every forward in the other types. Whether it works is tried, not looked up. Does not know whether
it is fast.
"""

from __future__ import annotations

from functools import cache

import torch

from bitcal_integrations.errors import LoadError

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def pick_device(device: str | torch.device) -> torch.device:
    """The device asked for, or for "auto" the first of cuda, mps and cpu that is there."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise LoadError(
            f"device={str(device)!r} cannot be used here ({first})", "Use 'auto' or 'cpu'."
        ) from None
    return torch.empty(0, device=chosen).device


def check_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The torch type asked for; None for "auto"."""
    name = name_of(dtype) if isinstance(dtype, torch.dtype) else dtype
    if name == "auto":
        return None
    if name not in DTYPES:
        raise LoadError(f"dtype={name!r} is not known: use 'auto', {', '.join(map(repr, DTYPES))}")
    return DTYPES[name]


def pick_dtype(
    dtype: str | torch.dtype, device: torch.device, stored: str | None
) -> tuple[torch.dtype, str]:
    """The float type to load in, and why; `stored` is the checkpoint's own."""
    asked = check_dtype(dtype)
    if asked is not None:
        return asked, f"{name_of(asked)} was asked for"
    problem = bfloat16_problem(device)
    if problem:
        return torch.float32, f"float32, because bfloat16 does not work on {device}: {problem}"
    reason = f"bfloat16 works on {device} and has the packed int8 and int4 kernels"
    if stored not in (None, "bfloat16"):
        reason += f"; the checkpoint is stored in {stored}"
    return torch.bfloat16, reason


@cache
def bfloat16_problem(device: torch.device) -> str:
    """Why bfloat16 cannot be used on a device; empty when it can."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return "this GPU does not support it"
    try:
        x = torch.ones(4, 256, dtype=torch.bfloat16, device=device)
        out = torch.nn.functional.linear(x, x)
        if device.type == "cpu":
            out = out + _packed_products(x).sum()
        if not bool(torch.isfinite(out).all()):
            return "a small product is not finite"
    except Exception as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


def _packed_products(x: torch.Tensor) -> torch.Tensor:
    """Both packed CPU kernels once; they raise where they are missing."""
    ones = torch.ones(16, 256, dtype=torch.int32)
    scales = torch.ones(2, 16, 2, dtype=torch.bfloat16)
    packed = torch._convert_weight_to_int4pack_for_cpu(ones, 2)
    four = torch._weight_int4pack_mm_for_cpu(x, packed, 128, scales)
    eight = torch._weight_int8pack_mm(x, ones.to(torch.int8), scales[0, :, 0])
    return four + eight
