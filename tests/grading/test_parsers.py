"""Parsers find the answer and its place, and never answer early what could still change."""

from __future__ import annotations

import pytest

from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.grading import (
    PARSERS,
    as_number,
    as_parser,
    gsm8k,
    json_field,
    last_number,
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
        ("#### -$5", "-$5"),
        ("#### $-5", "-5"),
        ("#### −7", "−7"),
        ("#### -3/4", "-3/4"),
        ("#### **72**", "72"),
        (r"#### $\boxed{72}$", "72"),
        ("#### 1,00,000", "1,00,000"),
        ("#### 1e3", "1e3"),
        ("#### 5 1/2", "5 1/2"),
        ("#### +7", "7"),
        ("#### 10 000", "10 000"),
        ("#### 10\u202f000", "10\u202f000"),
        ("#### 18 apples", "18"),
        ("#### 1,2", None),
        ("#### 12 345", None),
        ("#### 10-12", None),
        ("#### 18 / 2 = 9", None),
        ("#### 1,2\n#### 3", "3"),
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
        ("#### 7 ", False),  # 7 000 and 7 1/2 may follow
        ("#### 7 of", True),
        ("#### 7e", False),
        ("#### **7**", True),
    ],
)
def test_a_growing_text_answers_only_when_nothing_can_change_it(text: str, complete: bool) -> None:
    assert (gsm8k(text, ended=False) is not None) is complete


@pytest.mark.parametrize("name", [*sorted(PARSERS), "json:answer", "json:n", "json:x"])
def test_what_a_growing_text_answers_stays_the_answer(name: str) -> None:
    """The contract of every parser: an early answer is the final one."""
    parse = as_parser(name)
    assert parse
    texts = [
        "#### 1,200.50 ok",
        "Paris\nis 4",
        "a\n#### -3/4\n#### 5",
        "12 of 100",
        "",
        "####",
        "x",
        "#### 1,2000 and 12,34,567",
        "#### -$1,200 or 3/4 of it",
        "#### 10 000 or 5 1/2\n#### 1e3 = 1000",
        "#### 5 1/2-3, #### 12 - 3\n#### 7e each",
        "#### **7** / 2 and #### +1\u2009000 m",
        'So {"answer": "B", "n": 12, "x": [1, {"y": 2}]} or {"answer": "C"}',
        '{"answer": null, "answer": 1.5e3 }',
        "(A) no\nThe answer is B. Or c)",
    ]
    for text in texts:
        final = parse(text)
        early = [parse(text[:cut], ended=False) for cut in range(len(text) + 1)]
        assert all(e == final for e in early if e is not None)


def test_tiny_prefers_the_marker_to_the_first_line() -> None:
    assert tiny("4 + 4 = 8\n#### 8") == Answer("8", 15, 16)
    assert tiny("Paris\n") == Answer("Paris", 0, 5)
    assert tiny("Paris\n", ended=False) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("x2 is 12 of 100.", "100"),
        ("none", None),
        ("either 1,2,3", "3"),
        ("it is -$1,200.50.", "-$1,200.50"),
        ("so $-5", "-5"),
        ("10-7", "7"),
        ("so -7", "-7"),
        ("about 1e5.", "1e5"),
        ("10 000 of them", "10 000"),
        ("10\u00a0000 km", "10\u00a0000"),
        ("1 000 000", "1 000 000"),
        ("5 1/2 cups", "5 1/2"),
        ("in 2020 300 people", "300"),
        ("it is 12 345", None),
        ("at 12:30", None),
        ("version 2.5.1", None),
    ],
)
def test_last_number_is_not_part_of_a_word_nor_a_guess(text: str, answer: str | None) -> None:
    found = last_number(text)
    assert (found and found.text) == answer
    if found:
        assert text[found.start : found.end] == found.text


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
    with pytest.raises(UnknownName, match="'gsm9k' is not a parser: choice, first_line, gsm8k"):
        as_parser("gsm9k")
    with pytest.raises(BadRequest, match="not a regular expression"):
        as_parser("regex:(")


@pytest.mark.parametrize(
    ("text", "field", "answer"),
    [
        ('{"answer": "Paris"}', "answer", "Paris"),
        ('```json\n{"why": "x", "answer" : -7}\n```', "answer", "-7"),
        ('{"answer": [1, 2]}', "answer", "[1, 2]"),
        ('{"answer": true}', "answer", "true"),
        ('{"a": {"answer": "in"}}', "answer", "in"),
        ('{"answer": "say \\"hi\\""}', "answer", 'say "hi"'),
        ('{"answer": <number>} {"answer": 5}', "answer", "5"),
        ('{"answer": null}', "answer", None),
        ('{"answers": 5}', "answer", None),
        ("answer: 5", "answer", None),
        ('{"größe": 5}', "größe", "5"),
        ('{"answer": "cut', "answer", None),
    ],
)
def test_json_field(text: str, field: str, answer: str | None) -> None:
    found = json_field(field)(text)
    assert (found and found.text) == answer
    if found and "\\" not in text:
        assert text[found.start : found.end] == found.text


def test_json_field_is_complete_when_its_value_is_closed() -> None:
    parse = as_parser("json:n")
    assert parse('{"n": 4', ended=False) is None  # 42 may follow
    assert parse('{"n": 4,', ended=False) == Answer("4", 6, 7)
    assert parse('{"n": "4', ended=False) is None
    assert parse('{"n": "4" ', ended=False) == Answer("4", 7, 8)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,200.50", 1200.5),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("−7", -7.0),
        ("3/4", 0.75),
        ("-3/4", -0.75),
        ("12,34,567", 1234567.0),
        ("50%", 50.0),
        ("+7", 7.0),
        ("1e3", 1000.0),
        ("1.5e-3", 0.0015),
        ("5 1/2", 5.5),
        ("-5 1/2", -5.5),
        ("10 000", 10000.0),
        ("1\u2009234\u2009567", 1234567.0),
        ("12 345", None),
        ("5 1/0", None),
        ("1,2", None),
        ("12 of 100", None),
        ("1/0", None),
        ("x", None),
        ("", None),
    ],
)
def test_as_number(text: str, value: float | None) -> None:
    assert as_number(text) == value
