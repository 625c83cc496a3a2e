"""What a loaded model was quantized from, and what tells one such from another.

Loads nothing itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.quantize import _store
from bitcal_integrations.quantize._identity import object_identity
from bitcal_integrations.quantize._loaded import LoadedWeights


def origin_of(loaded: LoadedWeights) -> str:
    """A hub id, or a folder of float weights; an error where neither is known."""
    folder, given = Path(loaded.source).expanduser(), loaded.source == type(loaded.model).__name__
    if given or any((folder / name).exists() for name in (_store.MANIFEST, _store.QUANTO_MAP)):
        raise BadRequest(
            f"{loaded.source!r} does not say what it was quantized from: name the unquantized "
            "model as the teacher"
        )
    return loaded.source


def name_of(given: Any) -> str:
    """Of what `load` takes: its name, and of a model in memory what is in it."""
    return object_identity(given) if isinstance(given, nn.Module) else str(given)
