"""What lies around the weights in a model folder: config, tokenizer, generation defaults.

All of it is read by transformers from disk; code that a folder brings runs only if the user trusts
it. Knows nothing about tensors, except the type that the first one is stored in.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bitcal_integrations.errors import LoadError
from bitcal_integrations.quantize._folder import Folder, Shards, read_json

_HEADER_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_config(folder: Folder, trust_remote_code: bool) -> Any:
    """The config of a causal language model; an error where it needs code that is not trusted."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    raw = read_json(folder.path / "config.json")
    kind = raw.get("model_type")
    # many folders carry both: their own code, and an architecture that transformers knows
    own_code = "auto_map" in raw and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if own_code and not trust_remote_code:
        raise LoadError(
            f"{folder.source!r} (model_type {kind!r}) runs its own Python code",
            "Read that code, then load it with trust_remote_code=True.",
        )
    try:
        return AutoConfig.from_pretrained(
            str(folder.path), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:
        raise LoadError(
            f"the config of {folder.source!r} (model_type {kind!r}) cannot be used: "
            f"{_first_line(error)}"
        ) from None


def load_tokenizer(tokenizer: Any, trust_remote_code: bool) -> Any:
    """The tokenizer itself, or that of a folder or hub id."""
    if not isinstance(tokenizer, (str, os.PathLike)):
        if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
            raise LoadError(f"tokenizer={type(tokenizer).__name__} is not a tokenizer")
        return tokenizer
    from transformers import AutoTokenizer

    place = os.fspath(tokenizer)
    local = Path(place).expanduser()
    try:
        return AutoTokenizer.from_pretrained(
            str(local) if local.is_dir() else place,
            local_files_only=local.is_dir(),
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:
        raise LoadError(
            f"no tokenizer can be loaded from {place!r}: {_first_line(error)}",
            "Pass tokenizer=, an object or a name.",
        ) from None


def load_generation_config(model: Any, folder: Folder) -> None:
    """Take the folder's generation defaults (its end tokens above all), if it has them."""
    if not (folder.path / "generation_config.json").exists():
        return
    from transformers import GenerationConfig

    read_json(folder.path / "generation_config.json")
    model.generation_config = GenerationConfig.from_pretrained(
        str(folder.path), local_files_only=True
    )


def stored_dtype(config: Any, shards: Shards) -> str | None:
    """The float type of a checkpoint: of its first float tensor, else of its config."""
    for kind in shards.types():
        if kind in _HEADER_TYPES:
            return _HEADER_TYPES[kind]
    dtype = getattr(config, "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def refuse_quanto_keys(folder: Folder, shards: Shards) -> None:
    """Quantized tensors without the map of their types would be replaced by random numbers."""
    found = [name for name in shards.names() if name.endswith((".weight._data", "._data._data"))]
    if found:
        raise LoadError(
            f"{folder.source!r} holds quanto tensors ({found[0]!r}) and no map of their types",
            "Save the model with save_weights(folder), or with quanto's QuantizedModelForCausalLM.",
        )
