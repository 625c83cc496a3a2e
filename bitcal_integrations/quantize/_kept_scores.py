"""What a long search has measured, in one JSON file, so that a cut run goes on where it was.

The file says what it was measured on and counts for nothing else. Knows plain values only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bitcal_integrations.errors import BadRequest, SaveError

FORMAT = "bitcal-bits"


class KeptScores:
    """Values by key; without a path nothing is kept."""

    def __init__(self, path: str | os.PathLike[str] | None, about: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path).expanduser()
        self.about = json.loads(json.dumps(about, default=str))
        self.values = _read(self.path, self.about) if self.path and self.path.exists() else {}

    def get(self, key: str, make: Callable[[], Any]) -> Any:
        """What is kept under the key, or what `make` gives, kept from now on."""
        if key not in self.values:
            self.values[key] = make()
            self._write()
        return self.values[key]

    def _write(self) -> None:
        if self.path is None:
            return
        whole = {"format": FORMAT, "about": self.about, "values": self.values}
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(whole), encoding="utf-8")
            os.replace(partial, self.path)  # a cut run leaves no half file under the real name
        except OSError as error:
            raise SaveError(f"cannot keep scores in {str(self.path)!r}: {error}") from None
        finally:
            if partial.exists():
                partial.unlink()


def _read(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != FORMAT:
            raise ValueError(f"its format is {kept['format']!r}")
        values: dict[str, Any] = dict(kept["values"])
        before = dict(kept["about"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadRequest(
            f"{str(path)!r} does not hold kept scores, and is left as it is: {error!r:.200}"
        ) from None
    other = [key for key in {**about, **before} if about.get(key) != before.get(key)]
    if other:
        raise BadRequest(
            f"the scores in {str(path)!r} were measured with another {other[0]}",
            "Delete the file to start again, or ask for what was asked then.",
        )
    return values
