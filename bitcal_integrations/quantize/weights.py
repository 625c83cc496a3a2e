"""From a name, a folder or a model object to weights that can be served, and back to a folder.

`load_weights` quantizes while it reads, checks that every tensor is there, and runs one small
forward; what it returns is in eval mode and is never copied. `save_weights` writes safetensors and
JSON that load bit for bit. Knows nothing about prompts, decoding or confidence.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitcal_integrations.errors import BitcalError, LoadError, SaveError
from bitcal_integrations.quantize import _identity, _store, _wrap
from bitcal_integrations.quantize._build import release_memory, settle_tie
from bitcal_integrations.quantize._check import device_of, smoke_forward, vocabulary
from bitcal_integrations.quantize._dtype import check_dtype, name_of, pick_device, pick_dtype
from bitcal_integrations.quantize._folder import Folder, Shards, locate
from bitcal_integrations.quantize._loaded import LoadedWeights
from bitcal_integrations.quantize._plan import (
    TYPES,
    Exclude,
    Weights,
    check_weights,
    quantize_linears,
)
from bitcal_integrations.quantize._pretrained import (
    load_config,
    load_generation_config,
    load_tokenizer,
    refuse_quanto_keys,
    stored_dtype,
)
from bitcal_integrations.quantize._repair import (
    Repair,
    already_quantized,
    check_repair,
    needs_type,
)
from bitcal_integrations.quantize._shards import (
    Wanted,
    from_pretrained,
    load_float,
    load_repaired,
)
from bitcal_integrations.quantize._shim import align
from bitcal_integrations.quantize.data_free import quantize_repaired
from bitcal_integrations.quantize.memory import memory_report

__all__ = ["TYPES", "LoadedWeights", "load_weights", "memory_report", "save_weights"]

logger = logging.getLogger(__name__)


def load_weights(
    model: Any,
    *,
    weights: Weights = "auto",
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    revision: str | None = None,
    tokenizer: Any = None,
    exclude: Exclude = "*lm_head",
    trust_remote_code: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    repair: str | Repair | None = None,
) -> LoadedWeights:
    """Load a hub id, a folder, a folder we saved, or a model object.

    `weights` is "auto" (as stored), None, a type, or a plan {pattern: type or None} in which later
    patterns win, so the general one comes first; layers that match `exclude` stay float in any
    case. A plain model object is quantized in place if a type is given. While reading,
    `progress(done, total, label)` is called. `repair="data-free"` betters low-bit weights while it
    quantizes; it needs all of the model in float for a while.
    """
    try:
        weights = check_weights(weights)
        mended = check_repair(repair)
        if not isinstance(trust_remote_code, bool):
            raise LoadError(f"trust_remote_code={trust_remote_code!r} must be True or False")
        if progress is not None and not callable(progress):
            raise LoadError(f"progress={progress!r} must be a callable(done, total, label)")
        if isinstance(model, (str, os.PathLike)):
            folder = locate(model, revision, trust_remote_code)
            where = pick_device(device)
            wanted = Wanted(weights, exclude, torch.float32, where, trust_remote_code, progress)
            return _load_folder(folder, wanted, dtype, tokenizer, mended)
        wanted = Wanted(weights, exclude, torch.float32, torch.device("cpu"), False, progress)
        return _load_object(model, wanted, dtype, device, tokenizer, mended)
    except BitcalError as error:
        # its traceback and its causes hold the frames, and with them the half-loaded model
        logger.debug("loading %r failed", type(model).__name__, exc_info=True)
        failure: BitcalError = error
        failure.__cause__ = failure.__context__ = None
    except (MemoryError, torch.OutOfMemoryError) as error:
        first = (str(error).splitlines() or ["out of memory"])[0]
        failure = LoadError(
            f"there is not enough memory to load the model: {first}",
            "Use fewer bits (weights='qint4'), a smaller model, or device='cpu'.",
        )
    gc.collect()
    raise failure.with_traceback(None)


def _load_folder(
    folder: Folder,
    wanted: Wanted,
    dtype: str | torch.dtype,
    tokenizer: Any,
    repair: Repair | None,
) -> LoadedWeights:
    config = load_config(folder, wanted.trust_remote_code)
    chosen = tokenizer if tokenizer is not None else folder.path
    words = load_tokenizer(chosen, wanted.trust_remote_code)
    if (folder.path / _store.MANIFEST).exists() or (folder.path / _store.QUANTO_MAP).exists():
        return _load_stored(folder, config, words, wanted, dtype, repair)
    shards = Shards.of_model(folder.path)
    refuse_quanto_keys(folder, shards)
    stored = stored_dtype(config, shards)
    if getattr(config, "quantization_config", None) is not None:
        if repair is not None:
            raise already_quantized(repair, f"{folder.source!r} is")
        return _load_prequantized(folder, shards, words, wanted, dtype)
    own, reason = pick_dtype(dtype, wanted.device, stored)
    wanted, report = replace(wanted, dtype=own), None
    if repair is None:
        model, kinds = load_float(folder, config, shards, wanted)
    else:
        needs_type(repair, wanted.weights)
        model, kinds, report = load_repaired(folder, config, shards, wanted, repair)
    load_generation_config(model, folder)
    identity, commit = _identity.folder_identity(folder, shards)
    mended = None if repair is None else repair.parts()
    parts = _identity.parts(identity, commit, kinds, name_of(own), repair=mended)
    return _serve(model, words, folder.source, folder.revision, kinds, reason, parts, report)


def _load_stored(
    folder: Folder,
    config: Any,
    words: Any,
    wanted: Wanted,
    dtype: str | torch.dtype,
    repair: Repair | None,
) -> LoadedWeights:
    """A folder that we, or quanto, wrote: types and dtype are as stored, or it is an error."""
    ours = (folder.path / _store.MANIFEST).exists()
    parts = None
    if ours:
        manifest = _store.read_manifest(folder.path)
        kinds, parts, stored = manifest["weights"], manifest["parts"], manifest["dtype"]
        shards = Shards(folder.path, manifest["files"])
    else:
        kinds = _store.read_quanto_map(folder.path)
        shards = Shards.of_model(folder.path)
        stored = stored_dtype(config, shards)
    if repair is not None and (parts or {}).get("repair") != repair.parts():
        raise already_quantized(repair, f"{folder.source!r} is")
    asked, own = check_dtype(dtype), check_dtype(stored)
    if own is None or (asked is not None and asked != own):
        raise LoadError(
            f"dtype={name_of(asked) if asked else stored!r} was asked for and {folder.source!r} is "
            f"stored in {stored}",
            "The dtype cannot change after quantization: quantize again from the original.",
        )
    model = _store.load_quantized(config, shards, kinds, replace(wanted, dtype=own))
    load_generation_config(model, folder)
    if parts is None:
        identity, commit = _identity.folder_identity(folder, shards)
        parts = _identity.parts(identity, commit, kinds, stored)
    reason = f"{stored} is stored in the folder"
    return _serve(model, words, folder.source, folder.revision, kinds, reason, parts)


def _load_prequantized(
    folder: Folder, shards: Shards, words: Any, wanted: Wanted, dtype: str | torch.dtype
) -> LoadedWeights:
    """A checkpoint quantized by another library: transformers loads it, and it is wrapped."""
    chosen, reason = pick_dtype(dtype, wanted.device, None)
    if wanted.weights != "auto":
        raise LoadError(
            f"weights={wanted.weights!r} was asked for and {folder.source!r} is already quantized",
            "Use weights='auto', or start from the unquantized original.",
        )
    model = from_pretrained(
        folder, replace(wanted, dtype=chosen), shards, device_map={"": str(wanted.device)}
    )
    kinds, own = _wrap.wrap(model, "auto", None, "auto", "auto")
    identity, commit = _identity.folder_identity(folder, shards)
    parts = _identity.parts(identity, commit, kinds, name_of(own), _wrap.quantization_of(model))
    return _serve(model, words, folder.source, folder.revision, kinds, reason, parts)


def _load_object(
    model: Any,
    wanted: Wanted,
    dtype: str | torch.dtype,
    device: str | torch.device,
    tokenizer: Any,
    repair: Repair | None,
) -> LoadedWeights:
    source = type(model).__name__
    model = _wrap.unwrap(model)
    if tokenizer is None:
        raise LoadError(
            f"a model object ({source}) needs its tokenizer",
            "Pass tokenizer=, an object or a name.",
        )
    words = load_tokenizer(tokenizer, False)
    # the identity is that of the weights as they came; what was made of them is in the other parts
    identity = _identity.object_identity(model)
    report: dict[str, Any] = {}

    def quantize(found: Any, kinds: dict[str, str]) -> None:
        if repair is None:
            quantize_linears(found, kinds)
        else:
            report.update(quantize_repaired(found, kinds, repair, wanted.progress))

    if repair is not None:
        by = _wrap.quantized_by(model)
        if by is not None:
            raise already_quantized(repair, f"the model ({by}) is")
        needs_type(repair, wanted.weights)
    kinds, own = _wrap.wrap(model, wanted.weights, wanted.exclude, dtype, device, quantize)
    held = (_wrap.quantization_of(model), _wrap.adapters_of(model))
    mended = None if repair is None else repair.parts()
    parts = _identity.parts(identity, None, kinds, name_of(own), *held, repair=mended)
    reason = f"{name_of(own)} is the dtype of the model that was passed"
    return _serve(model, words, source, None, kinds, reason, parts, report or None)


def _serve(
    model: Any,
    tokenizer: Any,
    source: str,
    revision: str | None,
    kinds: dict[str, str],
    reason: str,
    parts: dict[str, Any],
    repaired: dict[str, Any] | None = None,
) -> LoadedWeights:
    """The last checks; after them the model may answer."""
    align(model)
    smoke_forward(model)
    release_memory()
    size = vocabulary(model)
    if hasattr(tokenizer, "__len__") and len(tokenizer) > size:
        logger.warning("the tokenizer knows %d tokens, the model %d", len(tokenizer), size)
    return LoadedWeights(
        model=model,
        tokenizer=tokenizer,
        source=source,
        revision=revision,
        weights=kinds,
        dtype=parts["dtype"],
        dtype_reason=reason,
        device=str(device_of(model)),
        parts=parts,
        repaired=repaired,
    )


def save_weights(loaded: LoadedWeights, folder: str | os.PathLike[str]) -> None:
    """Write a folder that `load_weights` reads bit for bit; it is complete or not there at all."""
    if not isinstance(folder, (str, os.PathLike)) or "\0" in str(folder):
        raise SaveError(f"{folder!r} is not the name of a folder")
    target = Path(folder).expanduser().absolute()
    problem = _wrap.check_saveable(loaded.model)
    if problem:
        raise SaveError(f"{type(loaded.model).__name__} cannot be saved here: {problem}")
    settle_tie(loaded.model)

    def fill(made: Path) -> None:
        _store.write_config(loaded.model, made)
        loaded.tokenizer.save_pretrained(made)
        files = _store.save_model(loaded.model, made)
        _store.write_manifest(
            made,
            weights=loaded.weights,
            dtype=loaded.dtype,
            files=files,
            source=loaded.source,
            revision=loaded.revision,
            parts=loaded.parts,
        )

    _store.write_folder(target, fill)
