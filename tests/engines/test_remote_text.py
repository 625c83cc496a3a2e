"""An answer that comes in pieces: what ends it, which characters each token has, what is shown."""

from __future__ import annotations

import math

import pytest

from bitcal_integrations.engines._remote_text import Piece, RemoteText, Token
from bitcal_integrations.engines._remote_wire import body_of, piece_of
from bitcal_integrations.errors import BadRequest, EngineError
from bitcal_integrations.types import Generation, Step, make_request


def token(text: str, logprob: float = -0.1) -> Token:
    return Token(text, logprob, ((text, logprob), ("?", -2.5)))


def pieces(*texts: str, finish: str | None = "stop") -> list[Piece]:
    """One token a piece, the last with the end."""
    last = len(texts) - 1
    return [
        Piece(t, (token(t or "<end>"),), finish if i == last else None) for i, t in enumerate(texts)
    ]


def told(given: list[Piece], **options: object) -> tuple[Generation, list[Step]]:
    text = RemoteText(make_request("?", **options))
    steps = [step for piece in given for step in text.push(piece)]
    return text.generation(), steps


def shown(steps: list[Step]) -> str:
    return "".join(s.text for s in steps if not s.reasoning)


def test_numbers_are_the_servers_and_what_is_not_named_counts_as_one_alternative() -> None:
    generation, _ = told(pieces("4", ""))
    step = generation.steps[0]
    # e^-.1 = .904837, e^-2.5 = .082085, the rest .013078
    assert step.entropy == pytest.approx(0.0904837 + 0.2052125 + 0.0567170, abs=1e-5)
    assert (step.logprob, step.margin) == (-0.1, pytest.approx(2.4))
    assert math.isnan(step.logsumexp)


def test_an_answer_ends_it_and_what_follows_is_left_out() -> None:
    given = pieces("so ", "####", " 42", "\n", "never", "")
    generation, steps = told(given, parser="gsm8k")
    assert (generation.finish, generation.raw) == ("answer", "so #### 42\n")
    assert generation.answer is not None
    assert [s.text for s in generation.answer_steps()] == [" 42"]
    assert shown(steps) == generation.text


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_it_does_not_matter_how_many_tokens_come_together(size: int) -> None:
    texts = ["so ", "####", " 42", "\n", "never", " seen", ""]
    alone, _ = told(pieces(*texts), parser="gsm8k")
    groups = [texts[at : at + size] for at in range(0, len(texts), size)]
    given = [
        Piece("".join(g), tuple(token(t or "<end>") for t in g), "stop" if g[-1] == "" else None)
        for g in groups
    ]
    together, steps = told(given, parser="gsm8k")
    assert together == alone
    assert shown(steps) == alone.text


def test_a_stop_string_over_two_tokens_is_cut_and_never_shown() -> None:
    generation, steps = told(pieces("4 ", "\n", "\nmore", ""), stop="\n\n")
    assert (generation.raw, generation.finish, generation.stop_string) == ("4 ", "stop", "\n\n")
    assert shown(steps) == "4 "
    assert [s.end for s in generation.steps] == [2, 2, 2]


def test_what_waits_for_a_stop_string_is_shown_when_the_end_comes_without_a_token() -> None:
    given = [*pieces("4", "\n", finish=None), Piece(finish="stop")]
    generation, steps = told(given, stop="\n\n")
    assert shown(steps) == generation.text == "4\n"
    assert shown(list(generation.steps)) == "4\n"
    assert len(generation.steps) == 2


def test_a_loop_ends_it() -> None:
    generation, _ = told(pieces(*[" again"] * 300))
    assert generation.finish == "loop"
    assert generation.n_tokens < 120
    assert told(pieces(*[" again"] * 300), loop_stop=False)[0].finish == "stop"


def test_a_text_without_scores_that_says_much_is_no_loop() -> None:
    given = [Piece(f" {n}") for n in range(200)]
    assert told([*given, Piece(finish="stop")])[0].finish == "stop"


