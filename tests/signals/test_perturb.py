"""The question is put another way by what it holds; the answer must stay."""

from __future__ import annotations

import math

import pytest
from langchain_core.prompts import PromptTemplate
from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT
from signal_help import said, seen

from bitcal_integrations.grading import as_parser
from bitcal_integrations.signals import perturb
from bitcal_integrations.signals._variants import OTHER_TEMPLATE, lettered
from bitcal_integrations.types import Generation, Request, make_request

OPTIONS = "Which is a city?\nA. red\nB. Rome\nC. seven\nAnswer:"
PASSAGES = "The river is long.\n\nThe town is old.\n\nThe sea is cold."


def asked(prompt: object, **options: object) -> Request:
    (request,) = perturb.requests(make_request(prompt, **options), said("x"))
    return request


def test_options_move_on_and_none_keeps_its_letter() -> None:
    assert asked(OPTIONS).prompt == "Which is a city?\nA. seven\nB. red\nC. Rome\nAnswer:"
    chat = [{"role": "system", "content": OPTIONS}, {"role": "user", "content": OPTIONS}]
    system, user = asked(chat).prompt
    assert system["content"] == OPTIONS
    assert user["content"] == asked(OPTIONS).prompt


@pytest.mark.parametrize("style", ["({}) {}", "{}) {}", "  {}: {}"])
def test_options_in_other_styles(style: str) -> None:
    text = "\n".join(style.format(*pair) for pair in zip("AB", ("red", "Rome"), strict=True))
    moved = "\n".join(style.format(*pair) for pair in zip("AB", ("Rome", "red"), strict=True))
    assert asked(text).prompt == moved


@pytest.mark.parametrize(
    "text",
    [
        "A. red\nB. none of the above",
        "A. red\nB. blue\nC. both A and B",
        "A. the only one",
        "B. red\nC. blue",
        "A. Smith wrote it.",
    ],
)
def test_what_are_no_options_to_move(text: str) -> None:
    assert lettered(text) == []
    assert asked(text).prompt == OTHER_TEMPLATE + text


def test_the_last_block_of_examples_is_the_question() -> None:
    shots = "1?\nA. x\nB. y\nAnswer: A\n\n2?\nA. u\nB. v\nAnswer:"
    assert asked(shots).prompt == "1?\nA. x\nB. y\nAnswer: A\n\n2?\nA. v\nB. u\nAnswer:"


@pytest.mark.parametrize(
    ("parser", "given", "reply", "agrees"),
    [
        ("choice", "B", "Answer: C", 1.0),  # Rome has moved from B to C
        ("choice", "B", "Answer: B", 0.0),
        ("choice", "C", "(A)", 1.0),  # the last option has come first
        ("first_line", "B. Rome", "C. Rome", 1.0),
        ("first_line", "Rome", "Rome", 1.0),
        ("first_line", "B", "c", 1.0),
        ("choice", "A", "D", 0.0),  # no such option
    ],
)
def test_the_letter_is_turned_back(parser: str, given: str, reply: str, agrees: float) -> None:
    request = asked(OPTIONS, parser=parser)
    found = as_parser(request.parser)(reply)
    again = Generation(reply, "stop", answer=found)
    assert perturb.measure(seen(answer=given, passes={"perturb": (again,)})) == agrees


def test_without_a_parser_letters_are_read_as_choices() -> None:
    found = as_parser(asked(OPTIONS).parser)("So C.")
    again = Generation("So C.", "stop", answer=found)
    assert perturb.measure(seen(text="The answer is B.", passes={"perturb": (again,)})) == 1.0
    assert perturb.measure(seen(text="The answer is C.", passes={"perturb": (again,)})) == 0.0


LANGCHAIN = PromptTemplate.from_template("Question: {question} \nContext: {context} \nAnswer:")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            DEFAULT_TEXT_QA_PROMPT.format(context_str=PASSAGES, query_str="How old?"),
            DEFAULT_TEXT_QA_PROMPT.format(
                context_str="The river is long.\n\nThe town is old.", query_str="How old?"
            ),
        ),
        (
            LANGCHAIN.format(question="How old?", context=PASSAGES),
            LANGCHAIN.format(question="How old?", context="The river is long.\n\nThe town is old."),
        ),
        ("<context>\na\n\nb\n</context>\nWhere?", "<context>\na\n</context>\nWhere?"),
    ],
)
def test_the_last_passage_of_a_context_is_left_out(before: str, after: str) -> None:
    assert asked(before).prompt == after
    system, user = asked(
        [{"role": "system", "content": before}, {"role": "user", "content": "Where?"}]
    ).prompt
    assert (system["content"], user["content"]) == (after, "Where?")


def test_a_single_passage_stays() -> None:
    text = "Context: The town is old.\nQuestion: How old?\nAnswer:"
    assert asked(text).prompt == OTHER_TEMPLATE + text


def test_the_request_keeps_its_options() -> None:
    request = asked("Where?", parser="tiny", temperature=0.5, seed=3, top_logprobs=4, stop="\n")
    assert (request.parser, request.temperature, request.seed) == ("tiny", 0.5, 3)
    assert (request.stop, request.top_logprobs) == (("\n",), 0)


def test_unknown_without_the_pass() -> None:
    assert math.isnan(perturb.measure(seen(answer="5")))
