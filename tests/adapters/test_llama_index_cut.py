"""Streams that nobody reads, and calls that are not made."""

from __future__ import annotations

from typing import Any

import pytest
from adapters.scripted_llm import ScriptedLLM
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock

from bitcal_integrations.llama_index.collector import collect
from bitcal_integrations.llama_index.fallback_llm import ConfidenceFallbackLLM
from bitcal_integrations.llama_index.llm import BitCalLLM
from bitcal_integrations.llama_index.wrap import CUT, UNREAD, confidence_of
from bitcal_integrations.testing.toy import ToyModel


def ours() -> BitCalLLM:
    return BitCalLLM(model=ToyModel({"?": ("five", 0.9)}))


def fallback() -> ConfidenceFallbackLLM:
    return ConfidenceFallbackLLM([ScriptedLLM([("five", 0.9)])])


@pytest.mark.parametrize("make", [ours, fallback])
def test_a_stream_closed_unread_does_not_hold_up_the_query(make: Any) -> None:
    llm = make()
    with collect() as seen:
        stream = llm.stream_complete("?")
        assert confidence_of(seen)["bitcal"]["reason"] == UNREAD
        stream.close()
        assert confidence_of(seen)["bitcal"]["reason"] == CUT
        llm.complete("?")
        assert confidence_of(seen)["confidence"] == 0.9


@pytest.mark.parametrize("make", [ours, fallback])
async def test_nor_does_one_of_an_event_loop_or_one_that_is_dropped(make: Any) -> None:
    llm = make()
    with collect() as seen:
        stream = await llm.astream_complete("?")
        await stream.aclose()
        assert confidence_of(seen)["bitcal"]["reason"] == CUT
        stream = llm.stream_complete("?")
        del stream
        assert not seen.open
        await llm.acomplete("?")
        assert confidence_of(seen)["confidence"] == 0.9


def test_a_call_that_is_cut_is_cut_from_its_confidences_too() -> None:
    blocks = [ToolCallBlock(tool_call_id=i, tool_name="add", tool_kwargs={"a": i}) for i in "12"]
    told = [{"name": "add", "confidence": 0.9}, {"name": "add", "confidence": 0.4}]
    raw = {"confidence": 0.5, "bitcal": {"confidence": 0.5, "tool_calls": told}}
    response = ChatResponse(message=ChatMessage(role="assistant", blocks=blocks), raw=raw)
    one = ours()._validate_chat_with_tools_response(response, [])
    assert [call.tool_id for call in ours().get_tool_calls_from_response(one)] == ["1"]
    assert one.raw["bitcal"]["tool_calls"] == told[:1]
    assert raw["bitcal"]["tool_calls"] == told
