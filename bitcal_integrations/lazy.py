"""Public names that are imported when they are first used. Knows where each one lives, no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    space: dict[str, Any], home: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of the package whose globals are `space`.

    `home` maps each public name to the module of the package that it is taken from.
    """
    package = space["__name__"]

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home[name]}"), name)
        space[name] = value
        return value

    return find, lambda: sorted({*space, *home})
