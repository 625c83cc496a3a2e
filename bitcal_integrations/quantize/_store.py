"""A quantized model as a folder of our own, and back, bit for bit.

Tensors keep the names they have in the model (transformers would rename some when saving), tied
ones are stored once. The files are not called model.safetensors, so that transformers refuses the
folder instead of filling a model with random numbers. A folder written by quanto is read too.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from optimum.quanto import QModuleMixin
from optimum.quanto.tensor.weights.tinygemm import TinyGemmWeightQBitsTensor
from safetensors.torch import save_file
from torch import nn

from bitcal_integrations.errors import LoadError, SaveError
from bitcal_integrations.quantize._build import (
    check_keys,
    check_shape,
    empty_model,
    finish,
    release_memory,
    slots,
)
from bitcal_integrations.quantize._folder import Shards, read_json
from bitcal_integrations.quantize._plan import TYPES, assign, public_name, swap_linear
from bitcal_integrations.quantize._shards import Wanted
from bitcal_integrations.quantize._shim import exact_shift

MANIFEST = "bitcal_weights.json"
QUANTO_MAP = "quanto_qmap.json"
FORMAT = 1
SHARD_BYTES = 2 * 1024**3
_PACKAGES = ("bitcal-integrations", "torch", "transformers", "optimum-quanto", "safetensors")
_BYTE_KEYS = ("weight._data", "weight._scale")
_BIT_KEYS = ("weight._data._data", "weight._scale", "weight._shift")


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What model.state_dict() holds, each tensor once, made one module at a time."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = dict(module._parameters) | dict(module._buffers)
        repeated = {k for k, t in own.items() if t is not None and id(t) in seen}
        seen.update(id(t) for t in own.values() if t is not None)
        found: dict[str, torch.Tensor] = {}
        module._save_to_state_dict(found, "", False)
        weight = own.get("weight")
        if isinstance(weight, TinyGemmWeightQBitsTensor):
            found["weight._shift"] = exact_shift(weight, found["weight._shift"])
        for key, tensor in found.items():
            if key not in repeated and tensor is not None:
                yield (f"{name}.{key}" if name else key), tensor


def save_model(model: nn.Module, folder: Path, shard_bytes: int = SHARD_BYTES) -> list[str]:
    """Write all tensors; the names of the files."""
    files: list[str] = []
    batch: dict[str, torch.Tensor] = {}
    size = 0

    def flush() -> None:
        files.append(f"bitcal-{len(files) + 1:05d}.safetensors")
        save_file(batch, folder / files[-1], metadata={"format": "pt"})
        batch.clear()

    for key, tensor in stored_tensors(model):
        nbytes = tensor.numel() * tensor.element_size()
        if batch and size + nbytes > shard_bytes:
            flush()
            size = 0
        batch[key] = tensor.detach().cpu().contiguous()
        size += nbytes
    flush()
    return files


def check_target(target: Path) -> None:
    """Refuse a place where something stands that is not ours to replace."""
    if target.exists() and not _replaceable(target):
        raise SaveError(
            f"{str(target)!r} is not empty and was not written by this package",
            "Choose another folder, or remove it first.",
        )


def write_folder(target: Path, fill: Any) -> None:
    """Let `fill(folder)` write into a sibling that takes the target's place when it is complete."""
    check_target(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise SaveError(f"cannot write beside {str(target)!r}: {error}") from None
    made, old = work / "new", work / "old"
    try:
        made.mkdir()
        fill(made)
        _keep_users_files(target, made)
        if target.exists():
            os.replace(target, old)
        os.replace(made, target)
    except OSError as error:
        raise SaveError(f"cannot write {str(target)!r}: {error}") from None
    finally:  # also after Ctrl-C: one of the two is always there
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(work, ignore_errors=True)


def _keep_users_files(target: Path, made: Path) -> None:
    """Copy what somebody else put into a folder of ours."""
    if not (target / MANIFEST).is_file():
        return
    ours = {MANIFEST, *read_manifest(target)["contents"]}
    for item in target.iterdir():
        if item.name in ours:
            continue
        copy = shutil.copytree if item.is_dir() else shutil.copy2
        copy(item, made / item.name)


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / MANIFEST).is_file() or not any(folder.iterdir()))


def write_config(model: Any, folder: Path) -> None:
    """config.json and the generation defaults, without the mark of a quantizer of transformers."""
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=_plain), "utf-8")
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        (folder / "generation_config.json").write_text(generation.to_json_string(), "utf-8")


def _plain(value: Any) -> str:
    return str(value).removeprefix("torch.")