def test_the_tokens_of_one_character_share_it() -> None:
    given = [
        Piece("", (token("\\xe2\\x9c"),)),
        Piece("✓", (token("\\x93"),)),
        Piece("", (token("<end>"),), "stop"),
    ]
    generation, _ = told(given)
    assert [(s.start, s.end) for s in generation.steps] == [(0, 1), (0, 1), (1, 1)]


def test_reasoning_in_the_text_is_told_apart() -> None:
    given = pieces("<think>", "2 + 2", "</think>", "\n\n4", "")
    generation, steps = told(given)
    assert (generation.text, generation.reasoning) == ("4", "2 + 2")
    assert shown(steps) == "4"
    assert shown(list(generation.steps)) == "4"


def test_reasoning_that_the_server_keeps_apart_has_tokens_but_no_place() -> None:
    given = [Piece(reasoning="2 + 2", tokens=(token("2 + 2"),)), *pieces("4", "")]
    generation, steps = told(given, parser="first_line")
    assert (generation.raw, generation.reasoning) == ("4", "2 + 2")
    assert [s.reasoning for s in steps] == [True, False, False]
    assert [s.text for s in generation.answer_steps()] == ["4"]


def test_the_end_by_length_leaves_half_an_answer_out() -> None:
    generation, _ = told(pieces("#### 4", "2", finish="length"), parser="gsm8k")
    assert (generation.finish, generation.answer) == ("length", None)


def test_a_withheld_text_is_an_error_and_no_answer() -> None:
    assert told(pieces("It", " is", finish="content_filter"))[0].finish == "error"


def test_counts_are_the_servers_unless_it_was_cut_off() -> None:
    usage = Piece(usage=(7, 3))
    assert told([*pieces("4", ""), usage])[0].n_tokens == 3
    cut, _ = told([Piece("4\n", (token("4\n"),), usage=(7, 9)), usage], stop="\n")
    assert (cut.prompt_tokens, cut.n_tokens) == (7, 1)


def test_a_parser_that_exits_ends_its_request_only() -> None:
    def leave(text: str, ended: bool = True) -> None:
        raise SystemExit(3)

    with pytest.raises(EngineError, match="SystemExit"):
        told(pieces("4", ""), parser=leave)


@pytest.mark.parametrize(
    "event",
    [
        {"choices": [{"text": "4", "logprobs": {"tokens": ["4"], "token_logprobs": []}}]},
        {"choices": [{"text": "4", "logprobs": {"tokens": ["4"], "token_logprobs": [0.5]}}]},
        {"choices": [{"text": "4", "logprobs": {"tokens": [4], "token_logprobs": [-1]}}]},
        {"choices": [{"delta": {}, "logprobs": {"content": [{"token": "4"}]}}]},
        {"choices": 4},
        [],
    ],
)
def test_what_is_no_part_of_an_answer_is_refused_and_quoted(event: object) -> None:
    with pytest.raises(EngineError, match="no part of an answer"):
        piece_of(event, 5)


def test_a_token_beyond_the_named_ones_and_one_that_is_impossible() -> None:
    event = {
        "choices": [
            {
                "text": "c",
                "logprobs": {
                    "tokens": ["c"],
                    "token_logprobs": [-3.0],
                    "top_logprobs": [{"a": -0.2, "c": -3.0, "b": -2.0, "d": float("-inf")}],
                },
            }
        ]
    }
    (found,) = piece_of(event, 2).tokens
    assert found.top == (("a", -0.2), ("b", -2.0))
    assert piece_of(event, 4).tokens[0].top[-1] == ("d", -9999.0)


def test_an_alternative_without_a_number_is_none() -> None:
    scored = {"tokens": ["a"], "token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1, "b": None}]}
    (first,) = piece_of({"choices": [{"text": "a", "logprobs": scored}]}, 5).tokens
    assert first.top == (("a", -0.1),)
    with pytest.raises(EngineError, match="no part of an answer"):  # but what was chosen has one
        piece_of({"choices": [{"text": "a", "logprobs": {**scored, "token_logprobs": [None]}}]}, 5)


def test_more_alternatives_than_the_signals_are_measured_with_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"top_logprobs=9 .* top_logprobs=5"):
        body_of(make_request("?", top_logprobs=9), "chat", "toy", 5)
