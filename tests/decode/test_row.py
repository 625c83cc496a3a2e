"""What ends a text, and what of it is shown: planned tokens are pushed into a row."""

from __future__ import annotations

import pytest
from families import tiny_tokenizer

from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.errors import BadRequest, PromptTooLong
from bitcal_integrations.types import Generation, make_request

NUMBERS = (-0.5, 0.1, 0.2, 3.0)


def feed(net: Net, text: str | list[int], **options) -> tuple[Generation, list[str]]:
    """Push a text's tokens until the row ends; the Generation and the streamed pieces."""
    row = Row(net, make_request("p", **{"max_new_tokens": 2000, **options}))
    ids = net.tokenizer(text)["input_ids"] if isinstance(text, str) else text
    shown = []
    for token in ids:
        shown.append(row.push(token, NUMBERS).text)
        if row.finish:
            break
    return row.generation(), shown


def test_a_stop_string_of_several_tokens_ends_and_is_not_shown(net: Net) -> None:
    generation, shown = feed(net, "One. Two.\n\nThree", stop=["\n\n"])
    assert generation.text == "One. Two." == "".join(shown)
    assert (generation.finish, generation.finish_reason) == ("stop", "stop")
    assert generation.stop_string == "\n\n"
    assert generation.n_tokens == len("One. Two.\n\n")
    assert generation.steps[-1].start == generation.steps[-1].end == len("One. Two.")


def test_what_could_begin_a_stop_string_waits(net: Net) -> None:
    _, shown = feed(net, "a<|b", stop=["<|end|>"])
    assert shown == ["a", "", "", "<|b"]


def test_the_earliest_stop_string_wins(net: Net) -> None:
    generation, _ = feed(net, "xxENDSTOP", stop=["STOP", "END"])
    assert (generation.text, generation.stop_string) == ("xx", "END")


def test_a_stop_string_at_the_very_start_gives_an_empty_text(net: Net) -> None:
    generation, shown = feed(net, "STOP", stop=["STOP"])
    assert generation.text == ""
    assert "".join(shown) == ""


def test_held_back_text_is_shown_when_the_text_ends(net: Net) -> None:
    generation, shown = feed(net, "abc<", stop=["<end>"], max_new_tokens=4)
    assert generation.text == "abc<" == "".join(shown)
    assert generation.finish == "length"


@pytest.mark.parametrize("text", ["naïve café", "日本語 🙂 ok", "e\u0301 \u200d 👩‍👩‍👧"])
def test_characters_of_many_tokens_come_whole(net: Net, text: str) -> None:
    generation, shown = feed(net, text)
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown)
    ranges = {(s.start, s.end) for s in generation.steps}
    assert "".join(generation.raw[a:b] for a, b in sorted(ranges)) == text
    assert all(b > a for a, b in ranges)


def test_a_text_that_is_cut_inside_a_character_ends_all_the_same(net: Net) -> None:
    ids = net.tokenizer("a🙂")["input_ids"][:-1]
    generation, _ = feed(net, ids, max_new_tokens=len(ids))
    assert generation.finish == "length"
    assert generation.raw == net.decode(ids)


def test_eos_is_a_step_without_text(net: Net) -> None:
    generation, _ = feed(net, [*net.tokenizer("Hi")["input_ids"], 2, 60])
    assert (generation.text, generation.finish, generation.n_tokens) == ("Hi", "stop", 3)
    assert generation.steps[-1].token_id == 2
    assert generation.steps[-1].text == ""


def test_a_complete_answer_ends_only_if_a_parser_is_named(net: Net) -> None:
    text = "3 + 4 = 7\n#### 7\nHuman: next"
    ended, _ = feed(net, text, parser="gsm8k")
    assert ended.finish == "answer"
    assert ended.raw == "3 + 4 = 7\n#### 7\n"
    assert ended.answer is not None
    assert ended.answer.text == "7"
    assert [s.text for s in ended.answer_steps()] == ["7"]
    free, _ = feed(net, text)
    assert free.raw == text
    assert free.answer is None


@pytest.mark.parametrize(("cut", "answer"), [(9, None), (10, None), (11, "1,200")])
def test_half_a_number_is_no_answer(net: Net, cut: int, answer: str | None) -> None:
    text = "#### 1,200\n"  # 1, 1,2 and 1,20 are numbers too, and 1,200 might go on
    generation, _ = feed(net, text, parser="gsm8k", max_new_tokens=cut)
    assert (generation.answer and generation.answer.text) == answer


def test_a_plain_callable_does_not_cut_an_answer_short(net: Net) -> None:
    def parser(text: str) -> str | None:
        return text.partition("#### ")[2] or None

    generation, _ = feed(net, [*net.tokenizer("so #### 1,200")["input_ids"], 2], parser=parser)
    assert generation.finish == "stop"
    assert generation.answer is not None
    assert generation.answer.text == "1,200"


