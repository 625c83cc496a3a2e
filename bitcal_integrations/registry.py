"""A name is a file: what a folder of one kind holds is what can be named.

`names("signals")` lists the folder; `resolve("signals", "mean_logprob")` imports that file. A file
with a leading underscore is a helper, not a name. The name is checked against the folder before
anything is imported, so that a broken file shows its own error.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

from bitcal_integrations.errors import UnknownName

_ROOT = Path(__file__).parent


def names(kind: str) -> tuple[str, ...]:
    """The names of one kind, sorted.

    >>> "mean_logprob" in names("signals")
    True
    """
    folder = _ROOT / kind
    if not kind.isidentifier() or not (folder / "__init__.py").is_file():
        raise UnknownName(f"there is no kind {kind!r}")
    return tuple(sorted(f.stem for f in folder.glob("*.py") if not f.stem.startswith("_")))


def resolve(kind: str, name: str) -> ModuleType:
    """The module that carries a name."""
    known = names(kind)
    if name not in known:
        raise UnknownName(f"{name!r} is not one of the {kind}: {', '.join(known) or 'none'}")
    return import_module(f"bitcal_integrations.{kind}.{name}")
