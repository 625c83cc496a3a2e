"""Answers in a file: kept as they come, read again, judged by hand.

The file is JSON lines: a header that says what was asked of which model, then one Labelled a
line, of which the last one of an id counts. A second process that would write the same file is
refused, a file of anything else is left as it is, and a line that a cut left half is taken off.
Knows rows; asks no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from bitcal_integrations.dataset import ANSWERS_FORMAT, Example
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.types import Labelled


class Store:
    """The answers kept so far; without a file it keeps nothing."""

    def __init__(self, file: IO[bytes] | None, rows: Mapping[str, Labelled]) -> None:
        self._file, self._rows = file, rows

    def rows_of(self, examples: Sequence[Example], needed: Collection[str]) -> dict[str, Labelled]:
        """Kept rows of these examples with the same prompt and gold and the needed features."""
        found = {}
        for example in examples:
            row = self._rows.get(example.id)
            if row is not None and _same(row, example) and _measured(row, needed):
                found[example.id] = replace(row, group=example.group, by=example.by)
        return found

    def add(self, row: Labelled) -> None:
        if self._file is not None:
            line = json.dumps(row.to_dict(), ensure_ascii=False, default=str) + "\n"
            self._file.write(line.encode())
            self._file.flush()


def _same(row: Labelled, example: Example) -> bool:
    return all(
        json.loads(json.dumps(mine, default=str)) == json.loads(json.dumps(yours, default=str))
        for mine, yours in ((row.prompt, example.prompt), (row.gold, example.gold))
    )


def state_needed(layer: int | None) -> str:
    """The name under which a kept row must have the hidden state of a layer."""
    return f"hidden state of layer {layer}"


def _measured(row: Labelled, needed: Collection[str]) -> bool:
    """Whether it has what a profile needs, which measures neither no answer nor an early one."""
    apart = row.finish == "settled" or row.confidence.reason.startswith("no_answer")
    state = {state_needed(row.hidden["layer"])} if row.hidden else set()
    return apart or set(needed) <= state | set(row.confidence.signals)


@contextmanager
def kept_in(path: str | os.PathLike[str] | None, header: dict[str, Any]) -> Iterator[Store]:
    """The store of a file for answers that were asked as `header` says; begun if it is empty."""
    if path is None:
        yield Store(None, {})
        return
    with opened(Path(path), "a+b") as file:
        data = file.read()
        if data:
            kept = _whole(file, Path(path), data)
            _compare(Path(path), kept.header, header)
            yield Store(file, kept.rows)
        else:
            file.write(json.dumps(header, ensure_ascii=False).encode() + b"\n")
            file.flush()
            yield Store(file, {})


@contextmanager
def add_verdicts(
    path: str | os.PathLike[str],
) -> Iterator[tuple[Kept, Callable[[Labelled], None]]]:
    """What a file holds, and a function that appends judged rows to it.

    The last row of an id is the one that counts. Nobody else writes to the file meanwhile.
    """
    with opened(Path(path), "r+b") as file:
        kept = _whole(file, Path(path), file.read())
        yield kept, Store(file, {}).add


@contextmanager
def opened(path: Path, mode: str, what: str = "answers") -> Iterator[IO[bytes]]:
    """The file at its start, locked."""
    try:
        file: IO[bytes] = open(path, mode)  # noqa: SIM115
    except OSError as err:
        raise CalibrationError(f"{what} cannot be kept in {str(path)!r}: {err.strerror}") from err
    with file:
        lock(file, path, what)
        file.seek(0)
        yield file


def lock(file: IO[bytes], path: Path, what: str = "answers") -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CalibrationError(f"another process writes {what} to {str(path)!r}") from None


@dataclass(frozen=True)
class Kept:
    """What a file of answers holds: what was asked of which model, and the last row of each id."""

    header: Mapping[str, Any]
    rows: Mapping[str, Labelled]


def _whole(file: IO[bytes], path: Path, data: bytes) -> Kept:
    """What the whole lines say; a line that was cut is taken off the file."""
    kept = _parsed(path, data)
    file.truncate(data.rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
    return kept


def _parsed(path: Path, data: bytes) -> Kept:
    try:
        first, *others = [json.loads(line) for line in data.split(b"\n")[:-1]] or [None]
        if not isinstance(first, Mapping) or first.get("format") != ANSWERS_FORMAT:
            raise ValueError("its first line is none of ours")
        rows = [Labelled.from_dict(row) for row in others]
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CalibrationError(
            f"{str(path)!r} does not hold kept answers, and is left as it is: {err!r:.200}"
        ) from err
    return Kept(first, {row.id: row for row in rows})


def _compare(path: Path, first: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    for key, value in header.items():
        if (old := first.get(key)) != value:
            what = f"{key}: "
            if isinstance(old, Mapping) and isinstance(value, Mapping):
                part = _unlike(old, value)
                what, old, value = f"{key}: its {part} was ", old.get(part), value.get(part)
            other = "other" if key.endswith("s") else "another"
            raise CalibrationError(
                f"the answers in {str(path)!r} were made with {other} {what}{old!r:.120}, "
                f"now {value!r:.120}",
                "Use another file, or delete it to start again.",
            )


def _unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first key that differs, or that only one of them has."""
    missing = object()
    return next(k for k in {**other, **one} if one.get(k, missing) != other.get(k, missing))


def read_kept(path: str | os.PathLike[str]) -> Kept:
    """A file of answers, as `bitcal report` and others read it; a cut last line is left out."""
    try:
        data = Path(path).read_bytes()
    except OSError as err:
        raise CalibrationError(f"the answers {os.fspath(path)!r} cannot be read: {err}") from err
    return _parsed(Path(path), data)


def judged_ids(path: str | os.PathLike[str] | None) -> set[str]:
    """The ids that need no right answer: all that are kept, where a person judged some of them.

    One that nobody judged is counted as that, and nothing is fitted on it.
    """
    if path is None or not Path(path).is_file() or not Path(path).stat().st_size:
        return set()
    rows = read_answers(path)
    judged = any(row.gold is None and row.correct is not None for row in rows)
    return {row.id for row in rows} if judged else set()


def read_answers(path: str | os.PathLike[str]) -> list[Labelled]:
    """The last row of every id in a file of answers."""
    return list(read_kept(path).rows.values())
