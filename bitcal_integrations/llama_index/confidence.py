"""get_confidence: the confidence of an answer, whichever object of LlamaIndex holds it.

It reads what BitCalLLM, with_confidence and the engines wrote; it measures nothing and asks no
model. What carries none is unknown, with the reason and what to do about it.
"""

from __future__ import annotations

from typing import Any

from llama_index.core.agent.workflow import AgentOutput, AgentStream
from llama_index.core.base.llms.types import ChatResponse, CompletionResponse
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse
from llama_index.core.tools import ToolOutput

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index._records import bitcal_of, record_of
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Confidence, Record

ANSWERS = (CompletionResponse, ChatResponse)
RESPONSES = (
    Response,
    PydanticResponse,
    StreamingResponse,
    AsyncStreamingResponse,
    AgentChatResponse,
    StreamingAgentChatResponse,
)
AGENTS = (AgentOutput, AgentStream, ToolOutput)
KNOWN = (*ANSWERS, *RESPONSES, *AGENTS, Record)

_UNWRAPPED = (
    "the engine's response carries no confidence: ask with_confidence(engine), "
    "and let a BitCalLLM answer"
)
_NO_ANSWER = "the tool's output is no model's answer"


def get_confidence(x: Any, *, profile: Profile | None = None) -> Confidence:
    """The confidence of a response of an LLM, a query or chat engine, an agent or a tool.

    A stream's is unknown until it has been read to its end. Another model's answer is unknown,
    with `raw` where it came with log-probabilities; `profile`, measured for that model, makes a
    calibrated confidence of them.

    >>> get_confidence(CompletionResponse(text="Paris")).reason
    'the answer carries no confidence and no log-probabilities'
    """
    if isinstance(x, Confidence):
        return x
    if not isinstance(x, KNOWN):
        raise BadRequest(
            f"{x!r:.80} of type {type(x).__name__} carries no confidence: pass one of "
            f"{', '.join(kind.__name__ for kind in KNOWN)}"
        )
    if isinstance(x, ToolOutput) and not isinstance(x.raw_output, KNOWN):
        return Confidence(reason=_NO_ANSWER)
    if isinstance(x, ToolOutput):
        return get_confidence(x.raw_output, profile=profile)
    if isinstance(x, RESPONSES) and bitcal_of(x) is None:
        return Confidence(reason=_UNWRAPPED)
    return record_of(x, profile=profile).confidence
