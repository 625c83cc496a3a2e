"""One model step of an agent: who judges it, and what a person's word makes of it.

A step that calls tools is judged by its calls. Knows messages and policies, no agent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.decide import Policy, as_policy
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain._calls import StepRecord
from bitcal_integrations.langchain._review import Review
from bitcal_integrations.langchain._run import with_bitcal
from bitcal_integrations.types import Decision, Record

ACCEPTED = Decision("accept", "accepted by a person").to_dict()
REJECTED = "The answer was rejected in review."


def accepted_by_person(message: AIMessage) -> bool:
    """Whether a person has accepted this step in a review."""
    return (message.response_metadata.get("bitcal") or {}).get("decision") == ACCEPTED


class StepPolicy:
    """Judges words by `policy` and each tool call by the tool's own, where it has one.

    A step is accepted when all its calls are.
    """

    def __init__(self, policy: Policy, tools: Mapping[str, Policy]) -> None:
        self.policy, self.tools = policy, tools
        self.on_unknown = getattr(policy, "on_unknown", None)
        self.below = getattr(policy, "below", "escalate")

    def decide(self, record: Record) -> Decision:
        calls = record.calls if isinstance(record, StepRecord) else ()
        decisions = [self.decide_call(record, name, value) for name, value in calls]
        refused = [d for d in decisions if d.action != "accept"]
        return (refused or decisions or [self.policy.decide(record)])[0]

    def decide_call(self, record: Record, name: str, value: float | None) -> Decision:
        """About one tool call of this confidence."""
        reason = "" if value is not None else "nothing says how sure the model was of it"
        confidence = replace(record.confidence, value=value, reason=reason)
        decision = self.tools.get(name, self.policy).decide(replace(record, confidence=confidence))
        return Decision(decision.action, f"call of {name!r}: {decision.reason}")


def tool_policies(thresholds: Any, on_unknown: Any) -> dict[str, Policy]:
    """The policy of each tool that asks for one of its own."""
    if thresholds is None:
        return {}
    if not isinstance(thresholds, Mapping) or not all(isinstance(k, str) for k in thresholds):
        raise BadRequest(
            f"tool_min_confidence={thresholds!r:.80} is not allowed: a dict from a tool's name to "
            "its threshold"
        )
    return {name: as_policy(value, on_unknown) for name, value in thresholds.items()}


def last_answer(messages: Sequence[BaseMessage]) -> AIMessage | None:
    """The model's latest message."""
    return next((m for m in reversed(messages) if isinstance(m, AIMessage)), None)


def asking_for(messages: Sequence[BaseMessage], call_id: Any) -> tuple[AIMessage, int] | None:
    """The message that makes this tool call, and which of its calls it is."""
    for message in reversed(messages):
        for at, call in enumerate(message.tool_calls if isinstance(message, AIMessage) else ()):
            if call["id"] == call_id and isinstance(message, AIMessage):
                return message, at
    return None


def applied(review: Review, message: AIMessage, record: Record) -> dict[str, Any]:
    """The state's update after a review: the message with this id is replaced."""
    if review.action == "accept":
        return {"messages": [with_bitcal(message, record, {"decision": ACCEPTED})]}
    text, by = review.text, Decision("accept", "written by a person")
    if review.action == "reject":
        text, by = text or REJECTED, Decision("abstain", "rejected by a person")
    answer = written(unknown_record(text, reason=by.reason), by)
    return {"messages": [answer.model_copy(update={"id": message.id})], "jump_to": "end"}


def written(record: Record, decision: Decision, **more: Any) -> AIMessage:
    """A message that no model wrote."""
    bitcal = {**record.bitcal(), "decision": decision.to_dict(), **more}
    return AIMessage(record.text, response_metadata={"bitcal": bitcal})
