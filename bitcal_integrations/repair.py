"""Repairs of whole models: what was made better, in words, and how a cut repair goes on.

`load(..., repair="data-free")` repairs while it quantizes. For a model where that takes long,
`kept_beside` names a folder that keeps what is done until the result is saved. Knows the reports of
the quantize stage; whether answers get better is measured by a study on labelled questions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitcal_integrations.quantize._repair import STEPS, Repair, check_repair

__all__ = ["STEPS", "Repair", "forget", "kept_beside", "summary"]

_SUFFIX = ".repair"


def kept_beside(out: str | os.PathLike[str], repair: str | Repair = "data-free") -> Repair | None:
    """The same repair, which keeps each finished layer in a folder beside `out`.

    Load with it, save to `out`, then call `forget(out)`. Where the run is cut before that, the same
    three lines go on from the last finished layer.

    >>> kept_beside("small").keep.name
    'small.repair'
    """
    wanted = check_repair(repair)
    return None if wanted is None else replace(wanted, keep=_beside(out))


def forget(out: str | os.PathLike[str]) -> None:
    """Remove what `kept_beside(out)` kept; nothing happens where nothing is."""
    shutil.rmtree(_beside(out), ignore_errors=True)


def summary(report: Mapping[str, Any] | None) -> list[str]:
    """One line for each step that was taken, from the report of a repair.

    >>> summary({"fold": {"attn": [0.5, 0.4]}, "clip": {"mlp": [0.2, 0.1]}, "round": {"attn": "gated"}})
    ['fold: 1 of 1, error 0.500 -> 0.400', 'clip: 1 of 1, error 0.200 -> 0.100', 'round: 0 of 1 (gated)']
    >>> summary({"fold": {"": "there are no pairs"}})
    ['fold: nothing to do, there are no pairs']
    """  # noqa: E501
    return [f"{step}: {_line(report[step])}" for step in STEPS if report and report.get(step)]


def _line(layers: Mapping[str, Any]) -> str:
    if "" in layers:
        return f"nothing to do, {layers['']}"
    pairs = [found for found in layers.values() if not isinstance(found, str)]
    better = [found for found in pairs if found[1] < found[0]]
    line = f"{len(better)} of {len(layers)}"
    reasons = [found for found in layers.values() if isinstance(found, str)]
    if pairs:
        before, after = (sum(found[i] for found in pairs) / len(pairs) for i in (0, 1))
        line += f", error {before:.3f} -> {after:.3f}"
    return line + (f" ({reasons[0]})" if reasons else "")


def _beside(out: str | os.PathLike[str]) -> Path:
    path = Path(out).expanduser().absolute()
    return path.with_name(path.name + _SUFFIX)
