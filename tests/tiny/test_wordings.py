"""The wordings: the frameworks' own templates, letter by letter, and prompts of sane length."""

import pytest
from llama_index.core.prompts import chat_prompts, default_prompts

from bitcal_integrations.tiny import wordings
from bitcal_integrations.tiny.tasks import TASKS, questions

NAMES = {"context": "context_str", "question": "query_str", "existing": "existing_answer"}


def renamed(template: str, **names: str) -> str:
    for ours, theirs in {**NAMES, **names}.items():
        template = template.replace(f"{{{ours}}}", f"{{{theirs}}}")
    return template


def test_llama_index_templates_are_the_real_ones() -> None:
    system, user = chat_prompts.CHAT_TEXT_QA_PROMPT.message_templates
    (refine,) = chat_prompts.CHAT_REFINE_PROMPT.message_templates
    assert renamed(wordings.TEXT_QA) == default_prompts.DEFAULT_TEXT_QA_PROMPT_TMPL
    assert renamed(wordings.TEXT_QA) == user.content
    assert system.content == wordings.TEXT_QA_SYSTEM
    message = {"context": "context_msg"}
    assert renamed(wordings.REFINE, **message) == default_prompts.DEFAULT_REFINE_PROMPT_TMPL
    assert renamed(wordings.REFINE_CHAT, **message) == refine.content


@pytest.mark.parametrize("name", list(wordings.OPEN))
def test_a_wording_with_a_passage_holds_question_and_passage(name: str) -> None:
    messages = wordings.opened(name, "Which river?", "The Rhine is long.", "unknown")
    text = messages[-1]["content"]
    assert "Which river?" in text
    assert "The Rhine is long." in text
    assert ("unknown" in text) == name.startswith("refine")
    assert "{" not in text


@pytest.mark.parametrize("name", list(wordings.CLOSED))
def test_a_wording_without_a_passage_holds_the_question(name: str) -> None:
    messages = wordings.closed(name, "Which river?")
    assert "Which river?" in messages[-1]["content"]
    assert (messages[0]["role"] == "system") == name.startswith("chat")


@pytest.mark.parametrize("task", TASKS)
def test_every_wording_is_asked_and_no_prompt_is_long(task: str) -> None:
    drawn = questions(task, "test", 800)
    expected = wordings.OPEN if task == "reading" else wordings.CLOSED
    assert {q.wording.removesuffix("+check") for q in drawn} == set(expected)
    assert max(len(q.prompt) for q in drawn) < 2500
    assert all(q.prompt.endswith(q.messages[-1]["content"]) for q in drawn)