def test_the_answer_span_has_all_tokens_of_its_characters(net: Net) -> None:
    generation, _ = feed(net, [*net.tokenizer("日")["input_ids"], 2], parser="first_line")
    assert len(generation.answer_steps()) == 3


@pytest.mark.parametrize("end", ["", "</s>"])
@pytest.mark.parametrize(
    "text",
    [
        "<think>a b</think>\n\nSo 4",
        "\n<think>\nhm\n</think>4",
        "<think></think>\n\n",
        "<thin is no mark",
        "<",
        "plain",
    ],
)
def test_the_stream_of_content_adds_up_to_the_text(net: Net, text: str, end: str) -> None:
    row = Row(net, make_request("p", max_new_tokens=len(text) + bool(end)))
    ids = net.tokenizer(text)["input_ids"] + ([2] if end else [])
    streamed = [row.push(token, NUMBERS) for token in ids]
    generation = row.generation()
    assert "".join(s.text for s in streamed if not s.reasoning) == generation.text


def test_content_in_one_token_with_the_end_of_reasoning(net: Net) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["</think> So"])
    ids = tokenizer("<think>a</think> So it")["input_ids"]
    row = Row(Net(net.model, tokenizer), make_request("p", max_new_tokens=len(ids)))
    streamed = [row.push(token, NUMBERS) for token in ids]
    assert "".join(s.text for s in streamed if not s.reasoning) == row.generation().text == "So it"


def test_a_loop_ends_the_text_unless_switched_off(net: Net) -> None:
    text = "Start. " + "again and " * 60
    generation, _ = feed(net, text)
    assert generation.finish == "loop"
    assert generation.finish_reason == "stop"
    assert generation.n_tokens < len(text) / 2
    assert feed(net, text, loop_stop=False)[0].n_tokens == len(text)


@pytest.mark.parametrize(
    "text",
    [
        "-" * 80 + "\n| a | b |\n" + "-" * 80,
        "\n".join(f"{i}. item number {i}" for i in range(40)),
        "".join(f"x{i} = x{i - 1} + 1\n" for i in range(60)),
        "ha" * 30,
    ],
)
def test_tables_lists_and_rulers_are_no_loops(net: Net, text: str) -> None:
    assert feed(net, text)[0].raw == text


def test_reasoning_is_kept_apart_and_the_answer_is_looked_for_after_it(net: Net) -> None:
    text = "<think>maybe #### 3 no\n</think>\n\nSo #### 4\nmore"
    generation, _ = feed(net, text, parser="gsm8k")
    assert generation.reasoning == "maybe #### 3 no"
    assert generation.text == "So #### 4\n"
    assert generation.answer is not None
    assert generation.answer.text == "4"
    assert generation.raw[generation.answer.start : generation.answer.end] == "4"
    assert [s.reasoning for s in generation.steps].count(True) >= len("maybe #### 3 no")


def test_reasoning_that_never_ends_leaves_no_text(net: Net) -> None:
    generation, _ = feed(net, "<think>hm #### 5 and", parser="gsm8k", max_new_tokens=19)
    assert (generation.text, generation.answer) == ("", None)
    assert generation.reasoning is not None


def test_reasoning_opened_by_the_prompt(chat_net: Net) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{{ messages[0]['content'] }}<think>\n"
    net = Net(chat_net.model, tokenizer)
    generation, _ = feed(net, "because</think>\nfour")
    assert (generation.reasoning, generation.text) == ("because", "four")


def test_reasoning_marks_that_are_special_tokens_stay_visible(net: Net) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    open_id, close_id = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    spoken = tokenizer("hm", add_special_tokens=False)["input_ids"]
    generation, _ = feed(Net(net.model, tokenizer), [open_id, *spoken, close_id, *spoken])
    assert (generation.reasoning, generation.text) == ("hm", "hm")


def test_the_context_bounds_the_answer_and_refuses_a_longer_prompt(net: Net) -> None:
    row = Row(net, make_request("x" * 2000, max_new_tokens=100))
    assert row.limit == 48
    with pytest.raises(PromptTooLong, match=r"2048 tokens .* context holds 2048"):
        Row(net, make_request("x" * 2048))


def test_a_failing_parser_ends_its_own_row_with_its_error(net: Net) -> None:
    def parser(text: str, ended: bool = True) -> str:
        raise KeyError("broken parser")

    row = Row(net, make_request("p", parser=parser))
    with row.guard():
        row.push(70, NUMBERS)
    assert row.finish == "error"
    assert isinstance(row.error, KeyError)


def test_a_parser_that_invents_text_is_refused(net: Net) -> None:
    row = Row(net, make_request("p", parser=lambda text: "elsewhere"))
    row.push(2, NUMBERS)
    with pytest.raises(BadRequest, match="'elsewhere', which is not part of the text"):
        row.generation()
