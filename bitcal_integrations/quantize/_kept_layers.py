"""What was found out about single layers, in a folder, so that a cut repair goes on where it was.

One safetensors file per layer and step, named after both; it counts only for the same weights and
settings, which a digest in it says. Knows tensors; what they mean is the caller's.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bitcal_integrations.errors import SaveError

Tensors = dict[str, torch.Tensor]


class KeptLayers:
    """Results by step and layer; without a folder nothing is kept."""

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SaveError(f"cannot keep results in {str(self.folder)!r}: {error}") from None

    def get(self, step: str, layer: str, made_of: Any, make: Callable[[], Tensors]) -> Tensors:
        """What is kept for these tensors and settings, or what `make` gives, kept from now on."""
        if self.folder is None:
            return make()
        basis = basis_of(*made_of)
        path = self.folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', layer)}.{step}.safetensors"
        found = _read(path, basis)
        if found is None:
            found = make()
            _write(path, found, basis)
        return found


def basis_of(*parts: Any) -> str:
    """A digest of settings and of every byte of the tensors among them."""
    h = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            raw = part.detach().cpu().contiguous().view(torch.uint8)
            h.update(f"{part.dtype} {tuple(part.shape)}".encode())
            h.update(raw.numpy().tobytes())
        else:
            h.update(repr(part).encode())
    return h.hexdigest()[:32]


def _write(path: Path, found: Tensors, basis: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")  # two runs may keep the same layer
    whole = {name: t.detach().cpu().contiguous() for name, t in found.items()}
    try:
        save_file(whole, partial, metadata={"basis": basis})
        os.replace(partial, path)  # a cut run leaves no half file under the real name
    except (OSError, SafetensorError) as error:
        raise SaveError(f"cannot keep results in {str(path.parent)!r}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path, basis: str) -> Tensors | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device="cpu") as opened:
            if (opened.metadata() or {}).get("basis") != basis:
                return None
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except Exception:  # damaged: made again
        return None
