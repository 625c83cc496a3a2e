"""How much memory keys and values may take."""

from __future__ import annotations

from pathlib import Path

import torch

_CPU_SHARE = 0.25
_GPU_SHARE = 0.8
_UNKNOWN_BYTES = 4 << 30


def kv_budget(device: torch.device) -> int:
    """Bytes for keys and values: a share of what is free after the model has been loaded."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * _GPU_SHARE)
    return int(_free_bytes() * _CPU_SHARE)


def _free_bytes() -> int:
    """What this process may still take: page cache counts as free, a container's limit counts."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return _UNKNOWN_BYTES
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text())  # "max" where there is none
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass
    return max(free, 0)


def release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
