"""Early stops behind the engine: what a stream shows, who waits, and what goes wrong in a trial."""

from __future__ import annotations

import pytest
from engine_help import Gate, assert_same, failing, generations, last_event, submit

from bitcal_integrations.decide.stop import StopPlan, StopRule
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.run import generate
from bitcal_integrations.engines._ticket import Outcome, collect, stream
from bitcal_integrations.engines.local import LocalEngine
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import Generation, Request, make_request

LOG = StopPlan(closing="Answer:", spacing=6, answer_tokens=8, log=True)
SETTLES = StopPlan(
    StopRule("settled", "tokens", 12), closing="Answer:", spacing=6, answer_tokens=16
)
GIVES_UP = StopPlan(hopeless=StopRule("hopeless", "logprob", 0.0, after=12), spacing=6)


def said(text: str, ended: bool = True) -> str | None:
    """The first two characters after the closing text."""
    words = text.partition("Answer:")[2]
    return words[:2] or None if ended or len(words) > 2 else None


def asked(prompt: str, plan: StopPlan | None, tokens: int = 48) -> Request:
    return make_request(prompt, max_new_tokens=tokens, parser=said, early_stop=plan)


def test_a_stream_shows_closing_and_answer_and_no_trial(engine: LocalEngine) -> None:
    *steps, outcome = stream(engine, asked("Hello", SETTLES))
    assert isinstance(outcome, Outcome)
    run = outcome.generation
    assert run.finish == "settled"
    assert [step.token_id for step in steps] == [step.token_id for step in run.steps]
    assert "".join(step.text for step in steps) == run.text
    *steps, outcome = stream(engine, asked("Hello", LOG))
    assert "Answer:" not in "".join(step.text for step in steps) == outcome.generation.text
    assert outcome.generation.probe_tokens > 0


def test_rows_that_stop_change_no_other(net: Net) -> None:
    engine = LocalEngine(net, max_batch=8)
    plans = [None, SETTLES, LOG, GIVES_UP] * 3
    requests = [asked(f"prompt {n % 5}", plan, 20 + 4 * n) for n, plan in enumerate(plans)]
    try:
        found = generations(collect(engine, requests))
    finally:
        engine.close()
    for request, run in zip(requests, found, strict=True):
        assert_same(run, generate(net, [request])[0], 1e-3)
    assert {run.finish for run in found} >= {"settled", "hopeless", "length"}


def test_a_failed_forward_in_a_trial_hits_its_own_request(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(net, [asked("two", LOG)])[0]
    marks = net.spelling("\nAnswer:")

    def in_a_trial(rows: int, ids) -> bool:
        return rows > 1 and any(tuple(row[-len(marks) :].tolist()) == marks for row in ids)

    sizes = failing(net, monkeypatch, in_a_trial, RuntimeError("no"))
    first, second = generations(collect(engine, [asked("one", LOG), asked("two", LOG)]))
    assert max(sizes) == 2
    for run in (first, second):
        assert isinstance(run, Generation)
    assert_same(second, whole, 1e-3)


def test_cancelling_in_a_trial_frees_its_place(
    net: Net, engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = StopPlan(closing="Answer:", spacing=1, answer_tokens=8, log=True)
    gate = Gate(net, monkeypatch)
    job, events = submit(engine, asked("Hello", plan))
    assert gate.entered.wait(30)  # in the prefill: the first token is followed by a trial
    job.cancel()
    gate.opened.set()
    run = last_event(events).generation
    assert run.finish == "cancelled"
    after = generations(collect(engine, [asked("Hello", None)]))[0]
    assert after.finish == "length"


def test_a_wrong_plan_is_refused_where_it_is_submitted(engine: LocalEngine) -> None:
    with pytest.raises(BadRequest, match="would cut the closing text"):
        submit(engine, make_request("x", early_stop=SETTLES, stop=":"))
