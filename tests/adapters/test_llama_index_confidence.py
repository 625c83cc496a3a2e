"""get_confidence reads every object that can hold one, and refuses the others by name."""

from __future__ import annotations

import math
import re

import pytest
from adapters.llama_index_help import engine_of
from llama_index.core.agent.workflow import AgentOutput
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
)
from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse
from llama_index.core.tools import QueryEngineTool, ToolOutput

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index import BitCalLLM, get_confidence, with_confidence
from bitcal_integrations.testing.toy import ToyModel

QUESTION = "Capital of France?"
TOY = ToyModel({QUESTION: ("Paris", 0.8)}, default=("Paris", 0.8))
RECORD = TOY.ask(QUESTION)
METADATA = {"confidence": 0.8, "bitcal": RECORD.bitcal()}


async def none():
    """A stream without a word."""
    return
    yield


HOLDERS = [
    RECORD,
    RECORD.confidence,
    CompletionResponse(text="Paris", raw=METADATA),
    ChatResponse(message=ChatMessage("Paris"), raw=METADATA),
    Response("Paris", metadata=METADATA),
    PydanticResponse(None, metadata=METADATA),
    StreamingResponse(iter(()), metadata=METADATA),
    AgentChatResponse("Paris", metadata=METADATA),
    AgentOutput(response=ChatMessage("Paris"), current_agent_name="a", raw=METADATA),
    ToolOutput("t", "Paris", raw_input={}, raw_output=Response("Paris", metadata=METADATA)),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda h: type(h).__name__)
def test_each_holder_gives_it(holder: object) -> None:
    found = get_confidence(holder)
    assert (found.value, found.calibrated) == (0.8, True)
    assert dict(found.signals) == pytest.approx(dict(RECORD.confidence.signals))


async def test_an_async_stream_gives_it() -> None:
    assert get_confidence(AsyncStreamingResponse(none(), metadata=METADATA)).value == 0.8


def test_a_streamed_chat_gives_it() -> None:
    response = StreamingAgentChatResponse("Paris")
    assert "with_confidence(engine)" in get_confidence(response).reason
    response.metadata = METADATA  # type: ignore[attr-defined]
    assert get_confidence(response).value == 0.8


UNKNOWN = [
    (CompletionResponse(text="x"), "no confidence and no log-probabilities"),
    (ChatResponse(message=ChatMessage("x"), raw={"usage": {}}), "no confidence"),
    (ChatResponse(message=ChatMessage("x"), raw=object()), "no confidence"),
    (Response("x", metadata={"n0": {"at": 0}}), r"with_confidence\(engine\)"),
    (Response(None), r"with_confidence\(engine\)"),
    (AgentOutput(response=ChatMessage("x"), current_agent_name="a"), "no confidence"),
    (ToolOutput("t", "8", raw_input={}, raw_output=8), "the tool's output is no model's answer"),
    (CompletionResponse(text="x", raw={"bitcal": {"confidence": 3}}), "malformed"),
]


@pytest.mark.parametrize(("holder", "words"), UNKNOWN)
def test_what_says_nothing_is_unknown_with_the_reason(holder: object, words: str) -> None:
    found = get_confidence(holder)
    assert found.value is None
    assert not found.calibrated
    assert re.search(words, found.reason), found.reason


def test_another_models_logprobs_are_a_score_but_no_confidence() -> None:
    """The chosen token need not come first there."""
    half, most = math.log(0.5), math.log(0.8)
    rows = [
        [LogProb(token="Lon", logprob=most), LogProb(token="Par", logprob=half)],
        [LogProb(token="is", logprob=half)],
    ]
    found = get_confidence(CompletionResponse(text="Paris", logprobs=rows))
    assert found.value is None
    assert found.raw == pytest.approx(0.5)  # the geometric mean of the two tokens


@pytest.mark.parametrize("foreign", [None, "Paris", 0.8, {"confidence": 0.8}, [RECORD], object])
def test_a_foreign_type_is_refused(foreign: object) -> None:
    with pytest.raises(BadRequest, match=r"CompletionResponse, ChatResponse, .*ToolOutput, Record"):
        get_confidence(foreign)


def test_a_tool_round_an_engine_keeps_the_whole_response() -> None:
    tool = QueryEngineTool.from_defaults(
        with_confidence(engine_of(BitCalLLM(model=TOY), "a text")), name="t", description="d"
    )
    output = tool(QUESTION)
    assert get_confidence(output).value == 0.8
    assert "0.8" not in str(output)  # the agent's model sees the text alone
