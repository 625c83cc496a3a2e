"""An agent that hands a question over to another one when it is not certain of its answer.

The small agent is the built-in model; a table stands in for the larger model that a real app
would host.
"""

import asyncio

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent

from bitcal_integrations.llama_index import BitCalLLM, ConfidenceAgentMixin
from bitcal_integrations.testing.toy import ToyModel


class Agent(ConfidenceAgentMixin, FunctionAgent):
    """Gives no answer that it is unsure of."""


small = BitCalLLM(
    model="bitcal-tiny", weights="qint4", max_tokens=24, is_function_calling_model=True
)
large = BitCalLLM(model=ToyModel({}, default=("Thimphu", 0.97)), is_function_calling_model=True)


async def main() -> None:
    for country in ("Germany", "Bhutan"):
        first = Agent(
            name="small",
            description="fast",
            llm=small,
            min_confidence=0.8,
            max_retries=0,
            hand_over_to="large",
        )
        second = Agent(name="large", description="slow and good", llm=large)
        workflow = AgentWorkflow(agents=[first, second], root_agent="small")
        handler = workflow.run(user_msg=f"What is the capital of {country}?")
        async for event in handler.stream_events():
            for call in getattr(event, "tool_calls", ()):
                if call.tool_name == "handoff":
                    print(f"{country}: {call.tool_kwargs['reason']}")
        answer = await handler
        by, sure = answer.current_agent_name, answer.confidence
        print(f"{country}: {answer} (by the {by} agent, confidence {sure:.2f})")


asyncio.run(main())
