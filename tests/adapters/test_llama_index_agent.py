"""ConfidenceAgentMixin: agents that ask again, ask a stronger llm, hand over, or stop."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, response
from llama_index.core.agent.workflow import (
    AgentOutput,
    AgentStream,
    AgentWorkflow,
    FunctionAgent,
    ReActAgent,
)
from llama_index.core.tools import FunctionTool, QueryEngineTool, ToolMetadata

from bitcal_integrations.decide import as_policy
from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index.agent import ConfidenceAgentMixin
from bitcal_integrations.llama_index.confidence import get_confidence

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pydantic's, in LlamaIndex
NO_MEMORY = pytest.mark.filterwarnings("ignore:Skipping serialization")  # a ctx run again


class Agent(ConfidenceAgentMixin, FunctionAgent):
    pass


class Reasoner(ConfidenceAgentMixin, ReActAgent):
    pass


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


CALL = {"name": "add", "a": 2, "b": 3}


async def run(agent: Any, **kwargs: Any) -> Any:
    return await agent.run(user_msg="2 and 3?", **kwargs)


def llm(*script: tuple[Any, float | None], **kwargs: Any) -> ScriptedLLM:
    return ScriptedLLM(script, **kwargs)


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_sure_answer_has_its_confidence(streaming: bool) -> None:
    agent = Agent(llm=llm((CALL, 0.2), ("five", 0.9)), tools=[add], streaming=streaming)
    output = await run(agent)
    assert str(output).strip() == "five"
    assert output.confidence == 0.9
    assert output.bitcal["route"]["escalations"] == 0
    assert get_confidence(output).value == 0.9
    assert output.tool_calls[0].tool_output.raw_output == 5
    assert json.loads(output.model_dump_json())["_data"]["confidence"] == 0.9


async def test_an_unsure_answer_is_asked_again() -> None:
    model = llm(("four", 0.3), ("five", 0.9))
    output = await run(Agent(llm=model))
    assert str(output).strip() == "five"
    assert "not certain of your last answer: four" in model.asked[1]
    assert [a["confidence"] for a in output.bitcal["route"]["attempts"]] == [0.3, 0.9]
    assert output.bitcal["route"]["chosen"] == 1


async def test_a_rejected_draft_leaves_no_trace() -> None:
    agent = Agent(llm=llm(("four", 0.3), ("five", 0.9)))
    handler = agent.run(user_msg="2 and 3?")
    await handler
    memory = await handler.ctx.store.get("memory")
    assert [m.content.strip() for m in memory.get_all()] == ["2 and 3?", "five"]


async def test_the_words_of_a_draft_are_never_on_the_stream() -> None:
    agent = Agent(llm=llm(("four so", 0.3), (CALL, 0.2), ("five it is", 0.9)), tools=[add])
    handler = agent.run(user_msg="2 and 3?")
    words = [e.delta async for e in handler.stream_events() if isinstance(e, AgentStream)]
    assert "".join(words) == "five it is "
    assert str(await handler) == "five it is "


async def test_it_is_not_asked_for_ever_and_the_best_draft_is_given() -> None:
    model = llm(("four", 0.5), ("six", 0.3), ("seven", 0.4))
    output = await run(Agent(llm=model, max_retries=2))
    assert str(output).strip() == "four"
    assert output.confidence == 0.5
    assert len(model.asked) == 3
    assert output.bitcal["route"]["chosen"] == 0
    last = await run(Agent(llm=llm(("four", 0.5), ("six", 0.3)), on_exhausted="last"))
    assert str(last).strip() == "six"


async def test_what_is_given_when_it_never_gets_certain() -> None:
    def agent(on_exhausted: str, **how: Any) -> Agent:
        return Agent(llm=llm(("four", 0.3)), on_exhausted=on_exhausted, max_retries=0, **how)

    output = await run(agent("I would rather not say."))
    assert str(output) == "I would rather not say."
    assert output.confidence is None
    with pytest.raises(LowConfidenceError) as caught:
        await run(agent("raise"))
    assert caught.value.record.text.strip() == "four"
    model = llm(("four", 0.3))
    output = await run(Agent(llm=model, policy=as_policy(0.7, below="abstain")))
    assert output.bitcal["decision"]["action"] == "abstain"
    assert len(model.asked) == 1


async def test_a_stronger_llm_takes_the_step() -> None:
    small, big = llm(("four", 0.3)), llm(("five", 0.95), name="big")
    agent = Agent(llm=small, stronger=big, max_retries=1, tools=[add])
    output = await run(agent)
    assert str(output).strip() == "five"
    assert (len(small.asked), len(big.asked)) == (2, 1)
    assert [a["model"] for a in output.bitcal["route"]["attempts"]] == ["Agent", "Agent", "big"]
    assert agent.llm is small


async def test_it_hands_over_to_another_agent() -> None:
    small, big = llm(("four", 0.3)), llm(("five", 0.95))
    first = Agent(name="small", description="quick", llm=small, max_retries=0, hand_over_to="big")
    second = Agent(name="big", description="slow", llm=big)
    flow = AgentWorkflow(agents=[first, second], root_agent="small")
    handler = flow.run(user_msg="2 and 3?")
    outputs = [e async for e in handler.stream_events() if isinstance(e, AgentOutput)]
    output = await handler
    assert (str(output).strip(), output.current_agent_name) == ("five", "big")
    assert output.confidence == 0.95
    assert outputs[0].confidence == 0.3
    assert outputs[0].tool_calls[0].tool_kwargs["reason"] == "not certain enough: 0.30 < 0.70"
    memory = await handler.ctx.store.get("memory")
    assert not any("four" in (m.content or "") for m in memory.get_all())


async def test_handing_over_needs_somebody() -> None:
    with pytest.raises(BadRequest, match="needs an AgentWorkflow with it: this is none"):
        await run(Agent(llm=llm(("four", 0.3)), max_retries=0, hand_over_to="big"))
    one = Agent(name="a", description="a", llm=llm(("4", 0.3)), max_retries=0, hand_over_to="c")
    two = Agent(name="b", description="b", llm=llm(("4", 0.3)))
    with pytest.raises(BadRequest, match="its agents are a, b"):
        await run(AgentWorkflow(agents=[one, two], root_agent="a"))


class Sure(ScriptedLLM):
    """Also says how sure it is of the call itself."""

    call: float | None = 0.5

    def _raw(self, said: Any, value: float | None) -> dict[str, Any] | None:
        raw = super()._raw(said, value) or {}
        if isinstance(said, dict):
            raw["bitcal"]["tool_calls"] = [{"name": said["name"], "confidence": self.call}]
        return raw


@pytest.mark.parametrize(("p", "called"), [(0.95, True), (0.5, False), (None, False)])
async def test_an_unsure_call_is_not_made(p: float | None, called: bool) -> None:
    made: list[int] = []

    def pay(amount: int) -> str:
        """Pays."""
        made.append(amount)
        return "paid"

    model = Sure([({"name": "pay", "amount": 7}, 0.9), ("done", 0.9)], call=p)
    if not called:
        model = Sure([({"name": "pay", "amount": 7}, 0.9)], call=p)
    agent = Agent(llm=model, tools=[pay], tool_min_confidence={"pay": 0.9})
    output = await run(agent)
    assert bool(made) is called
    if not called:
        assert output.confidence is None
        assert "pay" in output.bitcal["route"]["attempts"][0]["decision"]["reason"]
        assert output.bitcal["decision"]["action"] == "abstain"


async def test_tools_without_a_bound_are_called_as_ever() -> None:
    agent = Agent(llm=llm((CALL, 0.1), ("five", 0.9)), tools=[add])
    assert str(await run(agent)).strip() == "five"


async def test_a_tool_that_answers_itself_gives_its_confidence() -> None:
    engine = ScriptedEngine(response("Paris", 0.8))
    tool = QueryEngineTool(
        query_engine=engine, metadata=ToolMetadata(description="d", name="rag", return_direct=True)
    )
    agent = Agent(llm=llm(({"name": "rag", "input": "capital?"}, 0.2)), tools=[tool])
    output = await run(agent)
    assert (str(output), output.confidence) == ("Paris", 0.8)
    plain = FunctionTool.from_defaults(fn=add, return_direct=True)
    output = await run(Agent(llm=llm((CALL, 0.2)), tools=[plain]))
    assert (str(output), output.confidence) == ("5", None)
    assert "tool" in output.bitcal["reason"]


@NO_MEMORY
async def test_a_draft_is_never_the_answer_to_a_later_question() -> None:
    direct = FunctionTool.from_defaults(fn=add, return_direct=True)
    model = llm(("four", 0.6), (CALL, 0.2), ("nine", 0.3), ("ten", 0.4))
    agent = Agent(llm=model, tools=[direct])
    handler = agent.run(user_msg="2 and 3?")
    assert str(await handler) == "5"  # the tool answered, and the draft is of no use any more
    output = await agent.run(user_msg="4 and 5?", ctx=handler.ctx)
    assert str(output).strip() == "ten"
    assert [a["confidence"] for a in output.bitcal["route"]["attempts"]] == [0.3, 0.4]


@NO_MEMORY
async def test_nor_is_the_draft_of_a_run_that_failed() -> None:
    class Fails(ScriptedLLM):
        async def astream_chat_with_tools(self, *args: Any, **kwargs: Any) -> Any:
            if len(self.asked) == 1:
                self.asked.append("failed")
                raise RuntimeError("gone")
            return await super().astream_chat_with_tools(*args, **kwargs)

    agent = Agent(llm=Fails([("four", 0.6), ("nine", 0.3), ("ten", 0.4)]))
    handler = agent.run(user_msg="2 and 3?")
    with pytest.raises(RuntimeError, match="gone"):
        await handler
    output = await agent.run(user_msg="4 and 5?", ctx=handler.ctx)
    assert str(output).strip() == "ten"


async def test_nor_is_the_draft_of_another_agent() -> None:
    over = {"name": "handoff", "to_agent": "b", "reason": "hard"}
    one = Agent(name="a", description="a", llm=llm(("four", 0.6), (over, 0.5)))
    two = Agent(name="b", description="b", llm=llm(("five", 0.3), ("six", 0.4)))
    output = await run(AgentWorkflow(agents=[one, two], root_agent="a"))
    assert (str(output).strip(), output.current_agent_name) == ("six", "b")
    assert len(output.bitcal["route"]["attempts"]) == 2


async def test_a_reasoning_agent_too() -> None:
    unsure = "Thought: I can answer without using any more tools.\nAnswer: four"
    sure = unsure.replace("four", "five")
    agent = Reasoner(llm=llm((unsure, 0.3), (sure, 0.9)), streaming=False)
    output = await run(agent)
    assert str(output).strip() == "five"
    assert output.confidence == 0.9
    assert output.bitcal["route"]["escalations"] == 1


async def test_runs_at_once_do_not_mix() -> None:
    class Own(ScriptedLLM):
        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            text = messages[-1].content or ""
            await asyncio.sleep(0)
            return await ScriptedLLM([(text[-1], 0.9)]).achat(messages, **kwargs)

    agent = Agent(llm=Own([("x", 0.9)]), streaming=False)
    outputs = await asyncio.gather(*(agent.run(user_msg=f"say {i}") for i in range(8)))
    assert [str(o) for o in outputs] == [str(i) for i in range(8)]


def test_wrong_arguments_are_refused_at_once() -> None:
    model = llm(("x", 0.9))
    with pytest.raises(BadRequest, match="on_exhausted='panic'"):
        Agent(llm=model, on_exhausted="panic")
    with pytest.raises(BadRequest, match="not for agents"):
        Agent(llm=model, on_exhausted="review")
    with pytest.raises(BadRequest, match="same twice"):
        Agent(llm=model, policy=0.5, min_confidence=0.5)
