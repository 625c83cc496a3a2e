"""Servers that fail: what is tried again and when, what is said, and that nothing stays behind."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from remote_help import Clock, Fault, Server, said, serving

from bitcal_integrations.engines._ticket import Outcome, collect, stream
from bitcal_integrations.engines.remote import RemoteEngine, connect
from bitcal_integrations.errors import (
    BadRequest,
    BitcalError,
    EngineError,
    LoadError,
)
from bitcal_integrations.types import make_request

KEY = "sk-very-secret-0123456789"
ASKED = make_request("2 + 2", max_new_tokens=8)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(default=said("4", " is", " it", ""))) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine(server: Server, clock: Clock) -> Iterator[RemoteEngine]:
    engine = connect(server.url, api="completions", patience=clock.patience(3))
    yield engine
    engine.close()


def one(engine: RemoteEngine) -> Any:
    return collect(engine, [ASKED])[0]


# ---- what is tried again -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "waits"),
    [
        ([Fault(429, retry_after="7")], [7.0]),
        ([Fault(429, retry_after="0.1")], [0.5]),
        ([Fault(429, retry_after="9999")], [60.0]),
        ([Fault(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")], [0.5]),
        ([Fault(500), Fault(503)], [0.5, 1.0]),
        ([Fault(then="drop"), Fault(then="drop", tokens=2), Fault(then="end")], [0.5, 1.0, 2.0]),
        ([Fault(then="end", tokens=2)], [0.5]),
        ([Fault(then="error", tokens=1)], [0.5]),
    ],
)
def test_what_passes_is_tried_again(
    server: Server, engine: RemoteEngine, clock: Clock, faults: list[Fault], waits: list[float]
) -> None:
    server.faults = faults
    outcome = one(engine)
    assert isinstance(outcome, Outcome)
    assert outcome.generation.raw == "4 is it"
    assert outcome.generation.n_tokens == 4
    assert clock.waits == waits
    assert len(server.bodies()) == len(waits) + 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(503, "overloaded"), "answers 503: overloaded, after 4 attempts"),
        (Fault(429, "slow down"), "answers 429: slow down, after 4 attempts"),
        (Fault(then="drop"), "the connection to the server at .* failed .*, after 4 attempts"),
        (Fault(then="end"), "stream ended before the answer did, after 4 attempts"),
        (Fault(then="error", words="died"), "broke off with an error: died, after 4 attempts"),
    ],
)
def test_it_gives_up_and_says_what_it_met(
    server: Server, engine: RemoteEngine, clock: Clock, fault: Fault, words: str
) -> None:
    server.always = fault
    with pytest.raises(EngineError, match=words):
        raise one(engine)
    assert clock.waits == [0.5, 1.0, 2.0]


def test_a_server_that_has_gone_fails_clearly(clock: Clock) -> None:
    with serving() as server:
        engine = connect(server.url, api="completions", patience=clock.patience(2))
    try:
        failed = collect(engine, [ASKED] * 50)
        assert {type(err) for err in failed} == {EngineError}
        assert "the connection to the server at 127.0.0.1" in str(failed[0])
    finally:
        engine.close()
    with pytest.raises(LoadError, match="the connection to the server"):
        connect(server.url, patience=clock.patience())


def test_what_has_been_shown_is_not_asked_again(
    server: Server, engine: RemoteEngine, clock: Clock
) -> None:
    server.faults = [Fault(then="drop", tokens=2)]
    events = stream(engine, ASKED)
    assert [next(events).text for _ in range(2)] == ["4", " is"]
    with pytest.raises(EngineError, match="after 2 tokens of the answer had been given out"):
        next(events)
    assert clock.waits == []


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault(400, "bad top_p"), BadRequest, "answers 400: bad top_p"),
        (Fault(404, "no such model"), BadRequest, "answers 404: no such model"),
        (Fault(400, "logprobs is not allowed"), BadRequest, "top_logprobs=None"),
        (Fault(401, "wrong"), EngineError, "refuses the key .status 401.*environment"),
        (Fault(then="garbage"), EngineError, "sent what is no JSON: '{no json'"),
        (Fault(then="shape"), EngineError, "no part of an answer"),
    ],
)
def test_what_would_fail_again_is_not_tried_again(
    server: Server, engine: RemoteEngine, clock: Clock, fault: Fault, kind: type, words: str
) -> None:
    server.faults = [fault]
    with pytest.raises(kind, match=words):
        raise one(engine)
    assert clock.waits == []


def test_a_silent_server_is_left_after_the_timeout(server: Server) -> None:
    engine = connect(server.url, api="completions", timeout=0.2)
    try:
        server.faults = [Fault(then="silent", tokens=1)]
        with pytest.raises(EngineError, match="sent nothing for as long as timeout= allows"):
            raise one(engine)
    finally:
        server.release.set()
        engine.close()


@pytest.mark.parametrize("then", ["silent", "drop", "error"])
def test_an_answer_that_is_there_is_not_lost_with_what_would_follow(
    server: Server, clock: Clock, then: str
) -> None:
    engine = connect(server.url, api="completions", timeout=0.2, patience=clock.patience())
    try:
        server.faults = [Fault(then=then, tokens=99)]  # before the counts of tokens come
        *steps, outcome = stream(engine, ASKED)
        assert isinstance(outcome, Outcome)
        assert (outcome.generation.raw, outcome.generation.finish) == ("4 is it", "stop")
        assert "".join(step.text for step in steps) == "4 is it"
        assert outcome.generation.n_tokens == 4
        assert (clock.waits, len(server.bodies())) == ([], 1)
    finally:
        server.release.set()
        engine.close()


# ---- the key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 422, 500, None])
def test_the_key_is_sent_and_never_told(
    server: Server,
    clock: Clock,
    status: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SERVER_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    engine = connect(server.url, api="chat", api_key_env="SERVER_KEY", patience=clock.patience(1))
    server.always = Fault(status, f"wrong key {KEY}", then="" if status else "error")
    with pytest.raises(BitcalError) as caught:
        raise one(engine)
    engine.close()
    server.always = Fault(status or 500, f"wrong key {KEY}")
    with pytest.raises(LoadError) as loading:
        connect(server.url, api_key_env="SERVER_KEY", patience=clock.patience(1))
    sent = [
        headers.get("authorization", headers.get("Authorization")) for _, headers, _ in server.asked
    ]
    assert set(sent) == {f"Bearer {KEY}"}
    shown = [
        *(text for err in (caught, loading) for text in traceback.format_exception(err.value)),
        *(repr(err.value.__dict__) for err in (caught, loading)),
        repr(engine), json.dumps(engine.report()), json.dumps(dict(engine.parts)), caplog.text,
    ]  # fmt: skip
    assert not [text for text in shown if KEY in text]
    assert [err.value.__context__ for err in (caught, loading)] == [None, None]
