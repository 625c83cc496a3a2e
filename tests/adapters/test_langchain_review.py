"""ConfidenceReviewMiddleware: when a person is asked, and what their reply makes of the answer."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from lc_chain_help import Scripted, always

from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.langchain.middleware import (
    ConfidenceFallbackMiddleware,
    ConfidenceReviewMiddleware,
)

ASKED: Any = {"messages": [("user", "go")]}
THREAD: Any = {"configurable": {"thread_id": "1"}}
DELETED: list[str] = []


@tool
def delete(name: str) -> str:
    """Delete a file."""
    DELETED.append(name)
    return f"deleted {name}"


def saver(kind: str, folder: Any) -> Any:
    if kind == "memory":
        return InMemorySaver()
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite")
    import sqlite3

    connection = sqlite3.connect(folder / "states.sqlite", check_same_thread=False)
    return sqlite.SqliteSaver(connection)


def agent_of(model: Any, *more: Any, checkpointer: Any = None, tools: Any = ()) -> Any:
    review = ConfidenceReviewMiddleware(min_confidence=0.7, tool_min_confidence={"delete": 0.95})
    return create_agent(
        model, list(tools), middleware=[review, *more],
        checkpointer=checkpointer or InMemorySaver(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(
    ("reply", "text", "action"),
    [
        ({"action": "accept"}, "Lyon", "accept"),
        ({"action": "edit", "text": "Paris"}, "Paris", "accept"),
        ({"action": "reject", "text": "Ask me later."}, "Ask me later.", "abstain"),
        ({"action": "reject"}, "The answer was rejected in review.", "abstain"),
    ],
)
def test_an_unsure_answer_waits_for_a_person(tmp_path, kind, reply, text, action) -> None:
    model = always("Lyon", 0.4)
    agent = agent_of(model, checkpointer=saver(kind, tmp_path))
    question = agent.invoke(ASKED, THREAD)["__interrupt__"][0].value
    assert question == {
        "answer": "Lyon", "confidence": 0.4, "reason": "0.40 < 0.70", "tool_calls": [],
    }  # fmt: skip
    state = agent.invoke(Command(resume=reply), THREAD)
    assert [m.text for m in state["messages"]] == ["go", text]
    told = state["messages"][-1].response_metadata["bitcal"]
    assert told["decision"]["action"] == action
    assert told["confidence"] == (0.4 if reply["action"] == "accept" else None)
    assert len(model.asked) == 1  # the model is not asked again


async def test_async_agents_too() -> None:
    agent = agent_of(always("Lyon", 0.4))
    assert "__interrupt__" in await agent.ainvoke(ASKED, THREAD)
    state = await agent.ainvoke(Command(resume="Paris"), THREAD)
    assert state["messages"][-1].text == "Paris"


def test_a_sure_answer_does_not_wait() -> None:
    assert agent_of(always("Paris", 0.9)).invoke(ASKED, THREAD)["messages"][-1].text == "Paris"


def deleter(score: float) -> Scripted:
    def say(last: str) -> Any:
        return ("", 0.9, "delete", {"name": "x"}, score) if last == "go" else (last, 0.9)

    return Scripted(say=say)


@pytest.mark.parametrize(("reply", "deleted"), [({"action": "accept"}, ["x"]), (False, [])])
def test_an_unsure_call_with_side_effects_waits_before_it_is_run(reply, deleted) -> None:
    DELETED.clear()
    agent = agent_of(deleter(0.9), tools=[delete])
    question = agent.invoke(ASKED, THREAD)["__interrupt__"][0].value
    assert question["tool_calls"][0]["args"] == {"name": "x"}
    assert question["reason"] == "call of 'delete': 0.90 < 0.95"
    assert DELETED == []
    agent.invoke(Command(resume=reply), THREAD)
    assert deleted == DELETED


def test_behind_a_fallback_only_what_it_could_not_solve_waits() -> None:
    fallback = ConfidenceFallbackMiddleware(always("Paris", 0.9), min_confidence=0.7)
    state = agent_of(always("Lyon", 0.4), fallback).invoke(ASKED, THREAD)
    assert state["messages"][-1].text == "Paris"
    assert state["bitcal_trace"][0]["escalations"] == 1


def test_a_policy_that_raises_raises() -> None:
    review = ConfidenceReviewMiddleware(min_confidence=0.7, on_unknown="raise")
    agent = create_agent(always("x", None), [], middleware=[review], checkpointer=InMemorySaver())
    with pytest.raises(LowConfidenceError, match="no profile"):
        agent.invoke(ASKED, THREAD)


def test_a_reply_that_is_not_understood_is_refused() -> None:
    agent = agent_of(always("Lyon", 0.4))
    agent.invoke(ASKED, THREAD)
    with pytest.raises(BadRequest, match="resume with"):
        agent.invoke(Command(resume=5), THREAD)


def test_an_accepted_call_is_run_by_the_fallback_middleware_too() -> None:
    DELETED.clear()
    said = iter([("", 0.9, "delete", {"name": "a"}, 0.5), ("done", 0.99)])
    fallback = ConfidenceFallbackMiddleware(
        min_confidence=0.3, tool_min_confidence={"delete": 0.95}
    )
    agent = agent_of(Scripted(say=lambda _: next(said)), fallback, tools=[delete])
    assert "__interrupt__" in agent.invoke(ASKED, THREAD)
    agent.invoke(Command(resume={"action": "accept"}), THREAD)
    assert DELETED == ["a"]


def test_a_call_that_nobody_made_is_not_run() -> None:
    from langchain.agents.middleware.types import ToolCallRequest

    fallback = ConfidenceFallbackMiddleware(
        min_confidence=0.3, tool_min_confidence={"delete": 0.95}
    )
    call: Any = {"name": "delete", "args": {"name": "a"}, "id": "7"}
    request: Any = ToolCallRequest(
        tool_call=call,
        tool=None,
        state={"messages": []},
        runtime=None,  # type: ignore[arg-type]
    )
    refused = fallback.wrap_tool_call(request, lambda _: pytest.fail("it was run"))
    assert refused.status == "error"