def write_manifest(folder: Path, **content: Any) -> None:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except Exception:
            continue
    contents = sorted(item.name for item in folder.iterdir())
    data = {"format": FORMAT, **content, "contents": contents, "versions": versions}
    (folder / MANIFEST).write_text(json.dumps(data, indent=1, sort_keys=True), "utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The checked content of our manifest."""
    data = read_json(folder / MANIFEST)
    if data.get("format") != FORMAT:
        raise LoadError(
            f"{str(folder)!r} has format {data.get('format')!r}, this version reads {FORMAT}",
            "Update bitcal-integrations, or save the model again.",
        )
    lists, texts = ("files", "contents"), ("dtype", "source")
    kinds = {
        "weights": dict,
        "parts": dict,
        **dict.fromkeys(lists, list),
        **dict.fromkeys(texts, str),
    }
    for key, kind in kinds.items():
        if not isinstance(data.get(key), kind):
            raise LoadError(f"{str(folder / MANIFEST)!r} has no valid {key!r}")
    wrong = [k for k in data["weights"].values() if k not in TYPES]
    if wrong:
        raise LoadError(f"{str(folder / MANIFEST)!r} names the weight type {wrong[0]!r}")
    if any(not isinstance(f, str) or Path(f).name != f for f in data["files"]):
        raise LoadError(f"{str(folder / MANIFEST)!r} names a file outside its folder")
    return data


def read_quanto_map(folder: Path) -> dict[str, str]:
    """The weight types of a folder written by quanto."""
    kinds = {}
    for name, entry in read_json(folder / QUANTO_MAP).items():
        if not isinstance(entry, dict) or entry.get("activations") != "none":
            raise LoadError(
                f"{name!r} in {str(folder)!r} has quantized activations, which do not survive a "
                "reload in quanto",
                "Quantize the weights only.",
            )
        kinds[name] = public_name(str(entry.get("weights")))
        if kinds[name] not in TYPES:
            raise LoadError(f"{name!r} in {str(folder)!r} has the weight type {kinds[name]!r}")
    return kinds


@torch.no_grad()
def load_quantized(config: Any, shards: Shards, kinds: dict[str, str], wanted: Wanted) -> Any:
    """The model of a folder that holds quantized tensors under the model's own names."""
    model = empty_model(config, wanted.dtype, wanted.trust_remote_code)
    if wanted.weights != "auto":
        _refuse_other(assign(model, wanted.weights, wanted.exclude, wanted.dtype), kinds, wanted)
    linears = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    check_keys(set(kinds) - linears, set(), f"{str(shards.folder)!r}, as layers")
    layers = {name: swap_linear(model, name, kind) for name, kind in kinds.items()}
    plain = {slot.names[0]: slot for slot in slots(model)}
    packed = {f"{n}.{key}": n for n, layer in layers.items() for key in _keys(layer)}
    expected, there = set(plain) | set(packed), set(shards.names())
    check_keys(expected - there, there - expected, repr(str(shards.folder)))
    waiting: dict[str, dict[str, torch.Tensor]] = {name: {} for name in layers}
    for done, (key, tensor) in enumerate(shards.read(), start=1):
        # new memory: a mapped tensor may start anywhere, and the int8 kernel crashes on it
        tensor = tensor.to(device=wanted.device, copy=True)
        if key in plain:
            check_shape(key, tensor, plain[key].tensor)
            plain[key].fill(tensor)
        else:
            name = packed[key]
            waiting[name][key.removeprefix(f"{name}.")] = tensor
            if len(waiting[name]) == len(_keys(layers[name])):
                _assemble(name, layers[name], waiting.pop(name))
                release_memory()
        wanted.report(done, len(shards), key)
    finish(model, wanted.device)
    return model


def _refuse_other(asked: dict[str, str], kinds: dict[str, str], wanted: Wanted) -> None:
    """A stored folder is not quantized again: what was asked must be what is there."""
    if asked != kinds:
        there = ", ".join(sorted(set(kinds.values()))) or "no quantized layer"
        differ = sorted(n for n in asked.keys() | kinds.keys() if asked.get(n) != kinds.get(n))
        raise LoadError(
            f"weights={wanted.weights!r} was asked for and the folder holds {there}, "
            f"{differ[0]!r} for one as {kinds.get(differ[0])}",
            "Use weights='auto', or start from the unquantized original.",
        )


def _keys(layer: Any) -> tuple[str, ...]:
    return _BYTE_KEYS if layer.weight_qtype.bits == 8 else _BIT_KEYS


def _assemble(name: str, layer: QModuleMixin, tensors: dict[str, torch.Tensor]) -> None:
    """Make the quantized weight of a layer from its stored tensors."""
    if "weight._data" in tensors:
        check_shape(f"{name}.weight._data", tensors["weight._data"], layer.weight)
    try:
        layer.load_state_dict(tensors, assign=True, strict=False)
    except Exception as error:
        raise LoadError(f"the weight of {name!r} cannot be put together: {error}") from None
    layer.requires_grad_(False)
