"""Tools and their history reach templates that know them as such, and others as plain text."""

from __future__ import annotations

import pytest
from families import tiny_tokenizer

from bitcal_integrations.decode._tool_text import HERMES, LLAMA, format_of
from bitcal_integrations.decode.prompt import encode
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import make_request

ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
HISTORY = [
    {"role": "user", "content": "1 and 2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
]
# What matters of Qwen's template: the tools, the calls with their arguments as JSON, the answers.
KNOWS = (
    "{% if tools %}{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}<tool_call>{{ c.function.arguments | tojson }}</tool_call>"
    "{% endfor %}{% endif %};{% endfor %}"
)
SAYS = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m.role }}:{{ m.content }};"
    "{% endfor %}"
)


def text_of(template: str | None, prompt: object, **options: object) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer.decode(list(encode(tokenizer, make_request(prompt, **options)).ids))


def test_a_template_that_knows_tools_gets_them_and_the_history_as_it_is() -> None:
    text = text_of(KNOWS, HISTORY, tools=[ADD])
    assert text == '[add]user:1 and 2?;assistant:<tool_call>{"a": 1}</tool_call>;tool:3;'


def test_without_tools_such_a_template_is_asked_as_before() -> None:
    assert text_of(KNOWS, "Hi") == "user:Hi;"
    assert text_of(KNOWS, "Hi", tools=[ADD], tool_choice="none") == "user:Hi;"


def test_other_templates_get_the_tools_in_the_system_turn_and_the_history_as_text() -> None:
    text = text_of(SAYS, [{"role": "system", "content": "Be brief."}, *HISTORY], tools=[ADD])
    system, user, assistant, tool, rest = text.split(";")
    assert system.startswith(
        "system:Be brief.\n\nTo use one of these tools, reply with <tool_call>"
    )
    assert system.endswith('{"name": "add", "parameters": {"type": "object"}}')
    assert user == "user:1 and 2?"
    assert assistant == ('assistant:<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    assert (tool, rest) == ("user:The tool add answered: 3", "")


def test_a_template_that_wants_turns_to_alternate_gets_them_merged() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert text_of(ALTERNATES, turns) == "user:a\n\nb;"
    told = text_of(ALTERNATES, [*HISTORY, {"role": "user", "content": "So?"}], tools=[ADD])
    assert told.startswith("user:To use one of these tools")
    assert told.endswith("user:The tool add answered: 3\n\nSo?;")
    assert told.count("user:") == 2
    with pytest.raises(BadRequest, match="refuses these messages: roles must alternate"):
        text_of(ALTERNATES, [{"role": "assistant", "content": "a"}])


def test_a_base_model_reads_them_in_its_dialogue() -> None:
    text = text_of(None, "Hi", tools=[ADD])
    assert text.startswith("system: To use one of these tools")
    assert text.endswith("user: Hi\nassistant:")
    assert "user: The tool add answered: 3" in text_of(None, HISTORY)


def test_what_a_model_once_wrote_wrongly_is_shown_as_it_was() -> None:
    call = {"id": "x", "function": {"name": "add", "arguments": "{a:"}}
    said = [{"role": "assistant", "content": "So", "tool_calls": [call]}]
    assert '"arguments": "{a:"' in text_of(SAYS, [*HISTORY[:1], *said])


def test_the_format_is_the_one_that_the_template_shows() -> None:
    llama = 'Respond in the format {"name": function name, "parameters": dictionary of arguments}'
    assert format_of(llama) is LLAMA
    assert format_of(KNOWS) is HERMES
    assert format_of(None) is HERMES
