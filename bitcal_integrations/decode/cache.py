"""A key-value cache whose rows can leave, join, be branched and be cut.

It is transformers' DynamicCache with every layer full, left-padded: one more row or a longer row
pads on the left. Sliding-window models are served from it too, since their window is in the
attention mask; they pay the memory of the full length.
"""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def new_cache() -> DynamicCache:
    return DynamicCache()


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


def keep_rows(cache: DynamicCache, rows: torch.Tensor) -> None:
    cache.batch_select_indices(rows)


def branch(cache: DynamicCache, rows: torch.Tensor) -> DynamicCache:
    """A new cache with copies of these rows (a row may be named more than once)."""
    out = new_cache()
    for index, layer in enumerate(cache.layers):
        out.update(layer.keys[rows], layer.values[rows], index)
    return out


def crop(cache: DynamicCache, tokens: int) -> None:
    """Forget the last tokens."""
    if tokens:
        cache.crop(-tokens)


def drop_last(cache: DynamicCache, row: int, tokens: int) -> None:
    """Forget the last tokens of one row: what it keeps moves right, behind padding."""
    for layer in cache.layers if tokens else ():
        for states in (layer.keys, layer.values):
            states[row, :, tokens:] = states[row, :, :-tokens].clone()


def trim_left(cache: DynamicCache, columns: int) -> None:
    """Forget columns that are padding in every row."""
    if columns:
        for layer in cache.layers:
            layer.keys = layer.keys[:, :, columns:]
            layer.values = layer.values[:, :, columns:]


def join(first: DynamicCache, second: DynamicCache) -> DynamicCache:
    """One cache with the rows of both, the shorter padded on the left."""
    gap = first.get_seq_length() - second.get_seq_length()
    out = new_cache()
    for index, (a, b) in enumerate(zip(first.layers, second.layers, strict=True)):
        keys = torch.cat([pad_left(a.keys, -gap), pad_left(b.keys, gap)])
        values = torch.cat([pad_left(a.values, -gap), pad_left(b.values, gap)])
        out.update(keys, values, index)
    return out


def pad_left(states: torch.Tensor, columns: int) -> torch.Tensor:
    """Zeros before the sequence dimension (the last but one)."""
    if columns <= 0:
        return states
    return torch.nn.functional.pad(states, (0, 0, columns, 0))


def bytes_held(cache: DynamicCache) -> int:
    """Bytes of all keys and values."""
    return sum(x.nbytes for layer in cache.layers for x in (layer.keys, layer.values))
