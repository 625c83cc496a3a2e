"""Examples from files and lists: what is accepted, what is refused, and which part each is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitcal_integrations.dataset import PARTS, Example, read_examples, split
from bitcal_integrations.errors import CalibrationError


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_usual_keys_and_pairs() -> None:
    rows = [
        ("Why?", "because"),
        {"question": "Who?", "answer": "me"},
        {"messages": [{"role": "user", "content": "When?"}], "target": ["now", "today"]},
        {"prompt": "How many?", "gold": 3, "id": 7, "group": "g", "level": 2},
    ]
    pair, question, messages, numbered = read_examples(rows, group_by=())
    assert (pair.prompt, pair.gold) == ("Why?", "because")
    assert question.gold == "me"
    assert messages.gold == ("now", "today")
    assert isinstance(messages.prompt, tuple)
    assert (numbered.id, numbered.group, numbered.gold) == ("7", "g", "3")


def test_a_file_of_json_lines_and_its_groups(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "q.jsonl",
        {"prompt": "a", "gold": "1", "topic": "x", "level": 1},
        {"prompt": "b", "gold": "2", "topic": "x", "level": 2},
    )
    found = read_examples(path, group_id="topic", group_by="level")
    assert [e.group for e in found] == ["x", "x"]
    assert [e.by for e in found] == [{"level": "1"}, {"level": "2"}]
    by_call = read_examples(path, group_id=lambda row: row["topic"] + "!")
    assert {e.group for e in by_call} == {"x!"}


def test_equal_prompts_are_one_group_with_ids_of_their_own() -> None:
    first, second, other = read_examples([("a", "1"), ("a", "2"), ("b", "1")])
    assert first.group == second.group != other.group
    assert len({first.id, second.id, other.id}) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"text": "a", "gold": "1"}], "example 1: no prompt in ['gold', 'text']"),
        ([("a", "1"), {"prompt": "b"}], "example 2: no right answer"),
        ([{"prompt": 3, "gold": "1"}], "example 1: a prompt is a string"),
        ([{"prompt": "a", "gold": []}], "the list of right answers is empty"),
        ([("a", "1", "2")], "a dict or a (prompt, gold) pair"),
        ([("a", [None, "b"])], "a right answer is a text or a number, not None"),
        ([("a", [["b"]])], "a right answer is a text or a number, not ['b']"),
        ([("a", {"answer": "b"})], "a right answer cannot be {'answer': 'b'}"),
        ([("a", {"text": []})], "the list of right answers is empty"),
        ([], "there are no examples"),
        (5, "a path to JSONL or an iterable"),
        ([{"prompt": "a", "gold": 1, "id": 1}, {"prompt": "b", "gold": 2, "id": 1}], "id '1'"),
    ],
)
def test_what_is_refused_is_quoted(rows: Any, words: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        read_examples(rows)
    assert words in str(caught.value)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"prompt": "a", "gold": "1"}\n\n{"prompt": \n')
    with pytest.raises(CalibrationError, match=r"line 3 of q\.jsonl is not JSON"):
        read_examples(path)
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_examples(tmp_path / "none.jsonl")
    with pytest.raises(CalibrationError, match="no 'topic' as group"):
        read_examples([("a", "1")], group_id="topic")
    with pytest.raises(CalibrationError, match="no 'level' to group by"):
        read_examples([("a", "1")], group_by="level")


def test_right_answers_as_squad_and_trivia_qa_keep_them() -> None:
    squad = {"question": "a", "answers": {"text": ["Rome", "in Rome"], "answer_start": [3, 0]}}
    trivia = {"question": "b", "answer": {"value": "Nile", "aliases": ["Nile", "River Nile"]}}
    own = {"prompt": "c", "gold": {"tests": "assert f() == 1"}}
    found = read_examples([squad, trivia])
    assert [e.gold for e in found] == [("Rome", "in Rome"), ("Nile", "River Nile")]
    assert read_examples([own], any_gold=True)[0].gold == {"tests": "assert f() == 1"}


def test_a_line_ends_where_json_lines_end(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    text = '{"prompt": "one\u2028two\x85three\x0c", "gold": "1"}\r\n{"prompt": "b", "gold": "2"}\n'
    path.write_bytes(text.replace("\x0c", "\\f").encode())
    first, second = read_examples(path)
    assert first.prompt == "one\u2028two\x85three\x0c"
    assert second.gold == "2"


def test_what_is_judged_needs_no_right_answer(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "id": 1}, {"prompt": "b", "id": 2}]
    assert [e.gold for e in read_examples(rows, judged={"1", "2"})] == [None, None]
    with pytest.raises(CalibrationError, match="example 2: no right answer"):
        read_examples(rows, judged={"1"})
    kept = lines(tmp_path / "kept.jsonl", {"format": "bitcal-answers"}, {"id": "1"})
    with pytest.raises(CalibrationError, match="holds kept answers, not examples"):
        read_examples(kept)


def test_parts_hold_whole_groups_in_their_shares() -> None:
    examples = [Example(str(n), f"g{n // 4}", f"q{n}", "1") for n in range(400)]
    parts = split(examples, (0.5, 0.3, 0.2), seed=3)
    of_group = {e.group: {parts[x.id] for x in examples if x.group == e.group} for e in examples}
    assert all(len(found) == 1 for found in of_group.values())
    counts = [sum(p == name for p in parts.values()) for name in PARTS]
    assert counts == [200, 120, 80]
    assert parts == split(list(reversed(examples)), (0.5, 0.3, 0.2), seed=3)
    assert parts != split(examples, (0.5, 0.3, 0.2), seed=4)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.5, 0.4, 0.3), (1.5, -0.5, 0.0)])
def test_shares_that_are_none(shares: tuple[float, ...]) -> None:
    with pytest.raises(CalibrationError, match="three shares"):
        split([Example("a", "a", "q", "1")], shares)
