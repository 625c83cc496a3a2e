"""Logged runs of a model with what BitCal-TTS would have seen of them, kept as they come.

Asks a model through `log_runs`; how a file keeps runs is in kept_runs.py. It stops none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bitcal_integrations.answered import gold_of
from bitcal_integrations.bench.stops.bitcal_tts import Chunk, chunks_of
from bitcal_integrations.bench.stops.rules import Case
from bitcal_integrations.dataset import Example, prompt_digest
from bitcal_integrations.decide.stop import LoggedRun
from bitcal_integrations.grading import as_grader, as_parser
from bitcal_integrations.kept_runs import KeptRun, header_of, kept_runs
from bitcal_integrations.types import Record

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
        return header_of(model, {**asdict(self), "parser": self.parser_of(model)})

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

        def keep(example: Example, case: Case) -> None:
            chunks = None if case.chunks is None else [c.to_dict() for c in case.chunks]
            store.add(example, case.run, chunks=chunks)

        told(0, 0, "")
        for at in range(0, len(left), wave):
            ask_cases(model, left[at : at + wave], asking, keep, told)
            before = min(before + wave, len(examples))
        return [_case(e, store.rows[e.id]) for e in examples if store.has(e)]


def _case(example: Example, row: KeptRun) -> Case:
    """A kept run with the group of today."""
    chunks = row.beside.get("chunks")
    kept = None if chunks is None else tuple(map(Chunk.from_dict, chunks))
    return Case(replace(row.run, group=example.group, by=example.by), kept)


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
