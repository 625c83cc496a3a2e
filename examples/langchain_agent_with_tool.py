"""An agent with a calculator whose unsure steps are taken by another model.

The built-in model was never taught to call tools, and its confidence says so. The larger model
is stood for by a few rules here; put any chat model in its place. Needs the extra `agents`.
"""

import re

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from bitcal_integrations.langchain import ChatBitCal, ConfidenceFallbackMiddleware


@tool
def add(numbers: list[int]) -> int:
    """Add numbers."""
    return sum(numbers)


class Rules(BaseChatModel):
    """Takes the numbers of a question to the calculator, and its result to the user."""

    model: str = "rules"

    @property
    def _llm_type(self):
        return "rules"

    def bind_tools(self, tools, **options):
        return self

    def _generate(self, messages, stop=None, run_manager=None, **options):
        text = messages[-1].text
        if messages[-1].type == "tool":
            answer = AIMessage(f"Together that makes {text}.")
        else:
            call = {"name": "add", "args": {"numbers": re.findall(r"\d+", text)}, "id": "call_1"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


agent = create_agent(
    ChatBitCal(model="bitcal-tiny", weights="qint8", max_tokens=32),
    [add],
    middleware=[ConfidenceFallbackMiddleware(Rules(), min_confidence=0.7)],
)
state = agent.invoke({"messages": [("user", "What are 1234, 567 and 89 together?")]})

for message in state["messages"]:
    print(f"{message.type:6} {message.text or message.tool_calls[0]['args']}")
for step, told in enumerate(state["bitcal_trace"], 1):
    sure = {a["model"]: a["confidence"] for a in told["attempts"]}
    print(f"step {step}: {told['escalations']} escalation, confidence {sure}")
