"""How prompts become ids: templates, system prompts, no double BOS, empty and wrong ones."""

from __future__ import annotations

import pytest
from families import tiny_tokenizer

from bitcal_integrations.decode.prompt import encode
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.types import make_request

CHAT = tiny_tokenizer(chat=True)
PLAIN = tiny_tokenizer()


def text_of(tokenizer, prompt, **options) -> str:
    return tokenizer.decode(list(encode(tokenizer, make_request(prompt, **options)).ids))


def with_bos(tokenizer):
    """A tokenizer that puts its first token before every text, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def test_a_string_is_one_user_message_where_there_is_a_template() -> None:
    assert text_of(CHAT, "Hi") == "<s>user: Hi</s><s>assistant: "
    assert text_of(CHAT, [{"role": "user", "content": "Hi"}]) == text_of(CHAT, "Hi")
    assert text_of(CHAT, "Hi", chat=False) == "Hi"


def test_no_double_first_token() -> None:
    tokenizer = with_bos(tiny_tokenizer(chat=True))
    assert text_of(tokenizer, "Hi").count("<s>") == 2  # both are the template's own
    assert text_of(tokenizer, "Hi", chat=False) == "<s>Hi"
    assert text_of(tokenizer, "<s>Hi", chat=False) == "<s>Hi"


def test_a_base_model_reads_messages_as_a_dialogue() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert text_of(PLAIN, messages) == "system: Be brief.\nuser: Hi\nassistant:"
    assert text_of(PLAIN, messages[1:]) == "Hi"


def test_a_template_without_a_system_role_gets_it_with_the_first_turn() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert text_of(tokenizer, messages) == "[user] Be brief.\n\nHi"
    with pytest.raises(BadRequest, match="System role not supported"):
        text_of(tokenizer, messages[:1])


def test_template_options_are_passed_on() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = (
        "{{ messages[0]['content'] }}{% if enable_thinking %}<think>{% endif %}"
    )
    on = make_request("Hi", chat_template_kwargs={"enable_thinking": True})
    assert encode(tokenizer, on).open_mark == "<think>"
    assert encode(tokenizer, make_request("Hi")).open_mark is None


def test_an_empty_prompt_starts_from_the_first_token() -> None:
    assert encode(PLAIN, make_request("")).ids == (1,)
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(BadRequest, match="prompt is empty"):
        encode(tokenizer, make_request(""))


def test_chat_without_a_template_is_an_error() -> None:
    with pytest.raises(BadRequest, match="chat=True is not allowed"):
        encode(PLAIN, make_request("Hi", chat=True))


def test_a_template_that_renders_nothing_starts_from_the_first_token() -> None:
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert encode(tokenizer, make_request("")).ids == (1,)
