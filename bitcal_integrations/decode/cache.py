"""A key-value cache whose rows can leave, join and be cut.

It is transformers' DynamicCache with every layer full, left-padded: one more row or a longer row
pads on the left. Sliding-window models are served from it too, since their window is in the
attention mask; they pay the memory of the full length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from bitcal_integrations.decode._roomy import RoomyLayer


def new_cache() -> DynamicCache:
    cache = DynamicCache()
    cache.layer_class_to_replicate = RoomyLayer
    return cache


def can_join(model: torch.nn.Module) -> tuple[bool, str]:
    """Whether rows of this model can leave and join, and why not."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        return False, "an encoder-decoder model: rows decode together as one padded batch"
    layers = DynamicCache(config=config).layers
    odd = [x for x in layers if type(x) not in (DynamicLayer, DynamicSlidingWindowLayer)]
    if odd or getattr(model, "_is_stateful", False):
        kind = type(odd[0]).__name__ if odd else "recurrent state"
        return False, f"its cache ({kind}) cannot be joined: rows decode as one padded batch"
    return True, "full key-value cache: rows leave and join at every step"


def keep_rows(cache: DynamicCache, order: Sequence[int]) -> None:
    """Let only these rows stay, in this order."""
    for layer in _held(cache):
        layer.keep(order)


def drop_last(cache: DynamicCache, row: int, tokens: int) -> None:
    """Forget the last tokens of one row: what it keeps moves right, behind padding."""
    for layer in _held(cache) if tokens else ():
        for states in (layer.keys, layer.values):
            states[row, :, tokens:] = states[row, :, :-tokens].clone()


def trim_left(cache: DynamicCache, columns: int) -> None:
    """Forget columns that are padding in every row."""
    for layer in _held(cache) if columns else ():
        layer.trim_left(columns)


def join(first: DynamicCache, second: DynamicCache) -> None:
    """Put the rows of the second cache behind those of the first, the shorter padded."""
    for mine, theirs in zip(_held(first), _held(second), strict=True):
        mine.seat(theirs)


def bytes_held(cache: DynamicCache) -> int:
    """Bytes of all keys and values."""
    return sum(x.nbytes for layer in _held(cache) for x in (layer.keys, layer.values))


def _held(cache: DynamicCache) -> list[RoomyLayer]:
    """The layers that hold something: one that looks at images has nothing to hold for a text."""
    return [layer for layer in cache.layers if layer.is_initialized]
