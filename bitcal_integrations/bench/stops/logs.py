"""Logged runs of a model, kept in a file as they come, so that a cut run goes on from it.

The file is JSON lines (compressed where its name ends in .gz): a header that says what was asked of
which model, then one run a line, of which the last of an id counts. Asks a model through
`log_runs`; knows how to keep runs, not how to stop any.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from bitcal_integrations.answered import gold_of
from bitcal_integrations.bench.stops.bitcal_tts import Chunk, chunks_of
from bitcal_integrations.bench.stops.rules import Case
from bitcal_integrations.dataset import Example, prompt_digest
from bitcal_integrations.decide.stop import LoggedRun
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.grading import as_grader, as_parser, name_of
from bitcal_integrations.kept import _lock
from bitcal_integrations.types import Record

FORMAT, VERSION = "bitcal-stop-runs", 1
GZIP = 31  # zlib's word for a gzip header and any window
BLOCK = 64  # runs between two writes
WAVE = 2048  # prompts that are asked at once
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asking:
    """How runs are made: `closing` None is the one that suits the parser; the rest as in `ask`."""

    parser: Any = None
    grader: Any = "normalised"
    closing: str | None = None
    spacing: Any = "line"
    answer_tokens: int = 24
    options: Mapping[str, Any] = field(default_factory=dict)

    def header(self, model: Any) -> dict[str, Any]:
        """What must be equal for kept runs to be used again."""
        header = {
            "format": FORMAT, "version": VERSION, "model": model.fingerprint_parts,
            "asked": {**asdict(self), "parser": self.parser_of(model)},
        }  # fmt: skip
        plain: dict[str, Any] = json.loads(json.dumps(header, default=name_of))
        return plain

    def parser_of(self, model: Any) -> Any:
        """The parser, or the one of the model's task."""
        return self.parser or model.request_of("", **self.options).parser


def log_cases(
    model: Any,
    examples: Sequence[Example],
    asking: Asking,
    path: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    wave: int = WAVE,
) -> list[Case]:
    """Every example's run in order, those in the file from there, the others asked and added.

    An example that the model cannot answer has no run; the next call asks it again.
    """
    report = progress or (lambda done, total, label: None)
    with kept_runs(path, asking.header(model)) as store:
        left = [e for e in examples if not store.has(e)]
        before = len(examples) - len(left)

        def told(done: int, total: int, label: str) -> None:
            report(before + done, len(examples), "logging full runs")

        told(0, 0, "")
        for at in range(0, len(left), wave):
            ask_cases(model, left[at : at + wave], asking, store.add, told)
            before = min(before + wave, len(examples))
        return [_of(e, store.cases[e.id]) for e in examples if e.id in store.cases]


def _of(example: Example, case: Case) -> Case:
    """A kept run with the group of today."""
    return case._replace(run=replace(case.run, group=example.group, by=example.by))


def ask_cases(
    model: Any,
    examples: Sequence[Example],
    asking: Asking,
    keep: Callable[[Example, Case], None],
    progress: Progress | None = None,
) -> None:
    """Log these examples, and `keep` each as it comes, with what BitCal-TTS would have seen."""
    from bitcal_integrations.stopping import log_runs

    asked = {e.id: e for e in examples}
    heard: dict[str, Record] = {}

    def listen(record: Record) -> None:
        heard[prompt_digest(record.request.prompt)] = record

    def made(run: LoggedRun) -> None:
        example = asked[run.id]
        sent = model.request_of(example.prompt, **asking.options).prompt
        record = heard.pop(prompt_digest(sent), None)
        keep(example, Case(run, chunks_in(record, example, asking) if record else None))

    silence = model.add_sink(listen)
    try:
        log_runs(
            model, examples, parser=asking.parser, grader=asking.grader, closing=asking.closing,
            spacing=asking.spacing, answer_tokens=asking.answer_tokens, progress=progress,
            on_run=made, **asking.options,
        )  # fmt: skip
    finally:
        silence()


