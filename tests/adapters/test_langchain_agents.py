"""ConfidenceFallbackMiddleware in agents: who takes a step, what is shown, which tools run."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from lc_chain_help import Scripted, always, fails

from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError
from bitcal_integrations.langchain.middleware import ConfidenceFallbackMiddleware

ASKED: Any = {"messages": [("user", "go")]}
PAID: list[int] = []


@tool
def pay(amount: int) -> str:
    """Pay an amount."""
    PAID.append(amount)
    return f"paid {amount}"


@pytest.fixture(autouse=True)
def _nothing_paid() -> None:
    PAID.clear()


def payer(score: float | None, model: str = "scripted", text: str = "done") -> Scripted:
    """A model that pays 5 when it is asked, and says so after the tool has answered."""

    def say(last: str) -> Any:
        if last == "go":
            return "", 0.9, "pay", {"amount": 5}, score
        return f"{text}: {last}", 0.9

    return Scripted(say=say, model=model)


def agent_of(model: Any, *middleware: Any, tools: Any = (), **options: Any) -> Any:
    return create_agent(model, list(tools), middleware=list(middleware), **options)


async def run(agent: Any, asynchronous: bool, asked: Any = ASKED, config: Any = None) -> Any:
    return await agent.ainvoke(asked, config) if asynchronous else agent.invoke(asked, config)


WAYS = pytest.mark.parametrize("asynchronous", [False, True])


@WAYS
async def test_an_unsure_step_is_taken_by_the_fallback(asynchronous) -> None:
    small, big = always("no idea", 0.3, "small"), always("the answer", 0.9, "big")
    agent = agent_of(small, ConfidenceFallbackMiddleware(big, min_confidence=0.7))
    state = await run(agent, asynchronous)
    assert [m.text for m in state["messages"]] == ["go", "the answer"]  # no trace of the draft
    (step,) = state["bitcal_trace"]
    assert [a["model"] for a in step["attempts"]] == ["small", "big"]
    assert (step["chosen"], step["escalations"]) == (1, 1)
    told = state["messages"][-1].response_metadata["bitcal"]
    assert told["route"] == step
    assert told["decision"]["action"] == "accept"


@WAYS
async def test_a_sure_step_is_not(asynchronous) -> None:
    big = always("the answer", 0.9, "big")
    agent = agent_of(always("sure", 0.8), ConfidenceFallbackMiddleware(big, min_confidence=0.7))
    assert (await run(agent, asynchronous))["messages"][-1].text == "sure"
    assert big.asked == []


@WAYS
@pytest.mark.parametrize(
    ("on_exhausted", "shown"),
    [("best", ["the answer"]), ("last", ["the", " answer"])],
)
async def test_drafts_are_not_shown_with_tools_and_without(
    asynchronous, on_exhausted, shown
) -> None:
    for tools in ([], [pay]):
        small, big = always("a draft", 0.3), always("the answer", 0.9)
        middleware = ConfidenceFallbackMiddleware(
            big, min_confidence=0.7, on_exhausted=on_exhausted
        )
        agent = agent_of(small, middleware, tools=tools)
        if asynchronous:
            stream = agent.astream(ASKED, stream_mode="messages")
            texts = [m.text async for m, _ in stream if isinstance(m, AIMessage)]
        else:
            stream = agent.stream(ASKED, stream_mode="messages")
            texts = [m.text for m, _ in stream if isinstance(m, AIMessage)]
        assert [t for t in texts if t] == shown


def test_an_accepted_draft_is_shown_as_a_whole() -> None:
    agent = agent_of(
        always("a b", 0.8), ConfidenceFallbackMiddleware(always("c", 0.9), min_confidence=0.7)
    )
    events = agent.stream(ASKED, stream_mode="messages")
    assert [m.text for m, _ in events if m.text] == ["a b"]


# ---- tool calls ------------------------------------------------------------------------------


@WAYS
async def test_a_tool_call_is_judged_by_its_own_probability(asynchronous) -> None:
    small, big = payer(0.5, "small", "small"), payer(0.99, "big", "big")
    agent = agent_of(small, ConfidenceFallbackMiddleware(big, min_confidence=0.7), tools=[pay])
    state = await run(agent, asynchronous)
    first, second = state["bitcal_trace"]
    assert [a["confidence"] for a in first["attempts"]] == [0.5, 0.99]
    assert first["attempts"][0]["decision"]["reason"] == "call of 'pay': 0.50 < 0.70"
    assert second["escalations"] == 0  # the words after it were sure enough
    assert PAID == [5]
    assert state["messages"][-1].text == "small: paid 5"


@WAYS
async def test_a_tool_with_side_effects_asks_for_more(asynchronous) -> None:
    small, big = payer(0.8, "small"), payer(0.97, "big")
    middleware = ConfidenceFallbackMiddleware(
        big, min_confidence=0.7, tool_min_confidence={"pay": 0.95}
    )
    state = await run(agent_of(small, middleware, tools=[pay]), asynchronous)
    assert state["bitcal_trace"][0]["chosen"] == 1
    assert PAID == [5]


@WAYS
@pytest.mark.parametrize("score", [0.8, None])
async def test_a_call_that_stays_unsure_is_not_run(asynchronous, score) -> None:
    middleware = ConfidenceFallbackMiddleware(
        payer(score), min_confidence=0.7, tool_min_confidence={"pay": 0.95}
    )
    state = await run(agent_of(payer(score), middleware, tools=[pay]), asynchronous)
    (refused,) = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    assert refused.status == "error"
    assert "The tool was not run: call of 'pay'" in refused.text
    assert PAID == []
    assert state["messages"][-1].text.startswith("done: The tool was not run")


def test_other_tools_are_run_as_they_are() -> None:
    middleware = ConfidenceFallbackMiddleware(
        payer(0.2), min_confidence=0.7, tool_min_confidence={"other": 0.95}
    )
    agent_of(payer(0.2), middleware, tools=[pay]).invoke(ASKED)
    assert PAID == [5]


# ---- limits and failures ---------------------------------------------------------------------


def test_escalations_are_bounded_per_run_and_begin_anew() -> None:
    small, big = payer(0.1, "small"), payer(0.99, "big")
    small.say = lambda last: ("", 0.9, "pay", {"amount": 1}, 0.1) if last == "go" else (last, 0.1)
    middleware = ConfidenceFallbackMiddleware(big, min_confidence=0.7, max_escalations=1)
    agent = agent_of(small, middleware, tools=[pay], checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    for _ in range(2):
        state = agent.invoke(ASKED, thread)
        assert [step["escalations"] for step in state["bitcal_trace"]] == [1, 0]
    assert len(big.asked) == 2


@WAYS
async def test_a_failing_engine_escalates_and_other_errors_do_not(asynchronous) -> None:
    big = always("the answer", 0.9)
    middleware = ConfidenceFallbackMiddleware(big, min_confidence=0.7)
    state = await run(agent_of(fails(EngineError("gone")), middleware), asynchronous)
    assert state["messages"][-1].text == "the answer"
    with pytest.raises(ValueError, match="a bug"):
        await run(agent_of(fails(ValueError("a bug")), middleware), asynchronous)


@WAYS
async def test_control_exceptions_pass(asynchronous) -> None:
    big = always("the answer", 0.9)
    middleware = ConfidenceFallbackMiddleware(
        big, min_confidence=0.7, exceptions_to_handle=(Exception,)
    )
    agent = agent_of(fails(GraphInterrupt(())), middleware)
    await run(agent, asynchronous)  # LangGraph takes it as a pause
    assert big.asked == []


def test_nobody_left_raises_abstains_or_gives_the_best() -> None:
    def last(on_exhausted: str) -> Any:
        middleware = ConfidenceFallbackMiddleware(
            always("worse", 0.2), min_confidence=0.7, on_exhausted=on_exhausted
        )
        return agent_of(always("better", 0.5), middleware).invoke(ASKED)["messages"][-1]

    assert last("best").text == "better"
    assert last("last").text == "worse"
    abstained = last("I cannot say that.")
    assert abstained.text == "I cannot say that."
    assert abstained.response_metadata["bitcal"]["decision"]["action"] == "abstain"
    with pytest.raises(LowConfidenceError):
        last("raise")


def test_outside_model_fallback_the_trace_names_who_answered() -> None:
    broken, mid = fails(RuntimeError("down")), always("from mid", 0.9, "mid")
    agent = agent_of(
        broken,
        ConfidenceFallbackMiddleware(always("big", 0.9, "big"), min_confidence=0.7),
        ModelFallbackMiddleware(mid),
    )
    state = agent.invoke(ASKED)
    assert state["messages"][-1].text == "from mid"
    assert state["bitcal_trace"][0]["attempts"][0]["model"] == "mid"


def test_drafts_are_asked_through_one_copy_of_the_model() -> None:
    model = always("x", 0.9)
    middleware = ConfidenceFallbackMiddleware(always("y", 0.9), min_confidence=0.7)
    assert middleware.quiet(model) is middleware.quiet(model)
    assert model.tags is None


@pytest.mark.parametrize(
    ("fallbacks", "options", "words"),
    [
        ((str,), {"min_confidence": 0.7}, "no chat model"),
        ((), {}, "neither"),
        ((), {"min_confidence": 0.7, "on_exhausted": "review"}, "ConfidenceReviewMiddleware"),
        ((), {"min_confidence": 0.7, "max_escalations": -1}, "max_escalations=-1"),
        ((), {"min_confidence": 0.7, "tool_min_confidence": 0.9}, "tool_min_confidence=0.9"),
        ((), {"min_confidence": 0.7, "tool_min_confidence": {"pay": 9}}, "9"),
    ],
)
def test_wrong_arguments_are_refused(fallbacks, options, words) -> None:
    with pytest.raises(BadRequest, match=words):
        ConfidenceFallbackMiddleware(*fallbacks, **options)


def test_without_langchain_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['langchain.agents'] = None\n"
        "from bitcal_integrations.errors import MissingExtra\n"
        "from bitcal_integrations.langchain import ConfidenceRouter\n"
        "try:\n    from bitcal_integrations.langchain import ConfidenceFallbackMiddleware\n"
        "except MissingExtra as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'bitcal-integrations[agents]'" in run.stdout, run.stderr
