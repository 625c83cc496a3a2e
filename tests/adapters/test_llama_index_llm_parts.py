"""The pieces of BitCalLLM: messages in, chunks out, tools both ways."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index import BitCalLLM
from bitcal_integrations.llama_index._messages import choice_of, tools_of, turns_of
from bitcal_integrations.llama_index._output import Chunks, logprobs_of, response_of
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Confidence, Generation, Record, Step, make_request


class TestMessages:
    """As plain turns."""

    def test_roles(self) -> None:
        roles = [MessageRole.DEVELOPER, MessageRole.USER, MessageRole.CHATBOT, MessageRole.MODEL]
        turns = turns_of([ChatMessage("x", role=role) for role in roles])
        assert [t["role"] for t in turns] == ["system", "user", "assistant", "assistant"]

    def test_blocks_are_joined_and_thoughts_left_out(self) -> None:
        blocks = [ThinkingBlock(content="hm"), TextBlock(text="a"), TextBlock(text="b")]
        (turn,) = turns_of([ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)])
        assert turn == {"role": "assistant", "content": "a\nb"}

    def test_tool_calls_and_results(self) -> None:
        call = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"x": 1})
        messages = [
            ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]),
            ChatMessage("2", role=MessageRole.TOOL, additional_kwargs={"tool_call_id": "c1"}),
        ]
        asked, told = turns_of(messages)
        function = {"name": "add", "arguments": '{"x": 1}'}
        assert asked["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
        assert told == {"role": "tool", "content": "2", "tool_call_id": "c1"}

    def test_calls_where_other_integrations_keep_them(self) -> None:
        call = {"id": "c1", "function": {"name": "add", "arguments": "{}"}, "type": "function"}
        message = ChatMessage(
            None, role=MessageRole.ASSISTANT, additional_kwargs={"tool_calls": [call]}
        )
        (turn,) = turns_of([message])
        assert turn["tool_calls"] == [call]
        message.additional_kwargs = {"tool_calls": ["add"]}
        with pytest.raises(BadRequest, match="'add' is no tool call"):
            turns_of([message])

    def test_what_others_leave_in_a_message_stays_out_of_the_prompt(self) -> None:
        message = ChatMessage("Hi", additional_kwargs={"confidence": 0.3})
        assert turns_of([message]) == [{"role": "user", "content": "Hi"}]

    def test_an_image_is_refused_by_name(self) -> None:
        blocks = [TextBlock(text="What is this?"), ImageBlock(url="http://localhost/x.png")]
        with pytest.raises(BadRequest, match="type 'image': this model takes texts only"):
            turns_of([ChatMessage(role=MessageRole.USER, blocks=blocks)])

    def test_what_is_no_message_is_refused(self) -> None:
        with pytest.raises(BadRequest, match="takes ChatMessage objects"):
            turns_of([{"role": "user"}])  # type: ignore[list-item]


def steps(*texts: str, reasoning: int = 0) -> tuple[Step, ...]:
    out, at = [], 0
    for index, text in enumerate(texts):
        out.append(
            Step(index, text, at, at + len(text), -0.1, 0.1, 1.0, 0.0, reasoning=index < reasoning)
        )
        at += len(text)
    return tuple(out)


def record(generation: Generation, **options: Any) -> Record:
    return Record(make_request("?", **options), generation, Confidence(0.5, True), model="m")


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "add", "arguments": {"x": 1}}</tool_call>'


def streamed(chunks: Chunks, found: Record) -> list[Any]:
    given = [chunk for step in found.generation.steps for chunk in chunks.of_step(step)]
    return [*given, *chunks.of_record(found)]


class TestOutput:
    """Records and steps as responses."""

    def test_the_chosen_token_comes_first(self) -> None:
        step = Step(
            7, "b", 0, 1, -2.0, 0.5, 1.0, 0.0, ((5, -0.2), (7, -2.0), (9, -3.0)), ("a", "b", "é")
        )
        (row,) = logprobs_of(Generation("b", "stop", (step,)))
        assert [(c.token, c.logprob) for c in row] == [("b", -2.0), ("a", -0.2), ("é", -3.0)]
        assert row[2].bytes == [0xC3, 0xA9]

    def test_thoughts_are_no_text(self) -> None:
        found = record(
            Generation(
                "<think>hm</think>Yes", "stop", steps("<think>hm", "</think>", "Yes", reasoning=2),
                content_start=17, reasoning="hm",
            )
        )  # fmt: skip
        chunks = streamed(Chunks("chat"), found)
        assert "".join(c.delta for c in chunks) == "Yes"
        assert chunks[0].additional_kwargs == {"thinking_delta": "<think>hm"}
        last = chunks[-1]
        assert last.message.content == "Yes"
        assert last.message.blocks[0].content == "hm"
        assert "".join(row[0].token for row in last.logprobs) == "Yes"
        assert [c.delta for c in streamed(Chunks("completion"), found)] == ["Yes", ""]

    def test_a_call_is_no_text_either(self) -> None:
        pieces = ("Let", " me. ", "<tool", CALL[5:20], CALL[20:])
        found = record(Generation("".join(pieces), "stop", steps(*pieces)), tools=[TOOL])
        chunks = streamed(Chunks("chat", tools=True), found)
        assert [c.delta for c in chunks] == ["Let", " me.", ""]
        last = chunks[-1]
        assert last.message.content == "Let me."
        (call,) = BitCalLLM(model=ToyModel({})).get_tool_calls_from_response(last)
        assert (call.tool_name, call.tool_kwargs) == ("add", {"x": 1})
        (said,) = last.raw["bitcal"]["tool_calls"]
        assert said["name"] == "add"
        assert said["confidence"] == pytest.approx(math.exp(-0.3))  # the three tokens of the call
        json.dumps(last.raw)

    def test_what_looked_like_a_call_is_shown_in_the_end(self) -> None:
        pieces = ("{", "no call", "}")
        found = record(Generation("".join(pieces), "stop", steps(*pieces)), tools=[TOOL])
        chunks = streamed(Chunks("chat", tools=True), found)
        assert [c.delta for c in chunks] == ["{no call}", ""]

    def test_fields_of_a_schema(self) -> None:
        raw = '{"x": 4}'
        found = record(
            Generation(raw, "stop", steps('{"x": ', "4", "}")), response_schema={"type": "object"}
        )
        fields = response_of(found, "completion").raw["bitcal"]["fields"]
        assert fields == {"x": pytest.approx(math.exp(-0.1))}


class TestTools:
    """LlamaIndex's hooks."""

    def prepared(self, **kwargs: Any) -> dict[str, Any]:
        def add(x: int, y: int = 0) -> int:
            """Add."""
            return x + y

        llm = BitCalLLM(model=ToyModel({}))
        return llm._prepare_chat_with_tools([FunctionTool.from_defaults(add)], **kwargs)

    def test_history_then_the_message(self) -> None:
        given = self.prepared(user_msg="b", chat_history=[ChatMessage("a")], temperature=0.5)
        assert [m.content for m in given["messages"]] == ["a", "b"]
        assert given["temperature"] == 0.5
        (tool,) = given["tools"]
        assert tool["function"]["name"] == "add"
        assert tool["function"]["parameters"]["required"] == ["x"]

    @pytest.mark.parametrize(
        ("kwargs", "choice"),
        [
            ({}, "auto"),
            ({"tool_required": True}, "any"),
            ({"tool_choice": "required"}, "any"),
            ({"tool_choice": "add", "tool_required": True}, "add"),
            ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "add"),
        ],
    )
    def test_the_choice(self, kwargs: Any, choice: str) -> None:
        assert self.prepared(**kwargs)["tool_choice"] == choice

    def test_no_tools_is_no_choice(self) -> None:
        given = BitCalLLM(model=ToyModel({}))._prepare_chat_with_tools([], user_msg="a")
        assert set(given) == {"messages"}
        with pytest.raises(BadRequest, match="tool_choice=3"):
            choice_of(3, False)
        assert tools_of([]) == []

    def test_one_call_where_only_one_is_wanted(self) -> None:
        llm = BitCalLLM(model=ToyModel({}))
        blocks = [ToolCallBlock(tool_name=n, tool_kwargs='{"x": 1}') for n in ("a", "b")]

        def response() -> ChatResponse:
            return ChatResponse(message=ChatMessage(role="assistant", blocks=list(blocks)))

        one = llm._validate_chat_with_tools_response(response(), [])
        both = llm._validate_chat_with_tools_response(response(), [], True)
        assert [c.tool_name for c in llm.get_tool_calls_from_response(one)] == ["a"]
        calls = llm.get_tool_calls_from_response(both)
        assert [(c.tool_name, c.tool_kwargs) for c in calls] == [("a", {"x": 1}), ("b", {"x": 1})]

    def test_no_call_is_an_error_unless_told_otherwise(self) -> None:
        llm, response = BitCalLLM(model=ToyModel({})), ChatResponse(message=ChatMessage("no"))
        with pytest.raises(ValueError, match="holds no tool call: 'no'"):
            llm.get_tool_calls_from_response(response)
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