def chunks_in(record: Record, example: Example, asking: Asking) -> tuple[Chunk, ...]:
    """A finished run in chunks, each with what its text answers and whether that is right."""
    name = asking.parser or record.request.parser
    parse, grade = as_parser(name), as_grader(asking.grader)
    content = record.generation.content_start

    def judge(text: str) -> tuple[str | None, bool | None]:
        found = parse(text[content:]) if parse and len(text) > content else None
        if found is None or example.gold is None:
            return (found.text if found else None), (None if example.gold is None else False)
        return found.text, bool(grade(found.text, gold_of(example.gold, name)))

    return chunks_of(record.generation.raw, record.generation.steps, judge)


class Store:
    """The runs of a file; without one it keeps nothing."""

    def __init__(self, file: IO[bytes] | None, rows: Mapping[str, tuple[str, Case]]) -> None:
        self._file = file
        self._new: list[str] = []
        self._asked = {key: asked for key, (asked, _) in rows.items()}
        self.cases = {key: case for key, (_, case) in rows.items()}

    def has(self, example: Example) -> bool:
        """Whether the run of the same question is here."""
        return self._asked.get(example.id) == _asked(example)

    def add(self, example: Example, case: Case) -> None:
        """Keep a run; it is in the file at the latest after a few hundred more, or at the end."""
        self.cases[example.id] = case
        self._new.append(json.dumps(_row(example, case), ensure_ascii=False) + "\n")
        if len(self._new) >= BLOCK:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if self._file is not None and self._new:
            self._file.write(_packed("".join(self._new), self._file.name))
            self._file.flush()
        self._new.clear()


def _asked(example: Example) -> str:
    return prompt_digest(json.dumps([example.prompt, example.gold], default=str))


def _row(example: Example, case: Case) -> dict[str, Any]:
    chunks = None if case.chunks is None else [c.to_dict() for c in case.chunks]
    return {"asked": _asked(example), "run": case.run.to_dict(), "chunks": chunks}


def _case(row: Mapping[str, Any]) -> Case:
    chunks = row["chunks"]
    kept = None if chunks is None else tuple(map(Chunk.from_dict, chunks))
    return Case(LoggedRun.from_dict(row["run"]), kept)


def _packed(text: str, name: str) -> bytes:
    """As the file holds it; compressed parts may follow each other."""
    return gzip.compress(text.encode(), 6) if name.endswith(".gz") else text.encode()


@contextmanager
def kept_runs(path: str | os.PathLike[str] | None, header: Mapping[str, Any]) -> Iterator[Store]:
    """The runs of a file that were asked as `header` says; the file is begun if it is not there."""
    if path is None:
        yield Store(None, {})
        return
    with _opened(Path(path)) as file:
        whole, text = _whole(file.read(), file.name)
        rows = _rows(Path(path), text, header) if text else {}
        file.truncate(whole)
        file.seek(whole)
        if not whole:
            file.write(_packed(json.dumps(header, ensure_ascii=False) + "\n", file.name))
            file.flush()
        store = Store(file, rows)
        try:
            yield store
        finally:  # what a cut run has made is kept
            store.flush()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        file: IO[bytes] = open(path, "a+b")  # noqa: SIM115
    except OSError as err:
        raise CalibrationError(f"runs cannot be kept in {str(path)!r}: {err.strerror}") from err
    with file:
        _lock(file, path)
        file.seek(0)
        yield file


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


def _rows(path: Path, text: str, header: Mapping[str, Any]) -> dict[str, tuple[str, Case]]:
    try:
        first, *others = [json.loads(line) for line in text.splitlines()]
        if first["format"] != FORMAT or first["version"] != VERSION:
            raise ValueError("its first line is none of ours")
        rows = {row["run"]["id"]: (row["asked"], _case(row)) for row in others}
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise CalibrationError(
            f"{str(path)!r} does not hold logged runs, and is left as it is: {err!r:.200}"
        ) from err
    _compare(path, first, header)
    return rows


def _compare(path: Path, first: Mapping[str, Any], header: Mapping[str, Any]) -> None:
    for part in ("model", "asked"):
        for key, value in header[part].items():
            if first[part].get(key) != value:
                raise CalibrationError(
                    f"the runs in {str(path)!r} were made with another {key}: "
                    f"{first[part].get(key)!r:.120}, now {value!r:.120}",
                    "Use another file, or delete it to start again.",
                )
