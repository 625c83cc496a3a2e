"""Middleware for LangChain's agents: a stronger model, or a person, for what a model is unsure of.

Needs the extra `agents`. It reads a step's and its tool calls' confidence; it knows no model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from typing_extensions import NotRequired

from bitcal_integrations.chains.cascade import Cascade, check_handle, check_on_exhausted
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError, MissingExtra
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._agent import (
    StepPolicy,
    accepted_by_person,
    applied,
    asking_for,
    last_answer,
    tool_policies,
    written,
)
from bitcal_integrations.langchain._calls import step_record
from bitcal_integrations.langchain._review import ask_person
from bitcal_integrations.types import Decision, Record

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, hook_config
    from langchain.agents.middleware.types import (
        ExtendedModelResponse,
        ModelResponse,
        OmitFromInput,
        ToolCallRequest,
    )
    from langgraph.types import Command
except ImportError as err:
    raise MissingExtra("langchain>=1", "agents") from err

TRACE = "bitcal_trace"
QUIET = 32


class TraceState(AgentState[Any]):
    """The agent's state with, for each model step of this run, who was asked and who was chosen."""

    bitcal_trace: NotRequired[Annotated[list[dict[str, Any]], OmitFromInput]]


class ConfidenceFallbackMiddleware(AgentMiddleware[TraceState, Any, Any]):
    """Asks stronger models for the agent's steps that its own model is not sure enough of.

    `fallbacks` are chat models, asked in turn while `min_confidence` (or `policy`) does not accept
    the step. A step that calls tools is judged by the model's own probability of each call;
    `tool_min_confidence={"pay": 0.95}` asks more of calls with side effects, and such a call that
    stays below is not run, whoever made it: the agent reads why. What happens when nobody is left
    is `on_exhausted`: best, last, raise, abstain or a text. At most `max_escalations` further
    models are asked per run of the agent. A failure of a kind in `exceptions_to_handle` escalates.

    Drafts are not shown in stream_mode="messages": the accepted step appears as a whole, and with
    on_exhausted="last" the last fallback streams live. The state's `bitcal_trace` says for each
    step who was asked, and the message's response_metadata["bitcal"]["route"] the same. Put it
    before (outside) ModelFallbackMiddleware.
    """

    state_schema = TraceState

    def __init__(
        self,
        *fallbacks: BaseChatModel,
        min_confidence: float | None = None,
        policy: Any = None,
        on_unknown: str = "escalate",
        on_exhausted: str = "best",
        tool_min_confidence: Mapping[str, Any] | None = None,
        max_escalations: int | None = None,
        scored_by: Mapping[Any, Any] | None = None,
        exceptions_to_handle: Any = (EngineError, LowConfidenceError),
    ) -> None:
        super().__init__()
        for model in fallbacks:
            if not isinstance(model, BaseChatModel):
                raise BadRequest(f"the fallback {model!r:.80} is no chat model")
        if check_on_exhausted(on_exhausted) == "review":
            raise BadRequest(
                "on_exhausted='review' would ask every model again after the review",
                "Add ConfidenceReviewMiddleware, which pauses after the model's step.",
            )
        if max_escalations is not None and (
            isinstance(max_escalations, bool)
            or not isinstance(max_escalations, int)
            or max_escalations < 0
        ):
            raise BadRequest(f"max_escalations={max_escalations!r}: a whole number from 0, or None")
        judge = _run.policy_from(policy, min_confidence, on_unknown)
        self.fallbacks = fallbacks
        self.policy = StepPolicy(judge, tool_policies(tool_min_confidence, on_unknown))
        self.names = _run.distinct(["primary", *(_run.name_of(m) for m in fallbacks)])
        self.on_exhausted, self.max_escalations = on_exhausted, max_escalations
        self.handle = check_handle(exceptions_to_handle)
        self.profile = _run.checked_profiles(scored_by or {}, self.names)
        self._quiet: dict[int, tuple[BaseChatModel, BaseChatModel]] = {}

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        """A new run of the agent begins with an empty trace and a full budget."""
        return {TRACE: []}

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        return {TRACE: []}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]
    ) -> Any:
        step = _Step(self, request)
        while step.next is not None:
            try:
                response = handler(step.request())
            except Exception as error:
                step.failed(error)
            else:
                step.take(response)
        return step.given()

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        step = _Step(self, request)
        while step.next is not None:
            try:
                response = await handler(step.request())
            except Exception as error:
                step.failed(error)
            else:
                step.take(response)
        return step.given()

    def wrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Any]
    ) -> Any:
        refused = self._refused(request)
        return handler(request) if refused is None else refused

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Any]]
    ) -> Any:
        refused = self._refused(request)
        return await handler(request) if refused is None else refused

    def _refused(self, request: ToolCallRequest) -> ToolMessage | None:
        """What the agent reads instead of a call that is not sure enough to be run."""
        call = request.tool_call
        found = asking_for(request.state["messages"], call["id"])
        if call["name"] not in self.policy.tools:
            return None
        if found is None:
            return _not_run(call, "nothing says how sure the model was of it")
        message, at = found
        if accepted_by_person(message):
            return None
        record = step_record(message)
        decision = self.policy.decide_call(record, *record.calls[at])
        if decision.action == "accept":
            return None
        if decision.action == "raise":
            raise LowConfidenceError(f"the tool is not run: {decision.reason}", record)
        return _not_run(call, decision.reason)

    def quiet(self, model: BaseChatModel) -> BaseChatModel:
        """The model with its tokens not shown; one copy each, which keeps what it has loaded."""
        known = self._quiet.get(id(model))
        if known is None or known[0] is not model:
            if len(self._quiet) >= QUIET:  # models made anew for each call are not kept for ever
                self._quiet.clear()
            tags = [*(model.tags or []), _run.NOSTREAM]
            known = self._quiet[id(model)] = model, model.model_copy(update={"tags": tags})
        return known[1]


