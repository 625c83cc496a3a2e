"""The engine on a server: what is asked, what comes back, many at once, and getting to know it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from remote_help import Clock, Fault, Server, said, serving

from bitcal_integrations.decide import StopPlan
from bitcal_integrations.engines.remote import RemoteEngine, connect
from bitcal_integrations.errors import BadRequest, LoadError, MissingExtra
from bitcal_integrations.model import CalibratedModel
from bitcal_integrations.types import Record, Step

SUM = [*said("so ", "####", " 42", "\n", "and more", " text", "")]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def model_of(server: Server, **options: Any) -> CalibratedModel:
    engine = connect(server.url, **{"api": "completions", **options})
    return CalibratedModel(engine, engine.name)


@pytest.fixture
def model(server: Server) -> Iterator[CalibratedModel]:
    with model_of(server) as model:
        yield model


def test_a_completion_is_asked_and_its_answer_is_a_record(
    server: Server, model: CalibratedModel
) -> None:
    record = model.ask("2 + 2", max_new_tokens=9, temperature=0.5, top_p=0.9, seed=3)
    path, _, body = server.asked[-1]
    assert path == "/v1/completions"
    assert body == {
        "model": "toy", "prompt": "2 + 2", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9,
        "seed": 3, "stream": True, "logprobs": 5,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    assert (record.text, record.generation.finish, record.model) == ("4", "stop", "toy")
    assert [s.logprob for s in record.generation.steps] == [-0.1, -0.1]
    assert (record.generation.prompt_tokens, record.generation.n_tokens) == (3, 2)
    assert record.confidence.value is None
    assert record.confidence.raw == pytest.approx(0.9048374)
    assert record.timing.total >= record.timing.first_token >= record.timing.queued > 0


def test_a_chat_is_asked_with_its_messages_and_template_options(server: Server) -> None:
    with model_of(server, api="chat") as model:
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2"}]
        record = model.ask(turns, chat_template_kwargs={"enable_thinking": False}, top_logprobs=1)
        plain = model.ask("2 + 2", chat=False)
    path, _, body = server.asked[-2]
    assert path == "/v1/chat/completions"
    assert (body["messages"], body["logprobs"], body["top_logprobs"]) == (turns, True, 5)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert record.generation.steps[0].top_text == ("4",)
    assert server.asked[-1][0] == "/v1/completions"
    assert plain.text == record.text == "4"


def test_a_chat_for_a_completion_is_a_labelled_dialogue(
    server: Server, model: CalibratedModel
) -> None:
    model.ask([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert server.asked[-1][2]["prompt"] == "system: Be brief.\nuser: Hi\nassistant:"


def test_no_more_is_asked_for_than_the_context_holds(
    server: Server, model: CalibratedModel
) -> None:
    model.ask("Hi")
    assert (model.context, server.asked[-1][2]["max_tokens"]) == (256, 255)


def test_the_response_is_closed_where_the_answer_is_complete(
    server: Server, model: CalibratedModel
) -> None:
    server.default = SUM
    server.faults = [Fault(then="hang", tokens=4)]  # it would go on, but for us
    record = model.ask("6 * 7", parser="gsm8k")
    assert server.left.acquire(timeout=30)
    assert (record.text, record.generation.finish) == ("so #### 42\n", "answer")
    assert record.generation.answer is not None
    assert record.generation.answer.text == "42"
    assert record.generation.n_tokens == 4


def test_a_stream_gives_steps_that_add_up_and_then_the_record(
    server: Server, model: CalibratedModel
) -> None:
    server.default = SUM
    *steps, record = model.stream("6 * 7", parser="gsm8k")
    assert isinstance(record, Record)
    assert all(isinstance(s, Step) for s in steps)
    assert "".join(s.text for s in steps) == record.text == "so #### 42\n"


async def test_async_is_the_same(server: Server, model: CalibratedModel) -> None:
    server.default = SUM
    *steps, record = [event async for event in model.astream("6 * 7", parser="gsm8k")]
    assert "".join(s.text for s in steps) == record.text
    both = await model.aask(["6 * 7", "7 * 6"], parser="gsm8k")
    assert [r.text for r in both] == [record.text] * 2


async def test_many_are_in_flight_up_to_a_bound_and_come_in_order(server: Server) -> None:
    server.answers = {f"say {n}": said(str(n), "") for n in range(40)}
    patience = Clock().patience()
    with model_of(server, max_in_flight=4, max_queue=2, patience=patience) as model:
        server.faults = [Fault(then="hang") for _ in range(4)]
        asking = asyncio.create_task(model.aask([f"say {n}" for n in range(40)]))
        for _ in range(4):
            assert await asyncio.to_thread(server.hanging.acquire, timeout=30)
        assert server.now == 4
        server.release.set()  # the four are cut off, and asked again
        records = await asking
        assert model.report()["most_in_flight"] == 4
    assert [r.text for r in records] == [str(n) for n in range(40)]
    assert server.most == 4


def test_without_log_probabilities_the_confidence_is_unknown(server: Server) -> None:
    server.logprobs = False
    with model_of(server, top_logprobs=None) as model:
        record = model.ask("2 + 2")
        assert "logprobs" not in server.asked[-1][2]
        sampled = model.ask("2 + 2", features=["agreement"])
        streamed = [s.text for s in model.stream("2 + 2") if isinstance(s, Step)]
    assert (record.text, record.generation.steps, record.generation.n_tokens) == ("4", (), 2)
    assert (record.confidence.value, record.confidence.raw) == (None, None)
    assert sampled.confidence.signals["agreement"] == 1.0
    assert sampled.generation.probe_tokens == 10
    assert streamed == ["4"]


def test_tools_and_schemas_go_to_the_server_in_chats_only(server: Server) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    server.calls = [
        {"index": 0, "function": {"name": "add", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    server.default = said("")
    with model_of(server, api="chat") as model:
        record = model.ask("1", tools=[tool], tool_choice="any")
        body = server.asked[-1][2]
        assert (body["tools"], body["tool_choice"]) == ([tool], "required")
        model.ask("1", response_schema={"type": "object"})
        assert server.asked[-1][2]["response_format"]["json_schema"]["schema"] == {"type": "object"}
        with pytest.raises(BadRequest, match="tools is not allowed"):
            model.ask("1", tools=[tool], chat=False)
    from bitcal_integrations.toolcalls import tool_calls_of

    (call,) = tool_calls_of(record.generation, record.request)
    assert (call.name, call.arguments) == ("add", {"a": 1})
    assert record.confidence.reason == "no_answer: the text calls a tool"


def test_an_early_stop_needs_the_model_itself(model: CalibratedModel) -> None:
    plan = StopPlan(None, None, closing="#### ", spacing="line")
    with pytest.raises(BadRequest, match="early_stop is not allowed"):
        model.ask("2 + 2", early_stop=plan)
    assert model.ask("2 + 2", early_stop="balanced").text == "4"  # nothing is certified for it


# ---- getting to know a server ------------------------------------------------------------------


def test_auto_finds_out_whether_there_are_chats(server: Server) -> None:
    with model_of(server, api="auto") as model:
        assert model.report()["api"] == "chat"
        assert model.report()["logprobs"] is True
    server.chats, server.logprobs = False, False
    with model_of(server, api="auto") as model:
        assert model.report()["api"] == "completions"
        assert model.report()["logprobs"] is False
        with pytest.raises(BadRequest, match="chat=True is not allowed"):
            model.ask("Hi", chat=True)


def test_what_identifies_it_is_told_by_the_server_and_never_its_address(server: Server) -> None:
    engine = connect(server.url, api="chat")
    engine.close()
    assert engine.parts == {
        "engine": "remote", "model": "toy", "root": "org/toy", "context": 256, "server": "vllm",
        "api": "chat", "top_logprobs": 5,
    }  # fmt: skip
    assert engine.report()["address"] in server.url


def test_a_name_is_needed_where_there_are_several_and_must_be_one_of_them(server: Server) -> None:
    server.models = [{"id": "a"}, {"id": "b"}]
    with pytest.raises(LoadError, match="serves 'a', 'b'"):
        connect(server.url)
    with pytest.raises(LoadError, match="serves no 'c': it has 'a', 'b'"):
        connect(server.url, "c")
    server.models = None
    with pytest.raises(LoadError, match="does not tell what it serves"):
        connect(server.url)
    engine = connect(server.url, "a", api="chat")
    engine.close()
    assert (engine.name, engine.context) == ("a", None)


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("ftp://here/v1", {}, "no address of a server"),
        ("http://me:secret@here/v1", {}, "must not hold a user"),
        ("http://here/v1?key=1", {}, "must not hold a user"),
        ("http://", {}, "'http://' is no address of a server: it is like http://HOST:PORT/v1"),
        ("http://here:99999/v1", {}, "http://HOST:PORT/v1"),
        ("http://here/v1", {"budget": 5}, "budget=5 is not allowed"),
        ("http://here/v1", {"api_key_env": None}, "api_key_env=None is not allowed"),
        ("http://here/v1", {"api": "both"}, "api='both' is not allowed: use auto, chat"),
        ("http://here/v1", {"top_logprobs": 50}, "top_logprobs=50 is not allowed"),
        ("http://here/v1", {"timeout": 0}, "timeout=0 is not allowed"),
        ("http://here/v1", {"max_in_flight": 0}, "max_in_flight=0 is not allowed"),
        ("http://here/v1", {"max_retries": -1}, "max_retries=-1 is not allowed"),
    ],
)
def test_wrong_arguments_are_quoted(url: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        connect(url, **options)
    assert "secret" not in str(caught.value)


def test_the_client_is_an_extra(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingExtra, match=r"bitcal-integrations\[remote\]"):
        connect(server.url)


def test_it_shows_its_name_and_address_only(server: Server) -> None:
    engine = connect(server.url, api="chat")
    assert isinstance(engine, RemoteEngine)
    assert repr(engine) == f"RemoteEngine('toy' at {engine.report()['address']})"
    engine.close()
    assert engine.closed
