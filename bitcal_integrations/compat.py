"""What has changed its name between releases of transformers. Knows names, no model."""

from __future__ import annotations

import inspect
from typing import Any

# Newest first: 5.24 calls it `cache` everywhere and warns of the names before.
_CACHE_NAMES = ("cache", "cache_params", "past_key_values")


def cache_name(model: Any) -> str:
    """Under which name a model's forward takes and gives its cache."""
    for takes in (model.forward, model.prepare_inputs_for_generation):
        accepted = inspect.signature(takes).parameters
        for name in _CACHE_NAMES:
            if name in accepted:
                return name
    return _CACHE_NAMES[-1]
