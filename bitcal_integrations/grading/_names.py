"""What a function is called in a file, and what stands in for one that a file cannot hold."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import CellType, CodeType
from typing import Any

from bitcal_integrations.errors import ProfileError


@dataclass(frozen=True)
class Absent:
    """A user's function of which only the name is known, as in a profile read from its file."""

    role: str  # parser or grader
    name: str

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise ProfileError(
            f"this profile needs {self.role}=<your function> ({self.name})",
            f"Pass it where you ask or evaluate, or once: profile.using({self.role}=...).",
        )

    @staticmethod
    def mark(function: Any) -> Any:
        """What a file holds: a name as it is, of a callable its name alone."""
        return {"callable": name_of(function)} if callable(function) else function

    @classmethod
    def of(cls, role: str, held: Any) -> Any:
        """The inverse of `mark`, as far as there is one."""
        return cls(role, str(held["callable"])) if isinstance(held, Mapping) else held


def name_of(what: Any) -> str:
    """module.qualname of a callable; lambdas and inner functions also carry a hash of their code.

    >>> import json
    >>> name_of(json.dumps), name_of(lambda text: text) == name_of(lambda text: text[:1])
    ('json.dumps', False)
    """
    if isinstance(what, Absent):
        return what.name
    if isinstance(what, functools.partial):
        return f"{name_of(what.func)}#{_short(repr((what.args, what.keywords)))}"
    found = what if hasattr(what, "__qualname__") else type(what)
    name = f"{found.__module__}.{found.__qualname__}"
    code = getattr(what, "__code__", None)
    if "<" not in found.__qualname__ or code is None:
        return name
    held = [_plain(cell) for cell in what.__closure__ or ()]
    return f"{name}#{_short(repr((_shape(code), held, what.__defaults__)))}"


def _shape(code: CodeType) -> tuple[Any, ...]:
    return code.co_code.hex(), code.co_names, code.co_varnames, [*map(_constant, code.co_consts)]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _shape(value)
    # The order of a set differs from process to process.
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)


def _plain(cell: CellType) -> str:
    """A closed-over value as text that is the same in every process."""
    try:
        value = cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return ""
    if isinstance(value, (str, bytes, int, float, type(None))):
        return repr(value)
    return str(getattr(value, "__qualname__", type(value).__qualname__))


def _short(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
