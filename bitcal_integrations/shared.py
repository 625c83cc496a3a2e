"""Models loaded by name: once per process for equal arguments, for as long as somebody holds them.

The registry has weak references only, so that the last holder that is dropped frees the weights.
Knows `load`; what asks for a model is not its business.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitcal_integrations.model import CalibratedModel, load

_MODELS: weakref.WeakValueDictionary[Any, CalibratedModel] = weakref.WeakValueDictionary()
_LOADING = threading.RLock()


def shared_model(source: Any, arguments: Mapping[str, Any]) -> CalibratedModel:
    """The model that `load(source, **arguments)` gives; equal plain arguments share one.

    A folder whose files have changed since, a forked process, and arguments that are objects
    (a tokenizer, a Profile) get a model of their own, and so does whoever comes after a close.
    """
    key = _key(source, arguments)
    if key is None:
        return load(source, **arguments)
    with _LOADING:
        model = _MODELS.get(key)
        if model is None or model.closed:
            model = _MODELS[key] = load(source, **arguments)
        return model


class Holder:
    """What the copies of an object have in common: one model, loaded when the first asks for it."""

    def __init__(self, source: Any, arguments: Mapping[str, Any]) -> None:
        self.wanted = (source, dict(arguments))
        self._model: CalibratedModel | None = None

    def __deepcopy__(self, memo: Any) -> Holder:
        return self  # the weights exist once

    @property
    def closed(self) -> bool:
        return self._model is not None and self._model.closed

    def get(self) -> CalibratedModel:
        """The model; loaded now if nobody has asked for it."""
        with _LOADING:
            if self._model is None:
                self._model = shared_model(*self.wanted)
            return self._model


_HOLDERS: weakref.WeakValueDictionary[Any, Holder] = weakref.WeakValueDictionary()


def holder_of(source: Any, arguments: Mapping[str, Any]) -> Holder:
    """The holder for this model; equal plain arguments share one, as in `shared_model`."""
    key = _key(source, arguments)
    if key is None:
        return Holder(source, arguments)
    with _LOADING:
        holder = _HOLDERS.get(key)
        if holder is None or holder.closed:
            holder = _HOLDERS[key] = Holder(source, arguments)
        return holder


def _key(source: Any, arguments: Mapping[str, Any]) -> Any:
    """What equal calls have in common; None where that cannot be told."""
    values = [(name, _plain(value)) for name, value in sorted(arguments.items())]
    named = isinstance(source, (str, os.PathLike))
    if not named or any(value is NotImplemented for _, value in values):
        return None
    files = [source, arguments.get("profile")]
    return os.getpid(), os.fspath(source), tuple(values), tuple(map(_stamp, files))


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int, float, type(None))):
        return type(value).__name__, value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)):
        parts = [_plain(part) for part in value]
    elif isinstance(value, Mapping):  # in a plan later patterns win: the order counts
        parts = [_plain(part) for pair in value.items() for part in pair]
    else:
        return NotImplemented
    return NotImplemented if NotImplemented in parts else (type(value).__name__, *parts)


def _stamp(path: Any) -> Any:
    """Where a file or folder lies and when it was last written; None if there is none."""
    if not isinstance(path, (str, os.PathLike)) or not Path(path).exists():
        return None
    root = Path(path).resolve()
    files = [root, *root.iterdir()] if root.is_dir() else [root]
    return str(root), max(file.stat().st_mtime_ns for file in files if file.exists())
