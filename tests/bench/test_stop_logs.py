"""Logged runs in a file: kept as they come, gone on from, refused where asked in another way."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stop_help import simulated

from bitcal_integrations import load
from bitcal_integrations.bench.stops.bitcal_tts import Chunk
from bitcal_integrations.bench.stops.logs import Asking, log_cases
from bitcal_integrations.bench.stops.rules import Case
from bitcal_integrations.dataset import Example
from bitcal_integrations.decide.stop import LoggedRun
from bitcal_integrations.errors import CalibrationError
from bitcal_integrations.kept_runs import kept_runs
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import stream

ASKING = Asking(parser="tiny", grader="tiny", closing="#### ")
NAMES = ("runs.jsonl", "runs.jsonl.gz")


def asked(n: int) -> list[Example]:
    return [Example(f"q{i}", f"g{i // 2}", f"What is {i}?", str(i)) for i in range(n)]


class Counting(ToyModel):
    """A toy that counts what it is asked; it may be asked to log, and has no checkpoints."""

    def __init__(self, n: int) -> None:
        super().__init__({f"What is {i}?": (f"#### {i}", 0.9) for i in range(n)})
        self._engine.stops_early = True
        self.asked: list[str] = []
        self.add_sink(lambda record: self.asked.append(record.request.prompt))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_not_asked_again(name: str, tmp_path: Path) -> None:
    toy, path = Counting(20), tmp_path / name
    first = log_cases(toy, asked(12), ASKING, path)
    assert len(toy.asked) == 12
    again = log_cases(toy, asked(20), ASKING, path)
    assert len(toy.asked) == 20
    assert again[:12] == first
    assert [case.run.id for case in again] == [f"q{i}" for i in range(20)]
    assert all(case.run.right for case in again)
    assert log_cases(toy, asked(20), ASKING, path) == again
    assert len(toy.asked) == 20


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupt_keeps_what_was_answered(name: str, tmp_path: Path) -> None:
    toy, path = Counting(20), tmp_path / name

    def stop(done: int, total: int, label: str) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        log_cases(toy, asked(20), ASKING, path, stop)
    before = len(toy.asked)
    assert before < 20
    found = log_cases(toy, asked(20), ASKING, path)
    assert len(found) == 20
    assert len(set(toy.asked)) == 20
    assert len(toy.asked) - before <= 13  # the seven were kept


@pytest.mark.parametrize("name", NAMES)
def test_a_half_written_end_is_passed_over(name: str, tmp_path: Path) -> None:
    toy, path = Counting(20), tmp_path / name
    log_cases(toy, asked(5), ASKING, path)
    log_cases(toy, asked(10), ASKING, path)
    path.write_bytes(path.read_bytes()[:-9])
    found = log_cases(toy, asked(10), ASKING, path)
    assert len(found) == 10
    assert len(toy.asked) > 10
    data = path.read_bytes()
    text = gzip.decompress(data) if name.endswith(".gz") else data
    assert len([json.loads(line) for line in text.splitlines()]) == 11  # and the header


def test_another_question_under_the_same_id_is_asked(tmp_path: Path) -> None:
    toy, path = Counting(20), tmp_path / "runs.jsonl"
    log_cases(toy, asked(3), ASKING, path)
    changed = [replace(asked(3)[0], gold="9"), *asked(3)[1:]]
    found = log_cases(toy, changed, ASKING, path)
    assert found[0].run.right is False
    assert len(toy.asked) == 4


def test_groups_are_those_of_today(tmp_path: Path) -> None:
    toy, path = Counting(20), tmp_path / "runs.jsonl"
    log_cases(toy, asked(2), ASKING, path)
    found = log_cases(toy, [replace(e, group="one", by={"k": "v"}) for e in asked(2)], ASKING, path)
    assert [(c.run.group, c.run.by) for c in found] == [("one", {"k": "v"})] * 2
    assert len(toy.asked) == 2


def test_runs_of_another_asking_or_model_are_refused(tmp_path: Path) -> None:
    toy, path = Counting(20), tmp_path / "runs.jsonl"
    log_cases(toy, asked(2), ASKING, path)
    with pytest.raises(CalibrationError, match="made with another spacing: 'line', now 8"):
        log_cases(toy, asked(2), replace(ASKING, spacing=8), path)
    other = Counting(2)
    other.name = "another"
    with pytest.raises(CalibrationError, match="made with another model: 'toy', now 'another'"):
        log_cases(other, asked(2), ASKING, path)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_something_else_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text('{"format": "other"}\n')
    with pytest.raises(CalibrationError, match="does not hold logged runs, and is left as it is"):
        log_cases(Counting(2), asked(2), ASKING, path)
    assert path.read_text() == '{"format": "other"}\n'


def test_runs_come_back_as_they_went(tmp_path: Path) -> None:
    path, header = tmp_path / "runs.jsonl.gz", ASKING.header(Counting(1))
    cases = simulated(20)
    cases[0] = Case(cases[0].run, (Chunk(16, 0.25, None, False, "4", True),))
    with kept_runs(path, header) as store:
        for case in cases:
            chunks = None if case.chunks is None else [c.to_dict() for c in case.chunks]
            store.add(Example(case.run.id, case.run.group, "?"), case.run, chunks=chunks)
    with kept_runs(path, header) as store:
        assert [row.run for row in store.rows.values()] == [case.run for case in cases]
        assert store.rows["0"].beside == {"chunks": [cases[0].chunks[0].to_dict()]}


@pytest.fixture(scope="module")
def tiny() -> Iterator[Any]:
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None) as model:
        yield model


def test_runs_of_a_real_model_have_checkpoints_and_chunks(tiny: Any) -> None:
    questions = [q for q, _ in zip(stream("math", "test", 5), range(6), strict=False)]
    some = [Example(q.id, q.id, q.messages, q.gold) for q in questions]
    asking = replace(ASKING, options={"max_new_tokens": 160})
    found = log_cases(tiny, some, asking)
    plain = tiny.ask([list(q.messages) for q in questions], parser="tiny", max_new_tokens=160)
    for case, record, question in zip(found, plain, questions, strict=True):
        run, generation = case.run, record.generation
        assert (run.tokens, run.answer) == (generation.n_tokens, generation.answer.text)
        assert run.right == (generation.answer.text == question.gold)
        assert len(run.checkpoints) == generation.raw.count("\n")
        assert all(place.trial is not None for place in run.checkpoints)
        _compare_chunks(case, generation)


def _compare_chunks(case: Case, generation: Any) -> None:
    assert len(case.chunks) == generation.n_tokens // 16
    for chunk in case.chunks:
        last = generation.steps[chunk.tokens - 1]
        assert chunk.entropy == pytest.approx(last.entropy, abs=1e-4)
        assert chunk.marked == ("####" in generation.raw[: last.end])


def test_a_run_without_a_right_answer_is_not_judged() -> None:
    found = log_cases(Counting(2), [Example("a", "a", "What is 1?")], ASKING)
    assert found[0].run.right is None
    assert isinstance(found[0].run, LoggedRun)
