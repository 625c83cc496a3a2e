"""Logged runs in a file, kept as they come, so that a cut run goes on from it.

The file is JSON lines (compressed where its name ends in .gz): a header that says what was asked of
which model, then one run a line, of which the last of an id counts. Knows how to keep runs; it asks
no model and stops none.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from bitcal_integrations.dataset import Example, prompt_digest
from bitcal_integrations.decide.stop import LoggedRun
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.features import parts_for
from bitcal_integrations.grading import name_of
from bitcal_integrations.kept import opened

FORMAT, VERSION = "bitcal-stop-runs", 1
GZIP = 31  # zlib's word for a gzip header and any window
BLOCK = 64  # runs between two writes


class KeptRun(NamedTuple):
    """A run, a digest of the question and right answer that it is of, and what stands beside it."""

    asked: str
    run: LoggedRun
    beside: Mapping[str, Any]


def header_of(model: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for kept runs to be used again; functions go by their names."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "model": parts_for(model.fingerprint_parts),
        "asked": asked,
    }
    plain: dict[str, Any] = json.loads(json.dumps(header, default=name_of))
    return plain


class RunStore:
    """The runs of a file; without one it keeps nothing."""

    def __init__(self, file: IO[bytes] | None, rows: Mapping[str, KeptRun]) -> None:
        self._file = file
        self._new: list[str] = []
        self.rows = dict(rows)

    def has(self, example: Example) -> bool:
        """Whether the run of the same question is here."""
        return example.id in self.rows and self.rows[example.id].asked == _digest(example)

    def add(self, example: Example, run: LoggedRun, **beside: Any) -> None:
        """Keep a run; it is in the file at the latest after a few dozen more, or at the end."""
        self.rows[example.id] = KeptRun(_digest(example), run, beside)
        row = {"asked": _digest(example), "run": run.to_dict(), **beside}
        self._new.append(json.dumps(row, ensure_ascii=False) + "\n")
        if len(self._new) >= BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if self._file is not None and self._new:
            self._file.write(_packed("".join(self._new), self._file.name))
            self._file.flush()
        self._new.clear()


def _digest(example: Example) -> str:
    return prompt_digest(json.dumps([example.prompt, example.gold], default=str))


def _packed(text: str, name: str) -> bytes:
    """As the file holds it; compressed parts may follow each other."""
    return gzip.compress(text.encode(), 6) if name.endswith(".gz") else text.encode()


@contextmanager
def kept_runs(path: str | os.PathLike[str] | None, header: Mapping[str, Any]) -> Iterator[RunStore]:
    """The runs of a file that were asked as `header` says; the file is begun if it is not there."""
    if path is None:
        yield RunStore(None, {})
        return
    with opened(Path(path), "a+b", "runs") as file:
        whole, text = _whole(file.read(), file.name)
        rows = _rows(Path(path), text, header) if text else {}
        file.truncate(whole)
        file.seek(whole)
        if not whole:
            file.write(_packed(json.dumps(header, ensure_ascii=False) + "\n", file.name))
            file.flush()
        store = RunStore(file, rows)
        try:
            yield store
        finally:  # what a cut run has made is kept
            store.flush()


def read_runs(path: str | os.PathLike[str]) -> list[LoggedRun]:
    """The last run of every id in a file."""
    try:
        _, text = _whole(Path(path).read_bytes(), os.fspath(path))
    except OSError as err:
        raise CalibrationError(f"the runs {os.fspath(path)!r} cannot be read: {err}") from err
    return [row.run for row in _parsed(Path(path), text)[1]]


def _whole(data: bytes, name: str) -> tuple[int, str]:
    """How many bytes hold whole lines, and these lines: what a cut left half is passed over."""
    if not name.endswith(".gz"):
        whole = data.rfind(b"\n") + 1
        return whole, data[:whole].decode("utf-8", "replace")
    whole, found = 0, b""
    while whole < len(data):
        part = zlib.decompressobj(GZIP)
        try:
            text = part.decompress(data[whole:])
        except zlib.error:
            break
        if not part.eof:
            break
        whole, found = len(data) - len(part.unused_data), found + text
    if data and not whole:  # not ours: it must not be taken for an empty file
        return len(data), "?"
    return whole, found.decode("utf-8", "replace")


def _rows(path: Path, text: str, header: Mapping[str, Any]) -> dict[str, KeptRun]:
    first, rows = _parsed(path, text)
    _compare(path, first, header)
    return {row.run.id: row for row in rows}


def _parsed(path: Path, text: str) -> tuple[Mapping[str, Any], list[KeptRun]]:
    """The header, and the last run of each id."""
    try:
        first, *others = [json.loads(line) for line in text.splitlines()]
        if first["format"] != FORMAT or first["version"] != VERSION:
            raise ValueError("its first line is none of ours")
        rows = [
            KeptRun(row.pop("asked"), LoggedRun.from_dict(row.pop("run")), row) for row in others
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CalibrationError(
            f"{str(path)!r} does not hold logged runs, and is left as it is: {err!r:.200}"
        ) from err
    return first, list({row.run.id: row for row in rows}.values())


def _compare(path: Path, first: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    for part in ("model", "asked"):
        for key, value in header[part].items():
            if first[part].get(key) != value:
                raise CalibrationError(
                    f"the runs in {str(path)!r} were made with another {key}: "
                    f"{first[part].get(key)!r:.120}, now {value!r:.120}",
                    "Use another file, or delete it to start again.",
                )
