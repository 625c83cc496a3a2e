"""A float checkpoint to a model, quantized on the way, one tensor in float at a time.

Each linear layer is frozen as soon as its tensors are there, so that the peak is one file plus
the quantized model. Checkpoints whose tensors transformers has to merge, split or transpose are
loaded by transformers first and quantized afterwards.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize._build import (
    Slot,
    check_keys,
    check_shape,
    empty_model,
    finish,
    release_memory,
    settle_tie,
    slots,
)
from bitcal_integrations.quantize._folder import Folder, Shards
from bitcal_integrations.quantize._plan import Exclude, Weights, assign, quantize_linear
from bitcal_integrations.quantize._repair import Repair
from bitcal_integrations.quantize.data_free import quantize_repaired

logger = logging.getLogger(__name__)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Wanted:
    """What the user wants made of a checkpoint."""

    weights: Weights
    exclude: Exclude
    dtype: torch.dtype
    device: torch.device
    trust_remote_code: bool = False
    progress: Progress | None = None

    def report(self, done: int, total: int, label: str) -> None:
        if self.progress is not None:
            self.progress(done, total, label)


def load_float(
    folder: Folder, config: Any, shards: Shards, wanted: Wanted
) -> tuple[Any, dict[str, str]]:
    """The model and the weight type of each quantized layer."""
    model = empty_model(config, wanted.dtype, wanted.trust_remote_code)
    kinds = assign(model, wanted.weights, wanted.exclude, wanted.dtype)
    route, reason = _route(model, shards, wanted.dtype)
    if route is None:
        logger.info("%s is not loaded shard by shard: %s", folder.source, reason)
        del model
        return _load_whole(folder, shards, wanted)
    _Stream(model, kinds, wanted).run(shards, route)
    finish(model, wanted.device)
    settle_tie(model)
    return model, kinds


def load_repaired(
    folder: Folder, config: Any, shards: Shards, wanted: Wanted, repair: Repair
) -> tuple[Any, dict[str, str], dict[str, Any]]:
    """The same with bettered weights, and the report on them; all of it is in float for a while."""
    model, _ = load_float(folder, config, shards, replace(wanted, weights=None))
    kinds = assign(model, wanted.weights, wanted.exclude, wanted.dtype)
    report = quantize_repaired(model, kinds, repair, wanted.progress)
    settle_tie(model)
    return model, kinds, report


@dataclass
class _Stream:
    """Fills a model tensor by tensor and freezes each layer when it is complete."""

    model: Any
    kinds: dict[str, str]
    wanted: Wanted
    waiting: dict[str, int] = field(default_factory=dict)

    @torch.no_grad()
    def run(self, shards: Shards, route: dict[str, Slot]) -> None:
        for known in {id(s): s for s in route.values()}.values():
            for name in self._layers(known):
                self.waiting[name] = self.waiting.get(name, 0) + 1
        filled: set[int] = set()
        for done, (key, tensor) in enumerate(shards.read(), start=1):
            slot = route.get(key)
            if slot is not None and id(slot) not in filled:
                filled.add(id(slot))
                check_shape(key, tensor, slot.tensor)
                slot.fill(_copy(tensor, slot.tensor.dtype, self.wanted.device))
                self._complete(slot)
            del tensor, slot
            self.wanted.report(done, len(shards), key)

    def _layers(self, slot: Slot) -> list[str]:
        owners = (name.rpartition(".")[0] for name in slot.names)
        return [name for name in owners if name in self.kinds]

    def _complete(self, slot: Slot) -> None:
        for name in self._layers(slot):
            self.waiting[name] -= 1
            if self.waiting[name] == 0:
                quantize_linear(self.model, name, self.kinds[name])
                release_memory()


def _copy(tensor: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Always new memory: the mapped file must not stay alive, nor be aligned by luck."""
    if not tensor.is_floating_point():
        dtype = tensor.dtype
    return tensor.to(device=device, dtype=dtype, copy=True)


def _route(model: Any, shards: Shards, dtype: torch.dtype) -> tuple[dict[str, Slot] | None, str]:
    """Checkpoint name -> where the tensor goes; None with the reason if transformers must do it."""
    if model._get_dtype_plan(dtype):
        return None, "the architecture keeps some layers in float32"
    by_name = {name: slot for slot in slots(model) for name in slot.names}
    try:
        renamed = _renamed(model, shards.names(), set(by_name))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        return None, f"this transformers has other conversion rules ({error})"
    if renamed is None:
        return None, "transformers converts its tensors"
    route = {key: by_name[name] for key, name in renamed.items() if name in by_name}
    if not _ties_hold(shards, route):
        return None, "tied tensors differ in the checkpoint"
    filled = {id(slot) for slot in route.values()}
    missing = {s.names[0] for s in by_name.values() if id(s) not in filled}
    unexpected = set(shards.names()) - set(route)
    check_keys(
        {k for k in missing if not _matches(model._keys_to_ignore_on_load_missing, k)},
        {k for k in unexpected if not _harmless(model, k)},
        repr(str(shards.folder)),
    )
    return route, ""


def _renamed(model: Any, names: list[str], known: set[str]) -> dict[str, str] | None:
    """Checkpoint names in the words of the model; None if tensors change, not only names."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    if not all(isinstance(rule, (WeightRenaming, WeightConverter)) for rule in rules):
        return None
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    prefix, there = model.base_model_prefix, dict.fromkeys(known, True)
    found = {}
    for name in names:
        new, converted = rename_source_key(name, renamings, converters, prefix, there)
        if new not in known and name in known:
            new = name
        elif converted is not None:
            return None
        found[name] = new
    return found if len(set(found.values())) == len(found) else None


def _ties_hold(shards: Shards, route: dict[str, Slot]) -> bool:
    """Whether tensors that the model shares are equal where the checkpoint has them twice."""
    first: dict[int, str] = {}
    for key, slot in route.items():
        earlier = first.setdefault(id(slot), key)
        if earlier != key and not torch.equal(shards.get(earlier), shards.get(key)):
            return False
    return True


def _matches(patterns: Any, key: str) -> bool:
    return any(re.search(pattern, key) for pattern in patterns or ())


def _harmless(model: Any, key: str) -> bool:
    """Tensors of old checkpoints that are computed now, or that the class says it does not use."""
    computed = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")
    return _matches(model._keys_to_ignore_on_load_unexpected, key) or _matches(computed, key)


def _load_whole(folder: Folder, shards: Shards, wanted: Wanted) -> tuple[Any, dict[str, str]]:
    """transformers' own loading, with its report checked, then quantization layer by layer."""
    model = from_pretrained(folder, wanted, shards)
    kinds = assign(model, wanted.weights, wanted.exclude, wanted.dtype)
    model.to(wanted.device).requires_grad_(False)
    for done, (name, kind) in enumerate(kinds.items(), start=1):
        quantize_linear(model, name, kind)
        wanted.report(done, len(kinds), name)
    settle_tie(model)
    return model, kinds


def from_pretrained(folder: Folder, wanted: Wanted, shards: Shards, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder.path),
            dtype=wanted.dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=wanted.trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(f"transformers cannot load {folder.source!r}: {first}") from None
    wrong = {str(k[0] if isinstance(k, tuple) else k) for k in info.get("mismatched_keys") or ()}
    check_keys(
        set(info.get("missing_keys") or ()) | wrong,
        set(info.get("unexpected_keys") or ()),
        repr(str(shards.folder)),
    )
    if info.get("error_msgs"):
        raise LoadError(f"transformers cannot load {folder.source!r}: {info['error_msgs'][0]}")
    return model.eval()
