"""ask(list, total_tokens=N): what is spent on whom, how texts go on, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.budget import ANSWER_TOKENS, Budget
from bitcal_integrations.decode.onward import Onward
from bitcal_integrations.errors import BadRequest, BatchError
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import questions
from bitcal_integrations.types import Record

ASKED: dict[str, Any] = {"parser": "tiny", "max_new_tokens": 120}
PROMPTS = [list(q.messages) for q in questions("math", "test", 40, seed=3) if q.steps <= 2][:5]


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    """Smaller batches than the lists, in float32."""
    with load("bitcal-tiny", weights=None, dtype="float32", profile=None, max_batch=3) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def whole(model: CalibratedModel) -> list[Record]:
    return list(model.ask(PROMPTS, **ASKED))


def tokens(records: list[Record]) -> int:
    return sum(r.generation.n_tokens + r.generation.probe_tokens for r in records)


def test_enough_for_all_changes_no_answer(model: CalibratedModel, whole: list[Record]) -> None:
    found = model.ask(PROMPTS, total_tokens=tokens(whole), **ASKED)
    assert [r.generation.answer for r in found] == [r.generation.answer for r in whole]
    assert [r.text for r in found] == [r.text for r in whole]
    assert [r.generation.finish for r in found] == [r.generation.finish for r in whole]
    assert tokens(found) <= tokens(whole)
    assert [list(r.request.prompt) for r in found] == PROMPTS


@pytest.mark.parametrize("closing", [None, "#### "])
@pytest.mark.parametrize("total", [1, 40, 90])
def test_no_more_is_spent(
    model: CalibratedModel, whole: list[Record], total: int, closing: str | None
) -> None:
    found = model.ask(PROMPTS, total_tokens=total, closing=closing, **ASKED)
    assert tokens(found) <= total < tokens(whole)
    for record, full in zip(found, whole, strict=True):
        generation = record.generation
        assert len(generation.steps) <= generation.n_tokens
        if generation.finish != "length":
            assert record.text == full.text
            assert generation.stopped is None
            continue
        assert generation.stopped is not None
        assert generation.stopped["level"] == "budget"
        assert record.confidence.value is None
        assert record.bitcal()["stopped"]["reason"].endswith(f"budget of {total} tokens")


def test_the_shortest_rows_come_to_their_end(model: CalibratedModel, whole: list[Record]) -> None:
    """Half of what all need is enough for more than half of them; an equal share is for none."""
    total = tokens(whole) // 2
    found = model.ask(PROMPTS, total_tokens=total, **ASKED)
    ended = [r.generation.finish != "length" for r in found]
    alike = [r.generation.n_tokens <= total // len(PROMPTS) for r in whole]
    assert sum(ended) > sum(alike)


def test_equal_calls_give_equal_answers(model: CalibratedModel) -> None:
    first, again = (model.ask(PROMPTS, total_tokens=100, closing="#### ", **ASKED) for _ in "ab")
    assert [r.generation.raw for r in first] == [r.generation.raw for r in again]


async def test_the_same_for_an_event_loop(model: CalibratedModel) -> None:
    plain = model.ask(PROMPTS, total_tokens=100, closing="#### ", **ASKED)
    found = await model.aask(PROMPTS, total_tokens=100, closing="#### ", **ASKED)
    assert [r.generation.raw for r in found] == [r.generation.raw for r in plain]


def test_one_prompt_has_it_all(model: CalibratedModel, whole: list[Record]) -> None:
    record = model.ask(PROMPTS[0], total_tokens=500, **ASKED)
    assert record.text == whole[0].text


def test_a_closed_row_holds_an_answer_of_unknown_confidence(model: CalibratedModel) -> None:
    text = Onward(model.request_of(PROMPTS[0], **ASKED), model.tokenizer, "#### ")
    (first,) = (r for _, r in model.ask_requests([text.further(9)]))
    text.take(first.generation, 9)
    assert text.open
    before, cost = text.raw, text.closing_cost()
    (answer,) = (r for _, r in model.ask_requests([text.closing_request(ANSWER_TOKENS)]))
    text.close(answer.generation, {"level": "budget", "reason": "cut"})
    generation = text.generation()
    assert generation.raw.startswith(before)
    assert "#### " in generation.raw[len(before) :]
    assert generation.answer is not None
    assert generation.raw.endswith(generation.answer.text)
    assert generation.n_tokens == 9 + cost + answer.generation.n_tokens
    assert generation.finish == "length"


@pytest.mark.parametrize("piece", [1, 6])
def test_a_text_in_pieces_is_the_text(
    model: CalibratedModel, whole: list[Record], piece: int
) -> None:
    text = Onward(model.request_of(PROMPTS[1], **ASKED), model.tokenizer)
    while text.open:
        ((_, record),) = model.ask_requests([text.further(piece)])
        text.take(record.generation, piece)
    joined, full = text.generation(), whole[1].generation
    assert (joined.raw, joined.finish, joined.answer) == (full.raw, full.finish, full.answer)
    assert (joined.n_tokens, joined.prompt_tokens) == (full.n_tokens, full.prompt_tokens)
    assert [s.token_id for s in joined.steps] == [s.token_id for s in full.steps]
    for ours, theirs in zip(joined.steps, full.steps, strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert (ours.start, ours.end) == (theirs.start, theirs.end)
    assert [s.token_id for s in joined.answer_steps()] == [s.token_id for s in full.answer_steps()]


def test_a_stop_string_may_lie_in_two_pieces(model: CalibratedModel, whole: list[Record]) -> None:
    raw = whole[1].generation.raw
    stop = raw[8:20]
    request = model.request_of(PROMPTS[1], **ASKED, stop=stop)
    text = Onward(request, model.tokenizer)
    while text.open:
        ((_, record),) = model.ask_requests([text.further(2)])
        text.take(record.generation, 2)
    joined = text.generation()
    assert (joined.raw, joined.finish, joined.stop_string) == (raw[:8], "stop", stop)


def test_max_new_tokens_still_holds(model: CalibratedModel) -> None:
    found = model.ask(PROMPTS[:2], total_tokens=500, max_new_tokens=5, parser="tiny")
    assert [(r.generation.n_tokens, r.generation.finish) for r in found] == [(5, "length")] * 2
    assert [r.generation.stopped for r in found] == [None, None]  # not the budget's doing


def test_a_parser_that_fails_hits_its_own_row(model: CalibratedModel) -> None:
    def picky(text: str) -> None:
        raise ValueError("no")

    with pytest.raises(BatchError, match="no"):
        model.ask(PROMPTS[:2], total_tokens=300, max_new_tokens=120, parser=picky)
    found = model.ask([PROMPTS[0], "x " * 5000], total_tokens=200, return_errors=True, **ASKED)
    assert isinstance(found[0], Record)
    assert isinstance(found[1], Exception)


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"total_tokens": 0}, "total_tokens=0"),
        ({"total_tokens": True}, "total_tokens=True"),
        ({"total_tokens": 9.5}, r"total_tokens=9\.5"),
        ({"closing": "#### "}, "without total_tokens"),
        ({"total_tokens": 9, "closing": ""}, "closing=''"),
        ({"total_tokens": 9, "response_schema": {"type": "object"}}, "response_schema"),
        ({"total_tokens": 9, "early_stop": "fast"}, "certified on texts that nobody cuts"),
    ],
)
def test_what_is_refused(model: CalibratedModel, options: dict[str, Any], quoted: str) -> None:
    with pytest.raises(BadRequest, match=quoted):
        model.ask(PROMPTS, **options)


def test_only_lists_have_a_budget(model: CalibratedModel) -> None:
    for call in (model.stream, model.ask_each):
        with pytest.raises(BadRequest, match="unknown option 'total_tokens'"):
            call(PROMPTS, total_tokens=9)


def test_a_model_elsewhere_is_refused() -> None:
    with pytest.raises(BadRequest, match="only a model in this process"):
        ToyModel({}).ask(["a", "b"], total_tokens=9)


def test_an_empty_list(model: CalibratedModel) -> None:
    assert model.ask([], total_tokens=9) == []
    assert list(Budget((), 9, None, model.tokenizer).collect(lambda _: [])) == []
