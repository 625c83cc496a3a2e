"""The model behind an adapter: whether it is named or loaded, and what identifies its answers.

Knows what a model tells about itself and no part of LangChain.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import uuid
import weakref
from typing import Any

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.profile import fingerprint_of

LOADING = threading.RLock()


def is_name(model: Any) -> bool:
    """Whether it names a model for `load` (a hub id or a folder), or is one that answers."""
    if isinstance(model, (str, os.PathLike)):
        return True
    if all(callable(getattr(model, verb, None)) for verb in ("ask", "aask", "stream", "astream")):
        return False
    raise BadRequest(
        f"model={model!r:.100} is not allowed: use a hub id, a folder, or a model that load() gave"
    )


def name_of(model: Any) -> str:
    """The name in response_metadata["model_name"] and in traces."""
    name = getattr(model, "name", None)
    return name if isinstance(name, str) and name else type(model).__name__


def identity(model: Any) -> dict[str, Any]:
    """What decides which answer comes and with which confidence, as far as the model goes."""
    profile = getattr(model, "profile", None)
    digest = None if profile is None else _once(_DIGESTS, profile, _digest)
    verdict = getattr(getattr(model, "verdict", None), "digest", None)
    return {**_once(_IDENTITIES, model, _parts), "profile": digest, "verdict": verdict}


def _parts(model: Any) -> dict[str, Any]:
    if getattr(model, "_loaded", None) is None:  # two tables may carry one name
        return {"model": name_of(model), "instance": uuid.uuid4().hex}
    parts = dict(model.fingerprint_parts)
    kinds = list(parts["weights"].values())
    weights = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    short = {name: parts[name] for name in ("model", "revision", "dtype", "repair")}
    return {**short, "weights": weights, "fingerprint": fingerprint_of(parts)}


def named(function: Any) -> str:
    """A name for a callable that no other one has, in this process or another."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{name}-{_once(_INSTANCES, function, lambda _: uuid.uuid4().hex)}"


def key_of(value: Any) -> Any:
    """What stands for the value of an option in keys and traces: equal ones have equal keys."""
    if callable(getattr(value, "to_dict", None)):
        return f"{type(value).__name__}-{_digits(value)}"
    return named(value) if callable(value) else value


def _digest(profile: Any) -> str:
    """Another calibrator is another profile."""
    return f"{profile.fingerprint}-{_digits(profile)}"


def _digits(saved: Any) -> str:
    """Sixteen digits over all that would be saved."""
    text = json.dumps(saved.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


_Known = dict[int, tuple[Any, Any]]
_IDENTITIES: _Known = {}
_INSTANCES: _Known = {}
_DIGESTS: _Known = {}


def _once(known: _Known, thing: Any, make: Any) -> Any:
    """`make(thing)`, computed once while the object lives; objects need no hash for that."""
    key = id(thing)
    with LOADING:
        found = known.get(key)
        if found is None or found[0]() is not thing:
            forget = weakref.ref(thing, lambda _: known.pop(key, None))
            found = known[key] = (forget, make(thing))
        return found[1]
