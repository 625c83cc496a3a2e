"""Tool calls and structured output: every shape LangChain takes, a confidence for each part."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pytest
from adapters.scripted import scripted_model
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.langchain import ChatBitCal, ConfidenceRouter

ADD = '<tool_call>{"name":"add","arguments":{"a":1,"b":2}}</tool_call>'
SAID = '{"name":"Ann","age":31,"tags":["tall","kind"]}'
SCRIPT = {
    "1 + 2": ADD,
    "think first": f"Let me see. {ADD}",
    "twice": f"{ADD}\n{ADD}",
    "Describe": SAID,
    "3": "The sum is 3.",
}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Person(BaseModel):
    """A person."""

    name: str = Field(description="the first name")
    age: int
    tags: list[str]


ANN = Person(name="Ann", age=31, tags=["tall", "kind"])


@pytest.fixture(scope="module")
def model() -> Iterator[CalibratedModel]:
    with scripted_model(SCRIPT, max_new_tokens=160) as model:
        yield model


@pytest.fixture(scope="module")
def chat(model: CalibratedModel) -> ChatBitCal:
    return ChatBitCal(model=model)


def total(chunks: Any) -> Any:
    return list(accumulate(chunks))[-1]


def test_a_call_and_its_confidence(chat: ChatBitCal) -> None:
    message = chat.bind_tools([add]).invoke("What is 1 + 2?")
    (call,) = message.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 1, "b": 2})
    assert message.content == ""
    (told,) = message.response_metadata["bitcal"]["tool_calls"]
    assert told["name"] == "add"
    assert 0.9 < told["confidence"] < 1
    assert set(told["fields"]) == {"a", "b"}
    streamed = total(chat.bind_tools([add]).stream("What is 1 + 2?"))
    assert streamed.tool_calls == message.tool_calls
    ids = [m.response_metadata.pop("record_id") for m in (streamed, message)]
    assert ids[0] != ids[1]
    assert streamed.response_metadata == message.response_metadata


def test_text_before_a_call_is_shown_and_the_call_is_not(chat: ChatBitCal) -> None:
    bound = chat.bind_tools([add])
    message = bound.invoke("think first")
    assert message.content == "Let me see."
    assert len(message.tool_calls) == 1
    chunks = list(bound.stream("think first"))
    assert total(chunks).content == "Let me see."
    assert total(chunks).tool_calls == message.tool_calls
    assert len([chunk for chunk in chunks if chunk.content]) > 3
    assert not any("<" in chunk.content for chunk in chunks)


def test_an_answer_without_a_call_streams(chat: ChatBitCal) -> None:
    history = [
        HumanMessage("What is one plus two?"),
        AIMessage("", tool_calls=[{"name": "add", "args": {"a": 1, "b": 2}, "id": "c1"}]),
        ToolMessage("3", tool_call_id="c1"),
    ]
    chunks = list(chat.bind_tools([add]).stream(history))
    assert total(chunks).content == "The sum is 3."
    assert total(chunks).tool_calls == []
    assert "tool_calls" not in total(chunks).response_metadata["bitcal"]
    assert len(chunks) > 5


def test_none_forbids_and_one_call_is_one(chat: ChatBitCal) -> None:
    forbidden = chat.bind_tools([add], tool_choice="none").invoke("think first")
    assert forbidden.tool_calls == []
    assert len(chat.bind_tools([add]).invoke("twice").tool_calls) == 2
    single = chat.bind_tools([add], parallel_tool_calls=False)
    assert len(single.invoke("twice").tool_calls) == 1
    assert len(total(single.stream("twice")).tool_calls) == 1


@pytest.mark.parametrize(
    ("choice", "meant"),
    [
        (None, None),
        ("auto", "auto"),
        ("any", "any"),
        ("required", "any"),
        (True, "any"),
        (False, None),
        ("none", "none"),
        ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "add"}, "add"),
    ],
)
def test_the_spellings_of_tool_choice(chat: ChatBitCal, choice: Any, meant: Any) -> None:
    assert chat.bind_tools([add], tool_choice=choice).kwargs.get("tool_choice") == meant


def test_a_tool_that_is_not_there_is_refused(chat: ChatBitCal) -> None:
    with pytest.raises(BadRequest, match=r"tool_choice='sub' is not allowed: .*\(add\)"):
        chat.bind_tools([add], tool_choice="sub")


def test_a_weak_model_makes_valid_calls() -> None:
    with load("bitcal-tiny", weights="qint8") as tiny:
        chat = ChatBitCal(model=tiny, max_tokens=64)
        message = chat.bind_tools([add], tool_choice="any").invoke("Tom has 3 apples and 4 pears.")
        person = chat.with_structured_output(Person).invoke("Who is Ann?")
    assert add.invoke(message.tool_calls[0]["args"]) is not None
    assert isinstance(person, Person)


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_structured_output(chat: ChatBitCal, method: str) -> None:
    if method == "function_calling":
        said = f'<tool_call>{{"name":"Person","arguments":{SAID}}}</tool_call>'
        chat = ChatBitCal(model=scripted_model({"Describe": said}, max_new_tokens=160))
    structured = chat.with_structured_output(Person, method=method, include_raw=True)
    out = structured.invoke("Describe Ann.")
    assert out["parsed"] == ANN
    assert out["parsing_error"] is None
    bitcal = out["raw"].response_metadata["bitcal"]
    fields = bitcal["fields"] if method != "function_calling" else bitcal["tool_calls"][0]["fields"]
    assert set(fields) == {"name", "age", "tags[0]", "tags[1]"}
    assert all(0.9 < confidence < 1 for confidence in fields.values())
    assert chat.with_structured_output(Person, method=method).invoke("Describe Ann.") == ANN


def test_a_schema_without_a_title_may_be_called() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    said = '<tool_call>{"name":"answer","arguments":{"n":3}}</tool_call>'
    with scripted_model({"How many?": said}, max_new_tokens=60) as model:
        chat = ChatBitCal(model=model)
        structured = chat.with_structured_output(schema, method="function_calling")
        assert structured.invoke("How many?") == {"n": 3}
    with pytest.raises(BadRequest, match=r"'array'.*is not allowed with function_calling"):
        chat.with_structured_output({"type": "array"}, method="function_calling")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [{"a": 1}, 3])
def test_what_is_no_schema_is_refused(chat: ChatBitCal, schema: Any, method: str) -> None:
    with pytest.raises(BadRequest, match="is not allowed: it must be a function"):
        chat.with_structured_output(schema, method=method)


def test_a_tool_needs_a_name(chat: ChatBitCal) -> None:
    with pytest.raises(BadRequest, match=r"'type': 'object'.* a JSON schema with a 'title'"):
        chat.bind_tools([{"type": "object", "properties": {}}])


def test_json_mode_without_a_schema(chat: ChatBitCal) -> None:
    answer = chat.with_structured_output(None, method="json_mode").invoke("Describe Ann.")
    assert answer["name"] == "Ann"


def test_a_response_format_as_agents_pass_it(chat: ChatBitCal) -> None:
    schema = {"name": "Person", "schema": Person.model_json_schema()}
    form = {"type": "json_schema", "json_schema": schema}
    text = chat.bind_tools([add], response_format=form).invoke("Describe Ann.").text
    assert Person.model_validate_json(text) == ANN
    with pytest.raises(BadRequest, match="response_format='json' is not allowed"):
        chat.invoke("Describe Ann.", response_format="json")


def test_an_agent_calls_a_tool_and_answers_as_an_object() -> None:
    agents = pytest.importorskip("langchain.agents")
    script = {"Who is as old as 30 + 1?": ADD.replace('"a":1,"b":2', '"a":30,"b":1'), "31": SAID}
    with scripted_model(script, max_new_tokens=160) as model:
        agent = agents.create_agent(ChatBitCal(model=model), tools=[add], response_format=Person)
        state = agent.invoke({"messages": [("human", "Who is as old as 30 + 1?")]})
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["structured_response"] == ANN


def test_a_wrong_method_is_refused(chat: ChatBitCal) -> None:
    with pytest.raises(BadRequest, match="method='xml' is not allowed: use json_schema"):
        chat.with_structured_output(Person, method="xml")
    with pytest.raises(BadRequest, match="schema=None is not allowed with json_schema"):
        chat.with_structured_output(None)


def test_a_bound_model_keeps_its_tools_behind_a_router(chat: ChatBitCal) -> None:
    for bound in (chat.bind_tools([add]), chat.bind_tools([add]).with_config(tags=["draft"])):
        router = bound.with_confidence_fallback([chat], min_confidence=0.7)
        assert isinstance(router, ConfidenceRouter)
        assert router.primary is bound
    tagged = chat.with_config(tags=["draft"])
    assert tagged.with_confidence_fallback([chat], policy=0.5).primary is tagged
    assert chat.with_confidence_fallback([chat]).min_confidence == 0.7
