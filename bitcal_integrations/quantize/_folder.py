"""From what the user wrote to a folder on disk, and the reading of its files.

A hub id is fetched into the hub's cache and is a folder from then on. Only JSON, safetensors and
tokenizer files are fetched or read (and .py files, if the user trusts them). Knows nothing about
models.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from bitcal_integrations.errors import LoadError
from bitcal_integrations.tiny.assets import MODEL_NAME, model_folder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
EXPECTED = f"A model folder holds config.json, {SINGLE} (or {INDEX} and its shards), a tokenizer."
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Folder:
    """A model on disk: where it lies, what the user called it, and its commit if it has one."""

    path: Path
    source: str
    revision: str | None = None


def locate(model: str | os.PathLike[str], revision: str | None, with_code: bool) -> Folder:
    """The folder of the built-in model, of a local path, or of a hub id."""
    source = os.fspath(model)
    if source == MODEL_NAME:
        try:
            return Folder(model_folder(), MODEL_NAME)
        except FileNotFoundError as error:
            raise LoadError(f"the built-in model is not there: {error}") from None
    if not source.strip():
        raise LoadError("the name of the model is empty", EXPECTED)
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise LoadError(
                f"revision={revision!r} belongs to a hub id, and {source!r} is a folder"
            )
        return Folder(path.resolve(), source)
    if path.exists():
        raise LoadError(f"{source!r} is a file, not a model folder", EXPECTED)
    if isinstance(model, os.PathLike) or not _HUB_ID.fullmatch(source) or source[0] in ".~":
        raise LoadError(f"the folder {source!r} does not exist", EXPECTED)
    return _fetch(source, revision, with_code)


def _fetch(name: str, revision: str | None, with_code: bool) -> Folder:
    """The hub's snapshot: first the small files, then the weight files that the index names."""
    from huggingface_hub import snapshot_download

    small = [*_SMALL_FILES, *(["*.py"] if with_code else [])]
    try:
        path = Path(snapshot_download(name, revision=revision, allow_patterns=small))
        commit = path.name if path.parent.name == "snapshots" else revision
        heavy = sorted(set(_index(path).values())) if (path / INDEX).exists() else [SINGLE]
        snapshot_download(name, revision=commit, allow_patterns=heavy)
    except LoadError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise LoadError(
            f"{name!r} is not a folder here and could not be fetched from the hub: {first}",
            "Check the name and the network, or give a local folder.",
        ) from None
    return Folder(path, name, commit)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise LoadError(f"there is no {path.name} in {str(path.parent)!r}", EXPECTED) from None
    except (OSError, ValueError) as error:
        raise LoadError(f"{str(path)!r} is not readable JSON: {error}") from None
    if not isinstance(data, dict):
        raise LoadError(f"{str(path)!r} holds no JSON object")
    return data


def _index(folder: Path) -> dict[str, str]:
    """Tensor name -> file name."""
    found = read_json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise LoadError(f"{str(folder / INDEX)!r} has no weight_map")
    for name in found.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise LoadError(
                f"{str(folder / INDEX)!r} names {name!r}, which is not a file beside it"
            )
    return found


class Shards:
    """The tensors of some safetensors files, read one at a time.

    A tensor that `read` gives lies in the mapped file: copy what is to stay.
    """

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder = folder
        self.files: dict[str, list[str]] = {}
        self._file_of: dict[str, str] = {}
        for file in files:
            if not (folder / file).is_file():
                raise LoadError(f"the weight file {file!r} is missing in {str(folder)!r}", EXPECTED)
            with self._open(file) as opened:
                self.files[file] = list(opened.keys())
            self._file_of.update(dict.fromkeys(self.files[file], file))

    @classmethod
    def of_model(cls, folder: Path) -> Shards:
        """The weights of a folder in the layout of transformers."""
        if (folder / INDEX).exists():
            index = _index(folder)
            shards = cls(folder, sorted(set(index.values())))
            absent = sorted(k for k in index if k not in shards)
            if absent:
                raise LoadError(f"{INDEX} in {str(folder)!r} names {absent[0]!r}: no file holds it")
            return shards
        if (folder / SINGLE).exists():
            return cls(folder, [SINGLE])
        others = sorted(p.name for p in folder.glob("*.bin"))
        if others:
            raise LoadError(
                f"{str(folder)!r} holds its weights as {others[0]!r}, a pickle that can run code",
                "Only safetensors are read: convert it with save_pretrained.",
            )
        raise LoadError(f"there are no weights in {str(folder)!r}", EXPECTED)

    def __contains__(self, name: object) -> bool:
        return name in self._file_of

    def __len__(self) -> int:
        return len(self._file_of)

    def names(self) -> list[str]:
        return list(self._file_of)

    def read(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Every tensor, file by file; a file is unmapped before the next is opened."""
        for file, names in self.files.items():
            with self._open(file) as opened:
                for name in names:
                    yield name, self._tensor(opened, file, name)

    def types(self) -> Iterator[str]:
        """The safetensors type of every tensor, such as "BF16"."""
        for file, names in self.files.items():
            with self._open(file) as opened:
                yield from (opened.get_slice(name).get_dtype() for name in names)

    def get(self, name: str) -> torch.Tensor:
        with self._open(self._file_of[name]) as opened:
            return self._tensor(opened, self._file_of[name], name).clone()

    def _tensor(self, opened: Any, file: str, name: str) -> torch.Tensor:
        try:
            return opened.get_tensor(name)
        except Exception as error:
            raise LoadError(
                f"the tensor {name!r} in {str(self.folder / file)!r} cannot be read: {error}"
            ) from None

    def headers(self) -> Iterator[tuple[str, str, list[int], bytes]]:
        """Name, dtype, shape and first bytes of every tensor."""
        for file, names in self.files.items():
            with self._open(file) as opened:
                for name in names:
                    part = opened.get_slice(name)
                    shape = part.get_shape()
                    first = part[:1].flatten()[:32] if shape and all(shape) else torch.empty(0)
                    raw = first.contiguous().view(torch.uint8).numpy().tobytes()
                    yield name, part.get_dtype(), shape, raw

    def _open(self, file: str) -> Any:
        try:
            return safe_open(self.folder / file, framework="pt", device="cpu")
        except Exception as error:
            raise LoadError(
                f"the weight file {str(self.folder / file)!r} cannot be read, "
                f"it may be truncated: {error}"
            ) from None
