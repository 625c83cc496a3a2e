"""Asks a model every example and keeps each answer as it comes, so that a cut run goes on.

The file is JSON lines: a header that says what was asked of which model, then one Labelled a
line. A second process that would write the same file is refused. Knows how to grade, not how to
calibrate.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from bitcal_integrations.canary import answer_of
from bitcal_integrations.dataset import Example
from bitcal_integrations.errors import CalibrationError, EngineClosed
from bitcal_integrations.features import Schema
from bitcal_integrations.grading import as_grader, as_parser
from bitcal_integrations.types import Confidence, Labelled, Record

logger = logging.getLogger(__name__)
# Lists of mixed length, so that batches of every size leave their mark on what is calibrated.
WAVES = (1, 4, 16, 256)
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asking:
    """How every example is asked and graded; `options` are those of `ask`."""

    grader: Any = "normalised"
    schema: Schema | None = None
    task: str = "default"
    options: Mapping[str, Any] | None = None
    progress: Progress | None = None
    waves: tuple[int, ...] = WAVES
    shuffle: bool = True  # a file sorted by kind would look like a shift of the scores

    def header(self, model: Any) -> dict[str, Any]:
        """What must be equal for kept answers to be used again."""
        options = {k: v for k, v in (self.options or {}).items() if k != "return_errors"}
        header = {
            "format": "bitcal-answers",
            "model": model.fingerprint_parts,
            "profile": model.profile.fingerprint if model.profile else None,
            "grader": self.grader if isinstance(self.grader, str) else name_of(self.grader),
            "features": self.schema.to_dict() if self.schema else None,
            "task": self.task,
            "options": options,
        }
        plain: dict[str, Any] = json.loads(json.dumps(header, default=name_of))
        return plain


def name_of(what: Any) -> str:
    """How a callable is named in files and messages."""
    return str(getattr(what, "__qualname__", type(what).__qualname__))


def answer_all(
    model: Any,
    examples: Sequence[Example],
    asking: Asking,
    keep: str | os.PathLike[str] | None = None,
) -> list[Labelled]:
    """Every example with its answer, features and verdict, in order.

    An example that fails is in the list with finish "error" and no verdict; with `keep` it is
    asked again the next time.
    """
    grader = as_grader(asking.grader)
    with _kept(keep, asking.header(model)) as store:
        done = store.rows_of(examples)
        left = [e for e in examples if e.id not in done]
        if asking.shuffle:
            left.sort(key=lambda e: sha256(e.id.encode()).digest())
        report = asking.progress or (lambda done, total, label: None)
        report(len(done), len(examples), "answering")
        for wave in _waves(left, asking.waves):
            for example, result in _ask(model, wave, asking):
                row = _labelled(example, result, asking, grader, model)
                done[example.id] = row
                if row.finish != "error":
                    store.add(row)
                report(len(done), len(examples), "answering")
    rows = [done[e.id] for e in examples]
    failed = [row for row in rows if row.finish == "error"]
    if len(failed) == len(rows):
        raise CalibrationError(f"no example could be answered: {failed[0].confidence.reason}")
    if failed:
        logger.warning(
            "%d of %d examples failed: %s", len(failed), len(rows), failed[0].confidence.reason
        )
    return rows


def _waves(examples: Sequence[Example], sizes: Sequence[int]) -> Iterator[Sequence[Example]]:
    at = turn = 0
    while at < len(examples):
        size = sizes[turn % len(sizes)]
        yield examples[at : at + size]
        at, turn = at + size, turn + 1


def _ask(model: Any, wave: Sequence[Example], asking: Asking) -> Iterator[tuple[Example, Any]]:
    options = {**(asking.options or {}), "task": asking.task, "features": asking.schema}
    with closing(model.ask_each([e.prompt for e in wave], **options)) as answers:
        for index, result in answers:
            if isinstance(result, EngineClosed):
                raise result
            yield wave[index], result


def _labelled(
    example: Example, result: Record | Exception, asking: Asking, grader: Any, model: Any
) -> Labelled:
    kinds = model.report().get("weights")
    row = Labelled(
        id=example.id, group=example.group, prompt=example.prompt, gold=example.gold, text="",
        answer=None, finish="error", correct=None, confidence=Confidence(reason=str(result)),
        weights="" if kinds is None else "+".join(kinds) or "none", task=asking.task,
        by=example.by,
    )  # fmt: skip
    if isinstance(result, Exception):
        return row
    found = result.generation.answer
    answer = found.text if found else None
    correct = None
    if example.gold is not None:
        gold = gold_of(example.gold, result.request.parser)
        correct = grader(answer_of(result), gold)
    return replace(
        row, text=result.text, answer=answer, finish=result.generation.finish, correct=correct,
        confidence=result.confidence,
        tokens=result.generation.n_tokens + result.generation.probe_tokens,
    )  # fmt: skip


def gold_of(gold: Any, parser: Any) -> Any:
    """The right answer itself, where a data set keeps a whole worked solution with `####`."""
    if isinstance(gold, str) and "####" in gold and parser in ("gsm8k", "tiny"):
        parse = as_parser(parser)
        answer = parse(gold) if parse else None
        return answer.text if answer else gold
    return gold


class _Store:
    """The answers kept so far; without a file it keeps nothing."""

    def __init__(self, file: IO[str] | None, rows: Mapping[str, Labelled]) -> None:
        self._file, self._rows = file, rows

    def rows_of(self, examples: Sequence[Example]) -> dict[str, Labelled]:
        """Kept rows of these examples whose prompt and gold are still the same."""
        found = {}
        for example in examples:
            row = self._rows.get(example.id)
            same = row is not None and _plain(row.prompt) == _plain(example.prompt)
            if row is not None and same and _plain(row.gold) == _plain(example.gold):
                found[example.id] = replace(row, group=example.group, by=example.by)
        return found

    def add(self, row: Labelled) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row.to_dict(), ensure_ascii=False, default=str) + "\n")
            self._file.flush()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


@contextmanager
def _kept(path: str | os.PathLike[str] | None, header: dict[str, Any]) -> Iterator[_Store]:
    if path is None:
        yield _Store(None, {})
        return
    path = Path(path)
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as err:
        raise CalibrationError(f"answers cannot be kept in {str(path)!r}: {err.strerror}") from err
    with file:
        _lock(file, path)
        file.seek(0)
        lines = file.read().split("\n")
        rows = _read(path, lines[:-1], header)
        whole = "".join(line + "\n" for line in lines[:-1])
        if lines[-1]:  # a run was cut in the middle of a line
            file.truncate(len(whole.encode()))
        file.seek(0, os.SEEK_END)
        if not whole:
            file.write(json.dumps(header, ensure_ascii=False) + "\n")
            file.flush()
        yield _Store(file, rows)


@contextmanager
def add_verdicts(path: str | os.PathLike[str]) -> Iterator[Callable[[Labelled], None]]:
    """Append judged rows to an answers file; the last row of an id is the one that counts."""
    with open(path, "a", encoding="utf-8") as file:
        _lock(file, Path(path))
        yield _Store(file, {}).add


def _lock(file: IO[str], path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise CalibrationError(f"another process writes answers to {str(path)!r}") from None


def _read(path: Path, lines: Sequence[str], header: Mapping[str, Any]) -> dict[str, Labelled]:
    if not lines:
        return {}
    try:
        first, *others = [json.loads(line) for line in lines]
        rows = [Labelled.from_dict(row) for row in others]
    except (ValueError, KeyError, TypeError) as err:
        raise CalibrationError(f"{str(path)!r} does not hold kept answers: {err!r:.200}") from err
    for key, value in header.items():
        if first.get(key) != value:
            raise CalibrationError(
                f"the answers in {str(path)!r} were made with another {key}: "
                f"{first.get(key)!r:.120}, now {value!r:.120}",
                "Use another file, or delete it to start again.",
            )
    return {row.id: row for row in rows}


def read_answers(path: str | os.PathLike[str]) -> list[Labelled]:
    """The rows of an answers file, as `bitcal report` and others read them."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as err:
        raise CalibrationError(f"the answers {str(path)!r} cannot be read: {err}") from err
    return list(_read(path, lines, {"format": "bitcal-answers"}).values())
