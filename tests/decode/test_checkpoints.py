"""Early stops in the decode loop: what is measured, what is said, and what is left as it was."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from checkpoint_help import LOG, PROMPTS, decode, letter, request, tokens
from families import tiny_model, tiny_tokenizer
from transformers import MambaConfig, MambaForCausalLM

from bitcal_integrations.decide.stop import (
    Checkpoint,
    LoggedRun,
    StopPlan,
    certify_stop,
)
from bitcal_integrations.decode.batch import Batch
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.run import steps
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Step, make_request

# ---- what is left as it was -----------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 3}])
def test_trial_answers_leave_the_text_as_it_is(net: Net, options: dict) -> None:
    bare = decode(net, [request(p, **options) for p in PROMPTS])
    asked = [request(p, LOG if i % 2 else None, **options) for i, p in enumerate(PROMPTS)]
    for plain, watched, asking in zip(bare, decode(net, asked), asked, strict=True):
        assert tokens(plain) == tokens(watched)
        assert (plain.raw, plain.finish, plain.answer) == (
            watched.raw, watched.finish, watched.answer
        )  # fmt: skip
        for a, b in zip(plain.steps, watched.steps, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        if asking.early_stop is None:
            assert watched.checkpoints == ()
            continue
        places = watched.checkpoints
        at = [place.tokens for place in places]
        assert all(b - a >= 5 for a, b in itertools.pairwise([0, *at]))
        assert 24 < at[-1] <= 32  # closing text and answer need 16 more
        assert watched.probe_tokens == sum(place.trial.tokens for place in places) > 0
        assert watched.stopped is None


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "opt"])
def test_every_kind_of_positions_can_be_put_back(family: str) -> None:
    net = Net(tiny_model(family, layers=2), tiny_tokenizer())
    bare = decode(net, [request(p) for p in PROMPTS])
    for plain, watched in zip(bare, decode(net, [request(p, LOG) for p in PROMPTS]), strict=True):
        assert tokens(plain) == tokens(watched)


def test_trials_are_the_same_alone_and_in_a_batch(net: Net) -> None:
    together = decode(net, [request(p, LOG) for p in PROMPTS])
    for prompt, one in zip(PROMPTS, together, strict=True):
        (alone,) = decode(net, [request(prompt, LOG)])
        assert tokens(alone) == tokens(one)
        for a, b in zip(alone.checkpoints, one.checkpoints, strict=True):
            assert (a.tokens, a.trial.answer, a.trial.tokens) == (
                b.tokens, b.trial.answer, b.trial.tokens
            )  # fmt: skip
            assert a.scores == pytest.approx(b.scores, abs=1e-4)
            assert a.trial.scores == pytest.approx(b.trial.scores, abs=1e-4)


def test_an_evicted_batch_asks_again(net: Net) -> None:
    rows = [Row(net, request(p, LOG)) for p in PROMPTS]
    batch = Batch(net)
    batch.admit(rows)
    while not any(row.watch.telling for row in rows):
        batch.step()
    batch.step()
    batch.admit(batch.evict())
    while batch.rows:
        batch.step()
    for row, whole in zip(rows, decode(net, [r.request for r in rows]), strict=True):
        again = row.generation()
        assert tokens(again) == tokens(whole)
        assert len(again.checkpoints) == len(whole.checkpoints)
        assert again.probe_tokens > whole.probe_tokens  # what was lost was paid


def test_a_row_cancelled_in_its_trial_hurts_no_other(net: Net) -> None:
    rows = [Row(net, request(p, LOG)) for p in PROMPTS]
    batch = Batch(net)
    batch.admit(rows)
    while rows[1].watch.telling is None:
        batch.step()
    rows[1].cancel()
    batch.remove([rows[1]])
    while batch.rows:
        batch.step()
    whole = decode(net, [request(p) for p in PROMPTS])
    assert rows[1].finish == "cancelled"
    assert rows[1].generation().probe_tokens > 0
    for i in (0, 2, 3):
        assert tokens(rows[i].generation()) == tokens(whole[i])


def test_a_failing_parser_ends_its_own_row(net: Net) -> None:
    def broken(text: str, ended: bool = True) -> None:
        if "Answer:" in text:
            raise ZeroDivisionError("mine")

    rows = [Row(net, request(p, LOG, parser=broken if i == 2 else letter))
            for i, p in enumerate(PROMPTS)]  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        for _ in steps(net, rows):
            pass
    assert [row.finish for row in rows].count("error") == 1
    whole = decode(net, [request(p) for p in PROMPTS])
    for i in (0, 1, 3):
        assert tokens(rows[i].generation()) == tokens(whole[i])


# ---- what is measured -----------------------------------------------------------------------


def chances(net: Net, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(net.model(torch.tensor([ids])).logits[0].float(), dim=-1)


def test_scores_are_what_the_model_says_at_that_place(net: Net) -> None:
    row = Row(net, request(PROMPTS[0], LOG))
    for _ in steps(net, [row]):
        pass
    generation = row.generation()
    prompt = row.ids[: row.prompt_tokens]
    for place in generation.checkpoints:
        ids = prompt + tokens(generation)[: place.tokens]
        closing = net.spelling("\nAnswer:")
        here = chances(net, ids)[-1]
        assert place.scores["closing"] == pytest.approx(float(here[closing[0]]), abs=1e-4)
        entropy = float((here.exp() * here).sum())
        assert place.scores["next_entropy"] == pytest.approx(entropy, abs=1e-4)
        if len(net.cues):
            cue = math.log(sum(float(here[token].exp()) for token in net.cues))
            assert place.scores["cue"] == pytest.approx(cue, abs=1e-4)
        told = ids + list(closing)
        for _ in range(place.trial.tokens - len(closing)):
            told.append(int(chances(net, told)[-1].argmax()))
        after = chances(net, told)[len(ids) + len(closing) - 1 :]
        answer = told[len(ids) + len(closing) :]
        assert place.trial.tokens == len(closing) + len(answer)
        first = after[0]
        assert place.trial.scores["trial_entropy"] == pytest.approx(
            float((first.exp() * first).sum()), abs=1e-4
        )
        if place.trial.answer is None:  # its end was never told: all that was said counts
            p = math.exp(sum(float(after[n][token]) for n, token in enumerate(answer)))
            assert place.trial.scores["trial_probability"] == pytest.approx(p, abs=1e-4)


def test_windowed_scores_by_hand(net: Net) -> None:
    row = Row(net, request(PROMPTS[0], dataclasses.replace(LOG, spacing=16)))
    watch = row.watch
    logits = torch.zeros(4)
    first = [-1.0] * 4 + [0.0] * 12
    numbers = [first, [0.0] * 16, [-2.0] * 8 + [0.0] * 8]
    told: list[Step] = []
    found = []
    for part in numbers:
        told += [Step(0, "", 0, 0, value, -value, 1.0, 0.0) for value in part]
        found.append(watch._scores(told, logits, 0))
    assert [scores["logprob"] for scores in found] == [-0.25, 0.0, -1.0]
    assert [scores["lowest"] for scores in found] == [-0.25, -0.25, -1.0]
    assert [scores["entropy"] for scores in found] == [-0.25, 0.0, -1.0]
    assert [scores.get("entropy_trend") for scores in found] == [None, 0.25, -1.0]
    assert [scores["tokens"] for scores in found] == [16.0, 32.0, 48.0]
    assert found[0]["closing"] == pytest.approx(math.log(1 / 4))
    assert found[0]["next_entropy"] == pytest.approx(-math.log(4))


def test_the_lowest_window_is_that_of_all_windows(net: Net) -> None:
    watch = Row(net, request(PROMPTS[0], LOG)).watch
    values = [math.sin(n * n) for n in range(100)]
    told = [Step(0, "", 0, 0, value, 0.0, 0.0, 0.0) for value in values]
    for end in (3, 9, 17, 18, 40, 41, 99):
        windows = [values[n : n + 16] for n in range(end - 15)] or [values[:end]]
        lowest = min(sum(window) / len(window) for window in windows)
        assert watch._scores(told[:end], torch.zeros(2), 0)["lowest"] == pytest.approx(lowest)


# ---- where the places are -------------------------------------------------------------------


def places(net: Net, text: str, spacing: Any) -> list[str]:
    """The text up to each checkpoint, when it comes character by character."""
    plan = StopPlan(spacing=spacing, answer_tokens=1)
    row = Row(net, make_request("x", max_new_tokens=200, early_stop=plan, loop_stop=False))
    found = []
    for token in net.tokenizer(text, add_special_tokens=False)["input_ids"]:
        row.push(token, (0.0, 0.0, 0.0, 0.0))
        if row.watch.due:
            found.append(row.raw)
            row.watch.due = False
    return found


def test_checkpoints_lie_after_lines_sentences_or_tokens(net: Net) -> None:
    text = 'One 2.5 is "so."\n\n  \nTwo? Yes'
    assert places(net, text, "line") == [text[:17]]
    assert places(net, text, "sentence") == [text[:15], text[:17], text[:25]]
    assert [len(t) for t in places(net, text, 7)] == [7, 14, 21, 28]


def test_no_checkpoint_splits_a_character(net: Net) -> None:
    assert places(net, "é" * 4, 3) == ["éé", "éééé"]


# ---- what is refused ------------------------------------------------------------------------


def test_what_cannot_be_served_is_said_at_once(net: Net) -> None:
    with pytest.raises(BadRequest, match=r"stop='Answer' would cut the closing text 'Answer:'"):
        Row(net, request("x", LOG, stop="Answer"))
    with pytest.raises(BadRequest, match="response_schema"):
        Row(net, request("x", LOG, response_schema={"type": "object"}))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=272, hidden_size=32, num_hidden_layers=1))
    with pytest.raises(BadRequest, match="cache cannot be cut"):
        Row(Net(mamba.eval(), tiny_tokenizer()), request("x", LOG))
    places = (Checkpoint(1, {"confidence": 0.5}, None),)
    chain = LoggedRun(places, 1, "a", True, unit="chain")
    with pytest.raises(BadRequest, match="whole chains"):
        Row(net, request("x", certify_stop([chain] * 2, levels=("hopeless",))))
