"""How rows end early: as the replay of their logs says, with closing text and answer."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from checkpoint_help import LOG, PROMPTS, decode, logged, request, tokens
from families import CHAT_TEMPLATE, tiny_tokenizer

from bitcal_integrations.decide.stop import (
    StopPlan,
    StopRule,
    replay,
)
from bitcal_integrations.decode._trial import Word
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.types import make_request

# ---- ends -----------------------------------------------------------------------------------

RULES = {
    "trial": StopPlan(StopRule("settled", "trial_probability", 0.0)),
    "agrees": StopPlan(StopRule("settled", "trial_agreement", 2)),
    "patient": StopPlan(StopRule("settled", "trial_probability", 0.0, patience=2, after=8)),
    "free": StopPlan(StopRule("settled", "tokens", 17)),
    "gated": StopPlan(StopRule("settled", "trial_probability", 0.0, gate=("lines", 3))),
    "gives up": StopPlan(hopeless=StopRule("hopeless", "logprob", -1e-9, after=12)),
    "gives up after trials": StopPlan(
        StopRule("settled", "trial_probability", 2.0),
        StopRule("hopeless", "trial_probability", 1.0, patience=3),
    ),
    "never": StopPlan(StopRule("settled", "logprob", 1.0)),
}


@pytest.mark.parametrize("stop", [(), ("Z",)])
@pytest.mark.parametrize("name", RULES)
def test_a_live_run_ends_as_the_replay_of_its_log(net: Net, name: str, stop: tuple) -> None:
    plan = dataclasses.replace(RULES[name], closing="Answer:", spacing=5, answer_tokens=8)
    logs = decode(net, [request(p, LOG, stop=stop) for p in PROMPTS])
    live = decode(net, [request(p, plan, stop=stop) for p in PROMPTS])
    for log, run in zip(logs, live, strict=True):
        end = replay(logged(log), plan)
        assert (run.finish, run.n_tokens, run.probe_tokens) == (
            end.finish, end.tokens, end.probe_tokens
        )  # fmt: skip
        assert (run.answer.text if run.answer else None) == end.answer
        assert len(run.steps) == run.n_tokens
        assert "".join(step.text for step in run.steps) == run.text
        shared = log.checkpoints[end.index].tokens if end.index is not None else run.n_tokens
        assert tokens(log)[:shared] == tokens(run)[:shared]
        if run.finish in ("settled", "hopeless"):
            assert run.stopped["level"] == run.finish
            assert len(run.stopped["path"]) == end.index + 1
    ended = {run.finish for run in live} & {"settled", "hopeless"}
    assert ended == {"never": set()}.get(name, {"hopeless"} if "gives" in name else {"settled"})


def test_a_settled_text_ends_with_closing_and_answer(net: Net) -> None:
    plan = StopPlan(
        StopRule("settled", "tokens", 10), closing="Answer:", spacing=5, answer_tokens=16
    )
    (run,) = decode(net, [request(PROMPTS[0], plan)])
    assert run.finish == "settled"
    assert run.finish_reason == "stop"
    said = run.raw[run.raw.index("\nAnswer:") :]
    assert run.raw[run.answer.start : run.answer.end] == run.answer.text == said[8:10]
    forced = [step for step in run.steps if step.forced]
    assert run.raw[forced[0].start : forced[-1].end] == "\nAnswer:"
    assert run.stopped["score"] == "tokens"
    assert run.stopped["path"] == [[5, 5.0], [10, 10.0]]


def test_without_a_parser_the_answer_is_what_is_said(net: Net) -> None:
    """The model's tokens are forced here: a trial answer that ends with its line."""
    plan = StopPlan(StopRule("settled", "tokens", 2), spacing=2)
    row = Row(net, make_request("A", early_stop=plan))
    line = net.tokenizer("ab", add_special_tokens=False)["input_ids"]
    for token in line:
        row.push(token, (-0.5, 0.25, 1.0, 0.0))
    assert row.watch.look(row, torch.zeros(272)) == "trial"
    telling = row.watch.telling
    said = net.tokenizer("\n#### 4 2\n", add_special_tokens=False)["input_ids"]
    verdicts = [row.watch.take(Word(t, (-0.1 * n, 0.5, 2.0, 0.0))) for n, t in enumerate(said)]
    assert telling.closing == 6
    assert verdicts == ["trial"] * 9 + ["settled"]
    trial = row.watch.seen[-1].trial
    assert (trial.answer, trial.tokens) == ("4 2", 10)
    assert trial.scores["trial_probability"] == pytest.approx(math.exp(-0.6 - 0.7 - 0.8))
    assert trial.scores["trial_entropy"] == -0.5
    row.settle(row.watch.end_trial())
    run = row.generation()
    assert (run.finish, run.raw, run.n_tokens) == ("settled", "ab\n#### 4 2\n", 12)
    assert (run.answer.text, run.answer.start, run.answer.end) == ("4 2", 8, 11)


def test_open_reasoning_is_closed_before_the_answer(net: Net) -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = CHAT_TEMPLATE + "<think>"
    thinking = Net(net.model, tokenizer)
    plan = StopPlan(
        StopRule("settled", "tokens", 10), closing="Answer:", spacing=5, answer_tokens=16
    )
    (run,) = decode(thinking, [request("Hi", plan, max_new_tokens=60)])
    assert run.finish == "settled"
    assert run.text == f"Answer:{run.raw.rpartition('Answer:')[2]}"
    assert run.reasoning is not None
    assert "</think>" in run.raw
    assert "".join(s.text for s in run.steps if not s.reasoning) == run.text
    assert all(s.reasoning for s in run.steps[:10])


def test_a_request_too_short_for_an_answer_is_left_alone(net: Net) -> None:
    plan = StopPlan(
        StopRule("settled", "tokens", 1), closing="Answer:", spacing=5, answer_tokens=50
    )
    (run,) = decode(net, [request("A", plan)])
    assert run.checkpoints == ()
    assert run.finish != "settled"
