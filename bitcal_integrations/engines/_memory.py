"""How much memory keys and values may take, and what an out-of-memory error looks like."""

from __future__ import annotations

import os

import torch

_CPU_SHARE = 0.25
_GPU_SHARE = 0.8
_UNKNOWN_BYTES = 4 << 30


def kv_budget(device: torch.device) -> int:
    """Bytes for keys and values: a share of what is free after the model has been loaded."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN_BYTES
    return int(free * _CPU_SHARE)


def is_out_of_memory(err: BaseException) -> bool:
    if isinstance(err, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(err).lower()
    return isinstance(err, RuntimeError) and (
        "can't allocate memory" in words or "out of memory" in words
    )


def release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
