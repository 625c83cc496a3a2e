"""ConfidenceAgentMixin: an agent that does not give an answer it is unsure of.

It looks at each step's answer, and asks again, asks a stronger llm, hands over to another agent,
or stops. It knows steps and policies; reasoning and tools are the agent's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from llama_index.core.agent.workflow.agent_context import AgentContext
from llama_index.core.agent.workflow.workflow_events import AgentOutput, AgentStream
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.memory import BaseMemory
from llama_index.core.tools import AsyncBaseTool

from bitcal_integrations.chains.cascade import Attempt, Cascade, check_on_exhausted
from bitcal_integrations.chains.records import judged, unknown_record
from bitcal_integrations.decide._check import is_number
from bitcal_integrations.decide.policy import Policy, apart
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index._course import given, policy_of
from bitcal_integrations.llama_index._records import bitcal_of, confidence_keys, record_of
from bitcal_integrations.llama_index.confidence import KNOWN
from bitcal_integrations.types import Decision, Record

TRIED = "bitcal_tried"  # the drafts of a run that were not given, by agent, in the store
HANDOFF = "handoff"  # LlamaIndex's name for the tool with which agents hand over
A_TOOLS = "the answer is a tool's output, which carries no confidence"
ASK_AGAIN = (
    "You were not certain of your last answer: {answer}\n"
    "Think again, use your tools where they help, and give your best answer."
)


class ConfidenceAgentMixin(BaseModel):
    """`class Agent(ConfidenceAgentMixin, FunctionAgent): pass`, with these further arguments.

    `policy` or `min_confidence` (0.7 without either) judges the final answer. One that is not
    accepted is asked again with `retry_prompt`, `max_retries` times a run at most; then `stronger`,
    an llm, takes the step; then, in an AgentWorkflow, the agent named `hand_over_to` gets the
    question (the model itself is then not shown the handoff tool); at last `on_exhausted` decides:
    "best", "last", "raise", "abstain", or a sentence of your own. `tool_min_confidence` maps names
    of tools to the probability that a call of them needs: an unsure call goes the same way, and is
    never made.

    AgentOutput has `.confidence` and `.bitcal`, whose `route` lists the attempts. The words of a
    step are on the stream once it is judged, so those of a draft that is not given never are.
    """

    policy: Any = Field(default=None, exclude=True)
    min_confidence: float | None = None
    on_unknown: str | None = None
    max_retries: int = Field(default=1, ge=0)
    retry_prompt: str = ASK_AGAIN
    stronger: LLM | None = Field(default=None, exclude=True)
    hand_over_to: str | None = None
    on_exhausted: str = "best"
    tool_min_confidence: dict[str, float] = Field(default_factory=dict)

    _policy: Policy = PrivateAttr()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        how = {k: kwargs.get(k) for k in ("policy", "min_confidence", "on_unknown")}
        policy = policy_of(**how)  # here, because pydantic would wrap what it refuses
        if check_on_exhausted(kwargs.get("on_exhausted", "best")) == "review":
            raise BadRequest(
                "on_exhausted='review' is not for agents: a ConfidenceFallbackWorkflow round the "
                "agent can ask a person"
            )
        _check(kwargs.get("tool_min_confidence"), kwargs.get("retry_prompt", ASK_AGAIN))
        super().__init__(*args, **kwargs)
        self._policy = policy

    async def take_step(
        self,
        ctx: AgentContext,
        llm_input: list[ChatMessage],
        tools: Sequence[AsyncBaseTool],
        memory: BaseMemory,
    ) -> AgentOutput:
        """The agent's step, or what its confidence makes of it."""
        pad, shown = await _Pad.of(self, ctx), _HeldBack(ctx)
        if self.hand_over_to is not None:  # its confidence hands over, not the model
            tools = [tool for tool in tools if tool.metadata.name != HANDOFF]
        output = await super().take_step(shown, llm_input, tools, memory)  # type: ignore[misc]
        record = self._judge(output, self.name)  # type: ignore[attr-defined]
        tried = [*await self._drafts(ctx), record.to_dict()]
        if _unsure(record) and len(tried) <= self.max_retries:
            await pad.put(ctx)
            await self._keep(ctx, tried)
            prompt = self.retry_prompt.format(answer=output.response.content or "")
            output.retry_messages = [ChatMessage(role="user", content=prompt)]
            return _told(output, record, tried, None)
        if _unsure(record) and self.stronger is not None:
            await pad.put(ctx)
            shown = _HeldBack(ctx)
            own = self.model_copy(update={"llm": self.stronger})  # other runs keep their llm
            step = super(ConfidenceAgentMixin, own).take_step  # type: ignore[misc]
            output = await step(shown, llm_input, tools, memory)
            record = self._judge(output, self.stronger.metadata.model_name)
            tried.append(record.to_dict())
        if output.tool_calls and not _unsure(record):
            shown.release()
            return _told(output, record, tried[-1:], 0)  # not the answer yet
        await self._keep(ctx, [])
        if _unsure(record) and self.hand_over_to is not None:
            output = await self._handed_over(ctx, output, record)
            await pad.put(ctx, output.response)
            return _told(output, record, tried, None)
        return await self._ended(shown, pad, output, tried)

    async def finalize(self, ctx: Any, output: AgentOutput, memory: BaseMemory) -> AgentOutput:
        """The agent's own, with the confidence of a tool whose output is the answer."""
        await self._keep(ctx, [])  # a tool answered, or another agent goes on
        ended: AgentOutput = await super().finalize(ctx, output, memory)  # type: ignore[misc]
        if "confidence" not in ended:
            known = isinstance(ended.raw, KNOWN)
            record = record_of(ended.raw) if known else unknown_record(str(ended), reason=A_TOOLS)
            for name, value in confidence_keys(record).items():
                setattr(ended, name, value)
        return ended

    async def _drafts(self, ctx: AgentContext) -> list[dict[str, Any]]:
        """This agent's in this run; what an earlier run left at its first step is dropped."""
        if not await ctx.store.get("num_iterations", default=0):
            await ctx.store.set(TRIED, {})
        kept: dict[str, list[dict[str, Any]]] = await ctx.store.get(TRIED, default={})
        return kept.get(self.name, [])  # type: ignore[attr-defined]

    async def _keep(self, ctx: AgentContext, tried: list[dict[str, Any]]) -> None:
        kept = await ctx.store.get(TRIED, default={})
        await ctx.store.set(TRIED, {**kept, self.name: tried})  # type: ignore[attr-defined]

    def _judge(self, output: AgentOutput, name: str) -> Record:
        record = record_of(output, model=name)
        if not output.tool_calls:
            return judged(self._policy, record)
        return replace(record, decision=self._of_calls(output))

    def _of_calls(self, output: AgentOutput) -> Decision:
        """Whether every call is sure enough for its tool; a call nothing is known of is not."""
        told = (bitcal_of(output) or {}).get("tool_calls") or []
        for index, call in enumerate(output.tool_calls):
            needed = self.tool_min_confidence.get(call.tool_name)
            p = told[index].get("confidence") if len(told) == len(output.tool_calls) else None
            if needed is not None and (p is None or p < needed):
                sure = "unknown" if p is None else " < ".join(apart(p, needed))
                return Decision("escalate", f"the call of {call.tool_name}: {sure}")
        return Decision("accept", "a step on the way, not the answer")

    async def _handed_over(
        self, ctx: AgentContext, output: AgentOutput, record: Record
    ) -> AgentOutput:
        """The step as a call of the handoff tool of the AgentWorkflow."""
        agents = await ctx.store.get("agents", default=[])
        if self.hand_over_to not in agents:
            known = f"its agents are {', '.join(agents)}" if agents else "this is none"
            raise BadRequest(
                f"hand_over_to={self.hand_over_to!r} needs an AgentWorkflow with it: {known}"
            )
        reason = record.decision.reason if record.decision else ""
        kwargs = {"to_agent": self.hand_over_to, "reason": f"not certain enough: {reason}"}
        call = ToolSelection(tool_id=uuid4().hex, tool_name=HANDOFF, tool_kwargs=kwargs)
        block = ToolCallBlock(tool_call_id=call.tool_id, tool_name=HANDOFF, tool_kwargs=kwargs)
        message = ChatMessage(role="assistant", blocks=[block])
        return output.model_copy(update={"response": message, "tool_calls": [call]})

    async def _ended(
        self, shown: _HeldBack, pad: _Pad, output: AgentOutput, tried: list[dict[str, Any]]
    ) -> AgentOutput:
        """The answer that is given in the end: this one, an earlier draft, or a sentence."""
        records = [Record.from_dict(data) for data in tried]
        exhausted = self.on_exhausted
        if output.tool_calls and exhausted in ("best", "last"):
            exhausted = "abstain"  # an unsure call is never made
        cascade = Cascade(_AsJudged(), [r.model for r in records], exhausted)
        for record in records:
            cascade.judge(record)
        outcome = cascade.outcome()
        record = given(cascade, outcome)
        if outcome.index != len(tried) - 1:
            text = record.text if outcome.text is None else outcome.text
            message = ChatMessage(role="assistant", content=text)
            output = output.model_copy(update={"response": message, "tool_calls": []})
            await pad.put(shown.ctx, message)
        else:
            shown.release()
        return _told(output, record, tried, outcome.index)


