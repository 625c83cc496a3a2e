"""The machine in one line: what a ratio depends on. Measures nothing."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from bitcal_integrations.quantize._dtype import name_of, pick_device, pick_dtype


def machine() -> str:
    """Device, cores and threads, the dtype that `load` picks, and versions."""
    device = pick_device("auto")
    dtype, _ = pick_dtype("auto", device, None)
    parts = [
        f"{cpu()}, {cores()} cores, {torch.get_num_threads()} threads",
        f"dtype {name_of(dtype)}",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
        *(f"{name} {version(name)}" for name in ("transformers", "optimum-quanto")),
    ]
    if device.type == "cuda":
        parts.insert(0, torch.cuda.get_device_name(device))
    return "; ".join(parts)


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
