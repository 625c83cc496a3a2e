"""Graders know right from wrong, numbers from their look-alikes, and what cannot be told."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import as_grader, contains, normalised, numeric
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


def test_a_gold_that_is_no_letter_is_refused() -> None:
    with pytest.raises(BadRequest, match="'Paris' is no letter"):
        as_grader("choice")("B", "Paris")
