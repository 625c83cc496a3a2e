"""Runs a module of this folder in a fresh process, and reads the memory of the own one.

What a child measures comes back as one JSON line. It knows nothing about models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")


def call(
    module: str,
    arguments: dict[str, Any],
    *,
    fresh: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """What `main(arguments)` of a module of this folder gives, in a fresh process unless told."""
    name = f"bitcal_integrations.bench.{module}"
    if not fresh:
        return import_module(name).main(arguments)
    command = [sys.executable, "-m", name, json.dumps(arguments)]
    found = subprocess.run(
        command, env={**os.environ, **(environment or {})}, capture_output=True, text=True
    )
    if found.returncode:
        raise RuntimeError(f"bench.{module} failed: {found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])


def memory(field: str) -> int:
    """One field of this process's status, such as VmHWM, in bytes; 0 where there is none."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(ln.split()[1]) * 1024 for ln in lines if ln.startswith(f"{field}:")), 0)
