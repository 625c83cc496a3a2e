"""What a fingerprint hashes of a model: contents, never paths or times.

The same folder copied elsewhere gives the same value; a changed weight file almost surely another,
because every tensor's name, type, shape and first values enter. Does not read whole files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from optimum.quanto import QTensor
from torch import nn

from bitcal_integrations.quantize._folder import Folder, Shards, read_json

# Keys that change when a model is loaded or saved again, without changing what it computes.
_VOLATILE = {"_name_or_path", "name_or_path", "transformers_version", "_commit_hash"}
_SAMPLED = 32  # values per tensor


def _digest(config: Mapping[str, Any], tensors: Iterable[tuple[Any, ...]]) -> str:
    h = hashlib.sha256()
    kept = {k: v for k, v in config.items() if k not in _VOLATILE}
    h.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for item in sorted(tensors, key=lambda item: str(item[0])):
        h.update(repr(item).encode())
    return f"sha256:{h.hexdigest()[:32]}"


def folder_identity(folder: Folder, shards: Shards) -> tuple[str, str | None]:
    """(model, revision): id and commit for the hub, a content hash for a folder."""
    if folder.revision is not None:
        return folder.source, folder.revision
    return _digest(read_json(folder.path / "config.json"), shards.headers()), None


def object_identity(model: nn.Module) -> str:
    """A content hash of a model in memory: its config and a sample of its float parameters."""
    config = model.config.to_dict()  # type: ignore[operator, union-attr]
    return _digest(config, ((name, *_sample(p)) for name, p in _plain(model)))


def _plain(model: nn.Module) -> Iterable[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        # packed bytes depend on the machine's kernels
        if not isinstance(parameter, QTensor) and parameter.device.type != "meta":
            yield name, parameter


def _sample(tensor: torch.Tensor) -> tuple[tuple[int, ...], list[float]]:
    flat = tensor.detach().flatten()
    step = max(1, flat.numel() // _SAMPLED)
    return tuple(tensor.shape), flat[::step][:_SAMPLED].to(torch.float32).tolist()


def parts(
    model: str,
    revision: str | None,
    weights: Mapping[str, str],
    dtype: str,
    quantization_config: Any = None,
    adapters: Any = None,
    repair: Any = None,
) -> dict[str, Any]:
    """The parts by name; plain JSON values, so that they can be stored and compared."""
    values = {
        "model": model,
        "revision": revision,
        "weights": dict(sorted(weights.items())),
        "repair": repair,
        "dtype": dtype,
        "quantization_config": quantization_config,
        "adapters": adapters,
    }
    plain: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True, default=str))
    return plain
