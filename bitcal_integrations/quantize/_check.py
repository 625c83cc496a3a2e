"""One small forward before a model is served: two rows of tokens, then one decode step.

It runs the kernels that serving will run and refuses NaN and infinity. Finite logits of a model
that was trained on something else pass: this is no quality check.
"""

from __future__ import annotations

from typing import Any

import torch

from bitcal_integrations.compat import cache_name
from bitcal_integrations.errors import LoadError

ROWS, TOKENS = 2, 6


def vocabulary(model: Any) -> int:
    """How many rows the input embedding has."""
    return int(model.get_input_embeddings().weight.shape[0])


def device_of(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    return device


@torch.no_grad()
def smoke_forward(model: Any) -> Any:
    """The cache after the forward; None for a model without one."""
    try:
        ids = torch.arange(1, ROWS * TOKENS + 1, device=device_of(model)) % vocabulary(model)
        ids = ids.reshape(ROWS, TOKENS)
        mask = torch.ones_like(ids)
        if getattr(model.config, "is_encoder_decoder", False):
            out = model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :1])
            _check_finite(model, out.logits, "the first forward")
            return None
        out = model(input_ids=ids, attention_mask=mask, use_cache=True)
        _check_finite(model, out.logits, "the first forward")
        name = cache_name(model)
        if out.get(name) is None:
            return None
        mask = torch.cat([mask, mask[:, :1]], dim=1)
        held = {name: out.get(name)}
        out = model(input_ids=ids[:, :1], attention_mask=mask, use_cache=True, **held)
        _check_finite(model, out.logits, "the first decode step")
        return out.get(name)
    except LoadError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(f"{type(model).__name__} fails in its first forward: {first}") from None


def _check_finite(model: Any, logits: torch.Tensor, when: str) -> None:
    if not bool(torch.isfinite(logits).all()):
        bad = int((~torch.isfinite(logits)).sum())
        raise LoadError(
            f"{type(model).__name__} gives {bad} NaN or infinite logits in {when}",
            "The weights are damaged or overflow in this dtype; try dtype='float32'.",
        )


def cache_bytes_per_token(model: Any) -> int:
    """Bytes that one token of one row adds to the cache, measured; 0 without such a cache."""
    layers = getattr(smoke_forward(model), "layers", None) or []
    total = 0
    for layer in layers:
        for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 4 and tensor.shape[2]:
                total += (
                    tensor.numel() * tensor.element_size() // (tensor.shape[0] * tensor.shape[2])
                )
    return total
