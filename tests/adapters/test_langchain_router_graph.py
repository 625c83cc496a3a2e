"""ConfidenceRouter inside LangGraph: interrupts pass, a person is asked, no draft is shown."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from lc_chain_help import always, big_model, small_model

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest, LowConfidenceError, MissingExtra
from bitcal_integrations.langchain.router import ConfidenceRouter

THREAD: Any = {"configurable": {"thread_id": "1"}}


def graph_of(router: Any) -> Any:
    """A graph of one node that answers the last message through the router."""

    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [router.invoke(state["messages"])]}

    async def aanswer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await router.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", RunnableLambda(answer, aanswer))
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    return builder.compile(checkpointer=InMemorySaver())


def asked(question: str) -> Any:
    return {"messages": [("user", question)]}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_interrupt_in_a_branch_passes_through(asynchronous) -> None:
    def ask(messages: Any) -> Any:
        return always(interrupt("may I?"), 0.9).invoke(messages)

    big = big_model()
    router = ConfidenceRouter(ask, [big], min_confidence=0.7, exceptions_to_handle=(Exception,))
    graph = graph_of(router)
    run = graph.ainvoke if asynchronous else graph.invoke
    first = run(asked("q"), THREAD)
    first = await first if asynchronous else first
    assert first["__interrupt__"][0].value == "may I?"
    second = run(Command(resume="yes, you may"), THREAD)
    second = await second if asynchronous else second
    assert second["messages"][-1].text == "yes, you may"
    assert big.asked == []


def raises_interrupt(_: Any) -> Any:
    raise GraphInterrupt(())


@pytest.mark.parametrize("return_exceptions", [False, True])
async def test_it_passes_through_a_batch_and_a_stream(return_exceptions) -> None:
    router = ConfidenceRouter(
        raises_interrupt, [big_model()], min_confidence=0.7, exceptions_to_handle=(Exception,)
    )
    with pytest.raises(GraphInterrupt):
        router.batch(["a", "b"], return_exceptions=return_exceptions)
    with pytest.raises(GraphInterrupt):
        await router.abatch(["a", "b"], return_exceptions=return_exceptions)
    with pytest.raises(GraphInterrupt):
        list(router.stream("a"))


@pytest.mark.parametrize(
    ("reply", "text", "action"),
    [
        ({"action": "accept"}, "small: hard?", "accept"),
        ({"action": "edit", "text": "Paris"}, "Paris", "accept"),
        ("Paris", "Paris", "accept"),
        ({"action": "reject", "text": "Nobody knows."}, "Nobody knows.", "accept"),
    ],
)
def test_a_person_is_asked(reply, text, action) -> None:
    router = ConfidenceRouter(small_model(), min_confidence=0.7, on_exhausted="review")
    graph = graph_of(router)
    question = graph.invoke(asked("hard?"), THREAD)["__interrupt__"][0].value
    assert question["answer"] == "small: hard?"
    assert question["confidence"] == 0.3
    assert question["attempts"][0]["decision"]["reason"] == "0.30 < 0.70"
    answer = graph.invoke(Command(resume=reply), THREAD)["messages"][-1]
    assert answer.text == text
    told = answer.response_metadata["bitcal"]
    assert told["decision"]["action"] == action
    assert "by a person" in told["decision"]["reason"]


def test_a_rejection_without_words_raises() -> None:
    router = ConfidenceRouter(small_model(), min_confidence=0.7, on_exhausted="review")
    graph = graph_of(router)
    graph.invoke(asked("hard?"), THREAD)
    with pytest.raises(LowConfidenceError, match="rejected"):
        graph.invoke(Command(resume=False), THREAD)


def test_a_reply_that_is_not_understood_is_refused() -> None:
    router = ConfidenceRouter(small_model(), min_confidence=0.7, on_exhausted="review")
    graph = graph_of(router)
    graph.invoke(asked("hard?"), THREAD)
    with pytest.raises(BadRequest, match="'maybe'"):
        graph.invoke(Command(resume={"action": "maybe"}), THREAD)


def test_without_a_run_to_pause_a_review_is_refused() -> None:
    router = ConfidenceRouter(small_model(), min_confidence=0.7, on_exhausted="review")
    assert router.invoke("easy?").text == "small: easy?"
    with pytest.raises(BadRequest, match="no LangGraph run"):
        router.invoke("hard?")


@pytest.mark.parametrize(
    "options",
    [{"min_confidence": 0.7, "on_exhausted": "review"}, {"policy": as_policy(0.7, below="review")}],
)
def test_a_review_needs_langgraph(monkeypatch, options) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "bitcal_integrations.langchain._review.find_spec",
        lambda name: None if name == "langgraph" else find(name),
    )
    with pytest.raises(MissingExtra, match=r"bitcal-integrations\[agents\]"):
        ConfidenceRouter(small_model(), **options)


def shown(graph: Any, question: str) -> list[str]:
    """The texts that a graph shows in stream_mode="messages"."""
    events = graph.stream(asked(question), THREAD, stream_mode="messages")
    return [message.text for message, _ in events if message.text]


def test_no_token_of_a_draft_is_shown() -> None:
    options: Any = {"min_confidence": 0.7}
    graph = graph_of(ConfidenceRouter(small_model(), [big_model()], **options))
    assert shown(graph, "hard?") == ["big: hard?"]
    live = graph_of(ConfidenceRouter(small_model(), [big_model()], **options, on_exhausted="last"))
    assert shown(live, "hard?") == ["big:", " hard?"]
