"""P(True) is the share of True in what is said for True and False."""

from __future__ import annotations

import math

import pytest
from signal_help import said, seen, spoken

from bitcal_integrations.signals import p_true
from bitcal_integrations.types import Generation, make_request

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of X?"}]


def value(*tokens: dict[str, float]) -> float:
    return p_true.measure(seen(passes={"p_true": (spoken(*tokens),)}))


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ({"True": 0.6, "False": 0.2}, 0.75),
        # Variants add up: with a space, in capitals, with a mark; other words do not count.
        ({" True": 0.3, "True": 0.2, "TRUE": 0.1, "**False": 0.2, "Truth": 0.1}, 0.75),
        ({"The": 0.9, "true": 0.01, " False.": 0.03}, 0.25),
        # Not among the listed: at most as likely as the last of them.
        ({"True": 0.9, "No": 0.1}, 0.9),
        ({"Yes": 0.8, "False": 0.15, "x": 0.05}, 0.25),
        # No token for either word: their beginnings stand for them.
        ({"R": 0.5, "F": 0.3, "T": 0.05, " Tr": 0.05}, 0.25),
    ],
)
def test_by_hand(token: dict[str, float], expected: float) -> None:
    assert value(token) == pytest.approx(expected)


def test_beginnings_do_not_count_beside_the_words() -> None:
    assert value({"True": 0.5, "T": 0.2, "False": 0.1, "F": 0.1}) == pytest.approx(5 / 6)


def test_unknown_without_a_verdict() -> None:
    assert math.isnan(value({"Maybe": 0.9, "x": 0.1}))
    assert math.isnan(value())
    assert math.isnan(p_true.measure(seen()))


def test_a_chat_gets_one_more_turn_with_system_and_options_kept_apart() -> None:
    request = make_request(
        CHAT, parser="tiny", temperature=0.9, top_p=0.5, seed=3, stop=["\n"], max_new_tokens=99,
        chat_template_kwargs={"x": 1},
    )  # fmt: skip
    (asked,) = p_true.requests(request, said("It is Oslo", "Oslo"))
    assert [m["role"] for m in asked.prompt] == ["system", "user", "assistant", "user"]
    assert asked.prompt[:2] == tuple(CHAT)
    assert asked.prompt[2]["content"] == "It is Oslo"
    assert asked.prompt[3]["content"].startswith("Proposed answer: Oslo\n")
    assert (asked.max_new_tokens, asked.top_logprobs, asked.temperature) == (1, 100, 0.0)
    assert (asked.parser, asked.stop, asked.seed, asked.top_p) == (None, (), None, None)
    assert asked.chat_template_kwargs == {"x": 1, "enable_thinking": False}


def test_it_is_asked_without_the_grammar_of_the_answer() -> None:
    schema = {"type": "integer"}
    (asked,) = p_true.requests(make_request("2+2?", response_schema=schema), said("4"))
    assert asked.response_schema is None


def test_a_string_becomes_a_chat_unless_it_goes_through_no_template() -> None:
    (asked,) = p_true.requests(make_request("Capital of X?"), said("Oslo"))
    assert [m["role"] for m in asked.prompt] == ["user", "assistant", "user"]
    (asked,) = p_true.requests(make_request("Capital of X? ", chat=False), said("Oslo"))
    assert isinstance(asked.prompt, str)
    assert asked.prompt.startswith("Capital of X? Oslo\n\nProposed answer: Oslo\n")
    assert asked.prompt.endswith("\nReply:")


def test_reasoning_is_not_repeated() -> None:
    thought = Generation("<think>hm</think>Oslo", "stop", content_start=17, reasoning="hm")
    (asked,) = p_true.requests(make_request("Capital of X?"), thought)
    assert asked.prompt[1]["content"] == "Oslo"
    assert "think" not in asked.prompt[2]["content"]
