"""Answers are kept as they come: a cut run goes on, a second writer is refused, lies are found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitcal_integrations.answered import (
    Asking,
    add_verdicts,
    answer_all,
    gold_of,
    read_answers,
)
from bitcal_integrations.dataset import Example, read_examples
from bitcal_integrations.errors import CalibrationError, EngineClosed, UnknownName
from bitcal_integrations.kept import judged_ids
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Labelled

QUESTIONS = {f"What is {n} + 1?": (str(n + 1), 0.9) for n in range(40)}
EXAMPLES = read_examples(
    [(q, a if n % 4 else "wrong") for n, (q, (a, _)) in enumerate(QUESTIONS.items())]
)
HOW = Asking("exact")


class Counting(ToyModel):
    """A toy that counts what it was asked, and can be cut after some answers."""

    asked = 0
    cut: int | None = None

    def ask_each(self, prompts: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        for item in super().ask_each(prompts, **options):
            if self.cut is not None and self.asked >= self.cut:
                raise KeyboardInterrupt
            self.asked += 1
            yield item


@pytest.fixture
def toy() -> Iterator[Counting]:
    with Counting(QUESTIONS) as toy:
        yield toy


def test_every_example_in_order_with_its_verdict(toy: Counting) -> None:
    rows = answer_all(toy, EXAMPLES, HOW)
    assert [r.id for r in rows] == [e.id for e in EXAMPLES]
    assert [r.correct for r in rows] == [bool(n % 4) for n in range(40)]
    assert rows[0].text == "1"
    assert rows[0].confidence.raw == pytest.approx(0.9)


def test_a_cut_run_goes_on_and_asks_nothing_twice(toy: Counting, tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    toy.cut = 17
    with pytest.raises(KeyboardInterrupt):
        answer_all(toy, EXAMPLES, HOW, keep)
    assert len(read_answers(keep)) == 17
    with keep.open("a") as file:
        file.write('{"id": "half a li')  # as a crash leaves it
    toy.cut = None
    rows = answer_all(toy, EXAMPLES, HOW, keep)
    assert toy.asked == 40
    again = answer_all(toy, EXAMPLES, HOW, keep)
    assert toy.asked == 40
    assert again == rows
    assert {json.loads(line).get("id") for line in keep.read_text().splitlines()[1:]} == {
        e.id for e in EXAMPLES
    }


def test_a_changed_question_is_asked_again(toy: Counting, tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    example = Example("1", "1", "What is 1 + 1?", "2")
    answer_all(toy, [example], HOW, keep)
    (row,) = answer_all(toy, [Example("1", "1", "What is 2 + 1?", "3")], HOW, keep)
    assert row.text == "3"
    (row,) = answer_all(toy, [Example("1", "1", "What is 2 + 1?", "4")], HOW, keep)
    assert row.correct is False


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (Asking("contains"), "another grader: 'exact', now 'contains'"),
        (Asking("exact", options={"max_new_tokens": 3}), "other options"),
    ],
)
def test_answers_of_another_run_are_refused(
    toy: Counting, tmp_path: Path, changed: Asking, words: str
) -> None:
    keep = tmp_path / "answers.jsonl"
    answer_all(toy, EXAMPLES[:3], HOW, keep)
    with pytest.raises(CalibrationError) as caught:
        answer_all(toy, EXAMPLES[:3], changed, keep)
    assert words in str(caught.value)
    with ToyModel(QUESTIONS, name="other") as other, pytest.raises(CalibrationError, match="model"):
        answer_all(other, EXAMPLES[:3], HOW, keep)


def test_two_writers_of_one_file(toy: Counting, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    keep = tmp_path / "answers.jsonl"
    answer_all(toy, EXAMPLES[:3], HOW, keep)
    with keep.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CalibrationError, match="another process writes"):
            answer_all(toy, EXAMPLES, HOW, keep)


def test_a_file_of_something_else(toy: Counting, tmp_path: Path) -> None:
    keep = tmp_path / "notes.txt"
    keep.write_text("my notes\n")
    with pytest.raises(CalibrationError, match="does not hold kept answers"):
        answer_all(toy, EXAMPLES, HOW, keep)
    assert keep.read_text() == "my notes\n"
    with pytest.raises(CalibrationError, match="cannot be kept"):
        answer_all(toy, EXAMPLES, HOW, tmp_path / "no" / "folder.jsonl")


@pytest.mark.parametrize(
    "data",
    [
        b"one line without its end",
        b'{"format": "bitcal-answers"',  # a header of ours that was cut
        b"[1]\n",
        b'"x"\n',
        b"null\n",
        b"\n",
        b"\xff\xfe\x00\x01\n\x80",
        b'{"format": "bitcal-answers"}\n[1]\n',
        b'{"format": "bitcal-answers"}\n"x"\n',
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(
    toy: Counting, tmp_path: Path, data: bytes
) -> None:
    keep = tmp_path / "notes.txt"
    keep.write_bytes(data)
    for read in (
        lambda: answer_all(toy, EXAMPLES, HOW, keep),
        lambda: read_answers(keep),
        lambda: add_verdicts(keep).__enter__(),
    ):
        with pytest.raises(CalibrationError, match="does not hold kept answers"):
            read()
        assert keep.read_bytes() == data
    assert toy.asked == 0


def test_verdicts_go_behind_whole_lines(toy: Counting, tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    answer_all(toy, EXAMPLES[:3], HOW, keep)
    whole = keep.read_bytes()
    keep.write_bytes(whole + b'{"id": "half a li')
    with add_verdicts(keep) as (kept, add):
        rows = list(kept.rows.values())
        add(replace(rows[0], correct=None))
        with pytest.raises(CalibrationError, match="another process writes"):
            answer_all(toy, EXAMPLES[:3], HOW, keep)
    assert keep.read_bytes().startswith(whole)
    assert [r.correct for r in read_answers(keep)].count(None) == 1
    assert len(keep.read_bytes().splitlines()) == 5


def test_a_verdict_stands_for_a_right_answer(toy: Counting, tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    bare = [replace(e, gold=None) for e in EXAMPLES[:3]]
    answer_all(toy, bare, HOW, keep)
    assert judged_ids(keep) == judged_ids(tmp_path / "none") == judged_ids(None) == set()
    with add_verdicts(keep) as (kept, add):
        add(replace(kept.rows[bare[1].id], correct=True))
    assert judged_ids(keep) == {e.id for e in bare}
    assert [r.correct for r in answer_all(toy, bare, HOW, keep)] == [None, True, None]


def test_what_no_answer_can_equal_is_refused_before_anything_is_asked(toy: Counting) -> None:
    with pytest.raises(CalibrationError, match="'q7': the gold 'wrong' is no number"):
        answer_all(toy, [*EXAMPLES[1:4], Example("q7", "q7", "Why?", "wrong")], Asking("numeric"))
    with pytest.raises(UnknownName, match="'gsm9' is not a parser"):
        answer_all(toy, EXAMPLES, Asking("exact", options={"parser": "gsm9"}))
    assert toy.asked == 0


def test_a_default_of_the_model_is_part_of_the_question(tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    with ToyModel(QUESTIONS) as toy:
        answer_all(toy, EXAMPLES[:3], HOW, keep)
        toy._defaults["stop"] = ("8",)
        with pytest.raises(CalibrationError, match="other options"):
            answer_all(toy, EXAMPLES[:3], HOW, keep)


def test_a_failed_example_is_kept_out_of_the_file_and_asked_again(tmp_path: Path) -> None:
    keep = tmp_path / "answers.jsonl"
    broken = Example("bad", "bad", ({"role": "user", "content": "What is 1 + 1?"},), "2")

    class Failing(ToyModel):
        fail = True

        def ask_each(self, prompts: Any, **options: Any) -> Iterator[tuple[int, Any]]:
            for index, record in super().ask_each(prompts, **options):
                bad = self.fail and not isinstance(prompts[index], str)
                yield index, ValueError("too long") if bad else record

    with Failing(QUESTIONS) as toy:
        good, bad = answer_all(toy, [EXAMPLES[1], broken], HOW, keep)
        assert (good.correct, bad.finish, bad.correct) == (True, "error", None)
        assert "too long" in bad.confidence.reason
        assert len(read_answers(keep)) == 1
        with pytest.raises(CalibrationError, match="no example could be answered: too long"):
            answer_all(toy, [broken], HOW, keep)
        Failing.fail = False
        assert answer_all(toy, [broken], HOW, keep)[0].correct is True


def test_a_closed_model_ends_the_run(tmp_path: Path) -> None:
    toy = ToyModel(QUESTIONS)
    toy.close()
    with pytest.raises(EngineClosed):
        answer_all(toy, EXAMPLES, HOW)


def test_the_order_of_the_file_is_not_the_order_of_asking(toy: Counting) -> None:
    asked: list[str] = []
    toy.add_sink(lambda record: asked.append(str(record.request.prompt)))
    answer_all(toy, EXAMPLES, HOW)
    shuffled = list(asked)
    answer_all(toy, EXAMPLES, Asking("exact", shuffle=False))
    assert asked[40:] == [e.prompt for e in EXAMPLES] != shuffled
    assert sorted(asked[40:]) == sorted(shuffled)


def test_progress_counts_up(toy: Counting) -> None:
    seen: list[tuple[int, int]] = []
    answer_all(
        toy, EXAMPLES, Asking("exact", progress=lambda done, total, _: seen.append((done, total)))
    )
    assert seen == [(n, 40) for n in range(41)]


def test_a_row_comes_back_from_its_json(toy: Counting) -> None:
    row = answer_all(toy, EXAMPLES[:1], HOW)[0]
    assert Labelled.from_dict(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize(
    ("gold", "parser", "found"),
    [
        ("She has 2 + 3 = 5.\n#### 5", "gsm8k", "5"),
        ("#### 1,200", "tiny", "1,200"),
        ("#### 5", "last_number", "#### 5"),
        (("5", "five"), "gsm8k", ("5", "five")),
        ("five", "gsm8k", "five"),
    ],
)
def test_gold_of_a_worked_solution(gold: Any, parser: str, found: Any) -> None:
    assert gold_of(gold, parser) == found
