"""What a loaded model takes: real bytes, not "4 bits".

Counts stored tensors, each once. Does not count activations, the workspace of kernels, or memory
that the allocator keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from optimum.quanto import QModuleMixin, QTensor
from torch import nn

from bitcal_integrations.quantize._check import cache_bytes_per_token
from bitcal_integrations.quantize._dtype import name_of
from bitcal_integrations.quantize._plan import public_name
from bitcal_integrations.quantize._shim import inner_tensors

if TYPE_CHECKING:
    from bitcal_integrations.quantize.weights import LoadedWeights


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor, or of everything inside a quantized one."""
    if isinstance(tensor, QTensor):
        return sum(tensor_bytes(getattr(o, n)) for o, n in inner_tensors(tensor))
    return tensor.numel() * tensor.element_size()


def memory_report(loaded: LoadedWeights) -> dict[str, Any]:
    """Bytes by part, as plain numbers.

    `linears` and `head` are {type: {bytes, weights, bits_per_weight}}, a tied head is counted as
    embedding; `one_scale_per_row` counts int4 and int2 layers too narrow or odd for groups.
    """
    model = loaded.model
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    seen: set[int] = set()
    report: dict[str, Any] = {
        "embeddings": _count(embedding, seen),
        "head": {},
        "linears": {},
        "one_scale_per_row": 0,
    }
    for module in model.modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in seen:
            part = report["head" if module is head else "linears"]
            report["one_scale_per_row"] += _add(part, module, seen)
    report["other"] = _count(model, seen)
    for part in (report["head"], report["linears"]):
        for entry in part.values():
            entry["bits_per_weight"] = 8 * entry["bytes"] / max(1, entry["weights"])
    by_type = [e["bytes"] for k in ("head", "linears") for e in report[k].values()]
    report["total"] = report["embeddings"] + sum(by_type) + report["other"]
    report["kv_bytes_per_token"] = cache_bytes_per_token(model)
    return report


def _count(module: nn.Module, seen: set[int]) -> int:
    """Bytes of all tensors under a module that were not counted before."""
    total = 0
    for tensor in [*module.parameters(), *module.buffers()]:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            total += tensor_bytes(tensor)
    return total


def _add(part: dict[str, Any], module: nn.Linear, seen: set[int]) -> int:
    """Count one linear layer under its weight type; 1 if it wants groups and has none."""
    weight: Any = module.weight
    quantized = isinstance(weight, QTensor)
    kind = public_name(weight.qtype.name) if quantized else name_of(weight.dtype)
    entry = part.setdefault(kind, {"bytes": 0, "weights": 0, "bits_per_weight": 0.0})
    entry["bytes"] += tensor_bytes(weight)
    entry["weights"] += module.in_features * module.out_features
    seen.add(id(weight))
    grouped = isinstance(module, QModuleMixin) and module.weight_group_size is not None
    return int(kind in ("qint4", "qint2") and not grouped)
