"""The questions: splits never meet, right answers are right, wordings hold what they must."""

import re
from collections import Counter
from fractions import Fraction

import pytest

from bitcal_integrations.tiny.countries import ATTRIBUTES, countries, facts, facts_in
from bitcal_integrations.tiny.tasks import (
    SPLITS,
    TASKS,
    grade,
    parse_answer,
    questions,
    split_of,
    stream,
)

STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)$")
DO = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
# What the story's sentences mean, written down apart from the generator.
MEANING = (
    (r"^{p} (?:buys|finds|makes) (\d+)", "+"),
    (r"^\w+ gives {p} (\d+)", "+"),
    (r"^{p} (?:loses|sells|gives|throws away) (\d+)", "-"),
    (r"^Then the number grows to (\d+) times", "*"),
    (r"^\w+ brings {p} up to (\d+) times", "*"),
    (r"^{p} splits them into (\d+) equal parts", "/"),
    (r"^{p} shares them equally among (\d+) people", "/"),
)


def solve(prompt: str) -> tuple[Fraction, int]:
    """Read the story again, sentence by sentence: the final count and the number of steps."""
    start = re.search(r"(\w+) has (\d+) \w+\.", prompt)
    assert start is not None
    person, count, steps = start[1], Fraction(start[2]), 0
    for sentence in prompt[start.end() :].split("."):
        for pattern, op in MEANING:
            found = re.match(pattern.format(p=person), sentence.strip())
            if found:
                count, steps = Fraction(DO[op](count, Fraction(found[1]))), steps + 1
    return count, steps


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_gives_the_same_questions(task: str) -> None:
    assert questions(task, "test", 5, seed=3) == questions(task, "test", 5, seed=3)
    assert questions(task, "test", 5, seed=3) != questions(task, "test", 5, seed=4)


@pytest.mark.parametrize("task", TASKS)
def test_splits_never_share_a_prompt(task: str) -> None:
    prompts = {split: {q.prompt for q in questions(task, split, 1500)} for split in SPLITS}
    assert not prompts["train"] & prompts["calibration"]
    assert not prompts["train"] & prompts["test"]
    assert not prompts["calibration"] & prompts["test"]


def test_the_numbers_of_a_problem_stay_in_one_split() -> None:
    """One step: even the bare sum `count op number` is never shared, whatever the words."""

    def sums(split: str) -> set[tuple[str, str]]:
        drawn = questions("math", split, 3000)
        return {(q.answer.split(":")[0], q.answer.splitlines()[0]) for q in drawn if q.steps == 1}

    assert not sums("train") & sums("test")
    assert not sums("train") & sums("calibration")


def test_the_split_is_a_stable_function_of_the_content() -> None:
    shares = Counter(split_of(f"key {i}") for i in range(4000))
    assert shares["train"] / 4000 == pytest.approx(0.7, abs=0.03)
    assert [split_of(key) for key in ("a", "b", "c")] == ["calibration", "train", "train"]


def test_gold_answers_of_word_problems_by_reading_the_story() -> None:
    for question in questions("math", "test", 400):
        assert solve(question.messages[-1]["content"]) == (int(question.gold), question.steps)


def test_written_steps_are_right_and_chained() -> None:
    for question in questions("math", "train", 400):
        *lines, last = question.answer.splitlines()
        steps = [STEP.search(line) for line in lines if line != "Check:"]
        assert all(s and DO[s[2]](int(s[1]), int(s[3])) == int(s[4]) for s in steps)
        first = steps[: question.steps]
        assert [s[4] for s in first[:-1]] == [s[1] for s in first[1:]]
        assert last == f"#### {first[-1][4]}" == f"#### {question.gold}"


def test_a_third_of_the_problems_repeat_their_steps_as_a_check() -> None:
    drawn = questions("math", "train", 900)
    checked = [q for q in drawn if "Check:" in q.answer]
    assert len(checked) / 900 == pytest.approx(1 / 3, abs=0.06)
    assert {q.steps for q in drawn} == {1, 2, 3, 4, 5, 6}
    for question in drawn:
        assert ("Check your steps." in question.prompt) == (question in checked)
    for question in checked:
        steps, repeated = question.answer.split("\nCheck:\n")
        assert [line.split(": ")[1] for line in steps.splitlines()] == repeated.splitlines()[:-1]


def test_facts_are_true_and_the_tail_is_never_shown() -> None:
    table = {row["name"]: row for row in countries()}
    assert len(table) == 193
    assert table["France"]["capital"] == "Paris"
    assert {f.bucket: f.weight > 0 for f in facts()} == {"head": True, "torso": True, "tail": False}
    shown = {(f.country, f.attribute) for f in facts() if f.weight}
    tail = {(f.country, f.attribute) for f in facts_in("tail")}
    assert len(tail) > 300
    assert not shown & tail
    for question in questions("facts", "train", 2000):
        assert question.bucket != "tail"


def test_facts_of_the_tail_are_in_no_training_passage() -> None:
    values = {(f.country, f.attribute): f.value for f in facts_in("tail")}
    sentences = {
        "capital": ("The capital of {e} is {v}.", "{v} is the capital of {e}."),
        "language": ("The main language of {e} is {v}.", "Most people in {e} speak {v}."),
        "continent": ("{e} lies in {v}.", "{e} is a country in {v}."),
        "currency": ("The currency of {e} is the {v}.", "People in {e} pay with the {v}."),
    }
    leaks = {
        sentence.format(e=country, v=value)
        for (country, attribute), value in values.items()
        for sentence in sentences.get(attribute, ())
    }
    text = "\n".join(q.prompt for q in questions("reading", "train", 2000))
    assert not [leak for leak in leaks if leak in text]


def test_reading_answers_stand_in_the_prompt_or_are_unknown() -> None:
    drawn = questions("reading", "test", 1000)
    unknown = [q for q in drawn if q.bucket == "unknown"]
    assert 0.1 < len(unknown) / len(drawn) < 0.3
    for question in drawn:
        assert question.gold in question.prompt or question.gold == "unknown"


def test_every_attribute_is_asked() -> None:
    text = " ".join(q.prompt for q in questions("facts", "test", 500))
    assert all(word in text for word in ("capital", "currency", "continent", "language", "phone"))
    assert len(ATTRIBUTES) == 6


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("buys: 2+3=5\n#### 5", "5"),
        ("#### 4\n#### 7\nmore", "7"),
        (" Paris\nis it", "Paris"),
        ("", None),
        ("####", None),
    ],
)
def test_the_parser_takes_what_follows_the_mark_or_the_first_line(
    text: str, answer: str | None
) -> None:
    assert parse_answer(text) == answer


@pytest.mark.parametrize("task", TASKS)
def test_the_grader_accepts_the_full_answer_and_refuses_another(task: str) -> None:
    for question in questions(task, "calibration", 50):
        assert grade(question, question.answer)
        assert grade(question, f" {question.answer.upper()}. ")
        assert not grade(question, question.answer + "1")
        assert not grade(question, "")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no task 'chess'"):
        next(stream("chess", "train"))
    with pytest.raises(ValueError, match="no split 'dev'"):
        next(stream("math", "dev"))
