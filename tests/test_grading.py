"""Parsers find the answer and its place; graders know numbers from their look-alikes."""

from __future__ import annotations

import pytest

from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import (
    PARSERS,
    as_parser,
    gsm8k,
    last_number,
    normalised,
    numeric,
    regex,
    tiny,
)
from bitcal_integrations.types import Answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 72", "72"),
        ("####72.", "72"),
        ("#### -7", "-7"),
        ("#### 3.5", "3.5"),
        ("#### $1,200.50", "1,200.50"),
        (r"#### \$36", "36"),
        ("#### <answer>72</answer>", "72"),
        ("#### <answer> $5 </answer>", "5"),
        ("#### 3/4", "3/4"),
        ("#### ####\n\nThe final answer is 13.", "13"),
        ("#### 5\n#### 6", "5"),
        ("#### <answer>\n\n#### 13 ####", "13"),
        ("### 5", None),
        ("#### none", None),
        ("#### -", None),
        ("no marker 5", None),
    ],
)
def test_gsm8k(text: str, answer: str | None) -> None:
    found = gsm8k(text)
    assert (found and found.text) == answer
    if found:
        assert text[found.start : found.end] == found.text


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("#### 7", False),
        ("#### 7\n", True),
        ("#### 7,", False),
        ("#### 7, so", True),
        ("#### 7.", False),
        ("#### 7. ", True),
        ("#### 7.5", False),
        ("#### 1/", False),
        ("####", False),
    ],
)
def test_a_growing_text_answers_only_when_nothing_can_change_it(text: str, complete: bool) -> None:
    assert (gsm8k(text, ended=False) is not None) is complete


@pytest.mark.parametrize("name", sorted(PARSERS))
def test_what_a_growing_text_answers_stays_the_answer(name: str) -> None:
    """The contract of every parser: an early answer is the final one."""
    parse = PARSERS[name]
    texts = [
        "#### 1,200.50 ok",
        "Paris\nis 4",
        "a\n#### -3/4\n#### 5",
        "12 of 100",
        "",
        "####",
        "x",
    ]
    for text in texts:
        final = parse(text)
        early = [parse(text[:cut], ended=False) for cut in range(len(text) + 1)]
        assert all(e == final for e in early if e is not None)


def test_tiny_prefers_the_marker_to_the_first_line() -> None:
    assert tiny("4 + 4 = 8\n#### 8") == Answer("8", 15, 16)
    assert tiny("Paris\n") == Answer("Paris", 0, 5)
    assert tiny("Paris\n", ended=False) is None


def test_last_number_is_not_part_of_a_word() -> None:
    assert last_number("x2 is 12 of 100.") == Answer("100", 12, 15)
    assert last_number("none") is None


def test_regex_takes_a_group_or_the_match() -> None:
    assert regex(r"is (\w+)\b")("it is Rome.") == Answer("Rome", 6, 10)
    assert regex(r"[AB]")("so B") == Answer("B", 3, 4)
    assert regex(r"[AB]")("so B", ended=False) is None


def test_as_parser() -> None:
    assert as_parser(None) is None
    assert as_parser("gsm8k") is gsm8k
    assert as_parser("regex:[0-9]+")("a 12 b").text == "12"
    assert as_parser(lambda text: text[-1] if text else None)("abc") == Answer("c", 2, 3)
    grown = as_parser(lambda text, ended: "b" if ended else None)
    assert grown("abc", ended=False) is None
    assert grown("abc") == Answer("b", 1, 2)
    for wrong in (Answer("x", -5, -2), Answer("x", 500, 900), 3, "elsewhere"):
        with pytest.raises(BadRequest, match=r"(the|a) parser return"):
            as_parser(lambda text, wrong=wrong: wrong)("abc")
    with pytest.raises(UnknownName, match="'gsm9k' is not a parser: first_line, gsm8k"):
        as_parser("gsm9k")
    with pytest.raises(BadRequest, match="not a regular expression"):
        as_parser("regex:(")


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
    ],
)
def test_numeric(answer: str, gold: str, right: bool) -> None:
    assert numeric(answer, gold) is right


def test_normalised() -> None:
    assert normalised("the Eiffel tower.", "Eiffel Tower")
    assert not normalised("Eiffel", "Eiffel Tower")
