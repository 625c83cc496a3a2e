"""Does a model say the same with a cache, with padding, and alone? Asked once, when it is loaded.

Some architectures keep their state where this loop does not carry it, or let padding reach it:
they would answer without an error, and wrongly. Random noise of a number type passes; another
answer does not. It compares the model with itself, so it is no check of quality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bitcal_integrations.errors import LoadError

if TYPE_CHECKING:
    from bitcal_integrations.decode.net import Net

TOLERANCE = 0.1  # of the spread of the logits; bfloat16 and packed kernels stay far below
_TOKENS, _PADS = 24, 22


def check(net: Net) -> bool:
    """Whether padded batches may be served; an error if even one row alone may not."""
    rows = int(net.model.get_input_embeddings().weight.shape[0])
    ids = torch.arange(_TOKENS, device=net.device).remainder(max(1, rows - 5)).unsqueeze(0) + 4
    ids = ids.remainder(rows)
    try:
        return _compare(net, ids)
    except LoadError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(
            f"{type(net.model).__name__} fails in its first step with a cache: {first}"
        ) from None


def _compare(net: Net, ids: torch.Tensor) -> bool:
    if net.encoder_decoder:
        return True  # its encoder takes the padding through the mask, and its steps carry the rest
    mask = torch.ones_like(ids)
    whole, cache, _ = net.prefill(ids, mask)
    if net.joinable and cache.get_seq_length() != ids.shape[1]:
        raise LoadError(f"{type(net.model).__name__} does not use the cache that it is given")
    if _apart(whole, _stepped(net, ids, mask)) > TOLERANCE:
        raise LoadError(
            f"{type(net.model).__name__} gives other logits with its cache than without",
            "Its state is kept in a way that is not served here.",
        )
    short = ids.clone()
    short[:, :_PADS] = net.pad
    both, padding = torch.cat([short, ids]), torch.cat([mask, mask])
    padding[0, :_PADS] = 0
    alone = _stepped(net, ids[:, _PADS:], mask[:, _PADS:])
    padded = _stepped(net, both, padding)
    return max(_apart(alone, padded[:1]), _apart(whole, padded[1:])) <= TOLERANCE


def _stepped(net: Net, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The last logits, all tokens but one from a prefill and the last from a step."""
    _, cache, carry = net.prefill(ids[:, :-1], mask[:, :-1])
    return net.step(ids, mask, cache, carry)[0]


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    spread = (one - one.mean()).norm().clamp_min(1e-12)
    return float((one - other).norm() / spread)