def _not_run(call: Mapping[str, Any], reason: str) -> ToolMessage:
    text = f"The tool was not run: {reason}."
    return ToolMessage(text, tool_call_id=call["id"], name=call["name"], status="error")


class _Step:
    """One model step's way through the agent's model and the fallbacks."""

    def __init__(self, owner: ConfidenceFallbackMiddleware, request: ModelRequest[Any]) -> None:
        self._owner, self._request = owner, request
        self._trace: list[dict[str, Any]] = list(_state(request).get(TRACE) or [])
        models = (request.model, *owner.fallbacks)
        if owner.max_escalations is not None:
            used = sum(step["escalations"] for step in self._trace)
            models = models[: 1 + max(0, owner.max_escalations - used)]
        self._models = models
        names = (_run.name_of(request.model), *owner.names[1:])[: len(models)]
        self._cascade = Cascade(owner.policy, names, owner.on_exhausted, owner.handle)
        self._came: list[tuple[Any, AIMessage | None]] = []

    @property
    def next(self) -> int | None:
        return self._cascade.next

    def request(self) -> ModelRequest[Any]:
        """The request for the model to ask now; a draft's tokens are not shown."""
        index = len(self._came)
        model, policy = self._models[index], self._owner.policy
        last = index == len(self._models) - 1 and self._owner.on_exhausted == "last"
        known = policy.on_unknown in ("escalate", "accept") and policy.below == "escalate"
        return self._request.override(model=model if last and known else self._owner.quiet(model))

    def take(self, response: Any) -> None:
        """A model has answered."""
        message = last_answer(response.result)
        profile = self._owner.profile(len(self._came))
        record: Record
        if message is None:
            record = unknown_record("", reason="no answer of a model in the response")
        else:
            record = step_record(message, profile)
        self._came.append((response, message))
        self._cascade.judge(record)

    def failed(self, error: Exception) -> None:
        if _run.is_control(error):
            raise error
        self._came.append((None, None))
        self._cascade.failed(error)

    def given(self) -> Any:
        """The chosen response with the route told in its message, and the trace for the state."""
        outcome, route = self._cascade.outcome(), self._cascade.provenance()
        command: Any = Command(update={TRACE: [*self._trace, route]})
        if outcome.index is None:
            record = unknown_record(outcome.text or "", reason=outcome.reason)
            message = written(record, Decision("abstain", outcome.reason), route=route)
            return ExtendedModelResponse(ModelResponse(result=[message]), command)
        response, found = self._came[outcome.index]
        attempt = self._cascade.attempts[outcome.index]
        assert attempt.record is not None
        assert attempt.decision is not None
        extra = {"decision": attempt.decision.to_dict(), "route": route}
        told = _run.with_bitcal(found, attempt.record, extra)
        result = [told if m is found else m for m in response.result]
        whole = ModelResponse(result=result, structured_response=response.structured_response)
        return ExtendedModelResponse(whole, command)


class ConfidenceReviewMiddleware(AgentMiddleware[AgentState[Any], Any, Any]):
    """Pauses the agent for a person where a step is not sure enough; needs a checkpointer.

    A step below `min_confidence` (or not accepted by `policy`; a tool call by its own confidence)
    interrupts the run with {"answer", "confidence", "reason", "tool_calls"}. Resume it with
    Command(resume={"action": "accept"}), {"action": "edit", "text": ...}, which gives that text as
    the answer, or {"action": "reject", "text": ...}, which says that instead; both end the run.
    The model is not asked again.
    """

    def __init__(
        self,
        *,
        min_confidence: float | None = None,
        policy: Any = None,
        on_unknown: str = "escalate",
        tool_min_confidence: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        judge = _run.policy_from(policy, min_confidence, on_unknown)
        self.policy = StepPolicy(judge, tool_policies(tool_min_confidence, on_unknown))

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self._reviewed(state["messages"])

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        return self._reviewed(state["messages"])

    def _reviewed(self, messages: Sequence[Any]) -> dict[str, Any] | None:
        message = last_answer(messages)
        if message is None:
            return None
        record = step_record(message)
        decision = self.policy.decide(record)
        if decision.action == "accept":
            return None
        if decision.action == "raise":
            raise LowConfidenceError(f"the step is not accepted: {decision.reason}", record)
        question = {
            "answer": str(message.text), "confidence": record.confidence.value,
            "reason": decision.reason, "tool_calls": [dict(call) for call in message.tool_calls],
        }  # fmt: skip
        return applied(ask_person(question), message, record)


def _state(request: ModelRequest[Any]) -> Mapping[str, Any]:
    return request.state