class _AsJudged:
    """The policy of a course whose records carry their decisions already."""

    def decide(self, record: Record) -> Decision:
        return record.decision or Decision("escalate", "not judged")


class _HeldBack:
    """The context of a step whose words are not on the stream before they are released."""

    def __init__(self, ctx: AgentContext) -> None:
        self.ctx = ctx
        self._words: list[AgentStream] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ctx, name)

    def write_event_to_stream(self, event: Any) -> None:
        if isinstance(event, AgentStream):
            self._words.append(event)
        else:
            self.ctx.write_event_to_stream(event)

    def release(self) -> None:
        for event in self._words:
            self.ctx.write_event_to_stream(event)


class _Pad:
    """What an agent had written down before a step, to put back where the step is not to count."""

    def __init__(self, notes: dict[str, list[Any]]) -> None:
        self._notes = notes

    @classmethod
    async def of(cls, agent: Any, ctx: AgentContext) -> _Pad:
        keys = [getattr(agent, name, None) for name in ("scratchpad_key", "reasoning_key")]
        notes = {key: list(await ctx.store.get(key, default=[])) for key in keys if key}
        return cls(notes)

    async def put(self, ctx: AgentContext, *messages: ChatMessage) -> None:
        """Write it back, with these messages in place of the step's own."""
        for key, notes in self._notes.items():
            added = messages if key == next(iter(self._notes)) else ()
            await ctx.store.set(key, [*notes, *added])


def _check(bounds: Any, prompt: Any) -> None:
    """Refuse what would only fail in the middle of a run."""
    for tool, needed in bounds.items() if isinstance(bounds, dict) else ():
        if not (is_number(needed) and 0 <= needed <= 1):
            raise BadRequest(
                f"tool_min_confidence[{tool!r}]={needed!r:.80} is not a number from 0 to 1"
            )
    try:
        str(prompt).format(answer="")
    except (LookupError, ValueError, AttributeError) as error:
        raise BadRequest(
            f"retry_prompt={prompt!r:.80} has another field than {{answer}}: {error!r}"
        ) from error


def _unsure(record: Record) -> bool:
    return record.decision is not None and record.decision.action == "escalate"


def _told(
    output: AgentOutput, record: Record, tried: list[dict[str, Any]], chosen: int | None
) -> AgentOutput:
    """The output with its confidence, which AgentOutput has no field for but room."""
    records = [Record.from_dict(data) for data in tried]
    attempts = [Attempt(r.model, r, r.decision).to_dict() for r in records]
    route = {"attempts": attempts, "chosen": chosen, "escalations": len(attempts) - 1}
    keys = confidence_keys(record, route=route)
    for name, value in keys.items():
        setattr(output, name, value)
    return output
