"""Graders know right from wrong, numbers from their look-alikes, and what cannot be told."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import as_grader, check_gold, contains, normalised, numeric
from bitcal_integrations.signals._same import same
from bitcal_integrations.tiny.tasks import grade, parse_answer, questions


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("-7", "7", False),
        ("3.5", "3", False),
        ("12 of 100", "12100", False),
        ("1,200", "1200", True),
        ("$4.", "4", True),
        ("1/2", "0.5", True),
        ("1/0", "0", False),
        ("", "0", False),
        (".5", "0.5", True),
        ("1,2", "12", False),
        ("-$5", "-5", True),
        ("−7", "-7", True),
    ],
)
def test_numeric(answer: str, gold: str, right: bool) -> None:
    assert numeric(answer, gold) is right


def test_normalised() -> None:
    assert normalised("the Eiffel tower.", "Eiffel Tower")
    assert not normalised("Eiffel", "Eiffel Tower")
    assert normalised("A", "a.")
    assert not normalised("A", "an")
    assert not normalised("A", "The")
    assert not normalised("-7", "7")
    assert not normalised("3.5", "35")
    assert normalised("+", "+")


DIFFERENT = [
    ("1.5 million", "15 million"),
    ("3.5 kg", "35 kg"),
    ("-7 degrees", "7 degrees"),
    ("-$5 million", "$5 million"),
    ("1,2", "12"),
    ("12:30", "1230"),
    ("10–12", "1012"),
    ("1/2 cup", "12 cup"),
    ("2^10 bytes", "210 bytes"),
    ("1e-5 m", "1e5 m"),
    ("5 - 3", "5 + 3"),
    ("Python 3.10", "Python 3.1"),
    ("C++", "C"),
    ("C#", "C"),
    ("A+", "A-"),
    ("O-", "O"),
]
EQUAL = [
    ("1,200 people", "1200 people."),
    ("1,200, and more", "1200 and more"),
    ("1990 – 1995", "1990-1995"),
    ("June 5, 1990", "june 5 1990"),
    ("−7 °C", "-7 C"),
    (".5 kg", "0.5 kg"),
    ("U.S.", "US"),
    ("COVID-19", "covid19"),
    ("don't", "dont"),
    ("the well-known (a) man!", "wellknown man"),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_numbers_and_names_keep_the_marks_that_make_them(one: str, other: str) -> None:
    assert not normalised(one, other)
    assert not normalised(other, one)
    assert not contains(one, other)
    assert not contains(f"it is {other}", one)
    assert not same(one, other)


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_words_are_compared_as_squad_does(one: str, other: str) -> None:
    assert normalised(one, other)
    assert same(other, one)
    assert contains(f"so {one}", other)


@pytest.mark.parametrize(
    ("name", "answer", "gold", "right"),
    [
        ("exact", " Paris\n", "Paris", True),
        ("exact", "paris", "Paris", False),
        ("normalised", "The Nile!", "nile", True),
        ("normalised", "1,200", 1200, True),
        ("numeric", "72", 72, True),
        ("numeric", "100.4", "100", False),
        ("numeric:0.01", "100.4", "100", True),
        ("numeric:0.01", "0.005", "0", True),
        ("numeric:1/2", "0.6", "1", True),
        ("choice", "Answer: (b)", "B", True),
        ("choice", "A cat", "A", False),
        ("choice", "C", "(C)", True),
        ("contains", "It was the Eiffel Tower, I think", "Eiffel tower", True),
        ("contains", "towering", "tower", False),
        ("contains", "about 1,200 of them", "1200", True),
        ("contains", "about -7", "7", False),
        ("contains", "3.5", "3", False),
        ("contains", "12 of 100", "12100", False),
        ("tiny", " PARIS. ", "Paris", True),
        ("tiny", "new  york", "New York", True),
        ("tiny", "York", "New York", False),
        ("numeric", "7", ["5", "7"], True),
        ("numeric", "6", ("5", "7"), False),
        ("exact", "", "x", False),
        ("exact", None, "x", None),
    ],
)
def test_by_name(name: str, answer: str | None, gold: object, right: bool | None) -> None:
    grader = as_grader(name)
    assert grader(answer, gold) is right
    assert grader.__name__ == name


def test_contains_a_number_only_as_a_whole() -> None:
    assert contains("(1,200)", "1200")
    assert not contains("v1.200", "200")
    assert not contains("200m", "200")


@pytest.mark.parametrize("task", ["math", "facts", "reading"])
def test_tiny_agrees_with_the_grader_of_the_built_in_tasks(task: str) -> None:
    grader = as_grader("tiny")
    asked = questions(task, "calibration", 40)
    for question, other in pairwise(asked):
        for text in (question.answer, other.answer, f" {question.answer}. "):
            assert grader(parse_answer(text), question.gold) is grade(question, text)


def test_a_callable() -> None:
    assert as_grader(lambda answer, gold: len(answer) == gold)("abc", 3) is True
    assert as_grader(lambda answer, gold: np.bool_(False))("a", "b") is False
    assert as_grader(lambda answer, gold: None)("a", "b") is None
    assert as_grader(lambda answer, gold: answer in gold)("a", ["b", "a"]) is True
    with pytest.raises(BadRequest, match=r"True, False or None, not 0\.5"):
        as_grader(lambda answer, gold: 0.5)("a", "b")


@pytest.mark.parametrize("what", ["exakt", "exact:3", "numeric:", "", 3, None])
def test_an_unknown_grader_is_named_with_the_known_ones(what: object) -> None:
    with pytest.raises(UnknownName, match="is not a grader: choice, code, contains, exact"):
        as_grader(what)


@pytest.mark.parametrize("option", ["x", "0", "-1"])
def test_a_wrong_option(option: str) -> None:
    with pytest.raises(BadRequest, match=f"'numeric:{option}' needs a number above 0"):
        as_grader(f"numeric:{option}")


@pytest.mark.parametrize("gold", [None, "", "  ", [], ["a", ""], [None]])
def test_an_empty_gold_is_refused(gold: object) -> None:
    with pytest.raises(BadRequest, match="nothing to compare with"):
        as_grader("exact")("x", gold)


@pytest.mark.parametrize(
    ("name", "gold", "words"),
    [
        ("numeric", "five", "'five' is no number"),
        ("numeric:0.1", ["five"], "'five' is no number"),
        ("choice", "Paris", "'Paris' is no letter"),
    ],
)
def test_a_gold_that_nothing_can_equal_is_refused(name: str, gold: object, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        as_grader(name)("5", gold)
    with pytest.raises(BadRequest, match=words):
        check_gold(name, gold)
    check_gold("numeric", ["five", "5"])
    check_gold(lambda answer, gold: True, {"any": "thing"})


def test_contains_knows_no_half_of_a_range_or_time() -> None:
    assert contains("from 10-12", "12")
    assert not contains("at 12:30", "12")
    assert not contains("at 12:30", "30")


def test_a_gold_that_is_no_letter_is_refused() -> None:
    with pytest.raises(BadRequest, match="'Paris' is no letter"):
        as_grader("choice")("B", "Paris")
