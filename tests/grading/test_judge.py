"""A judge's clear verdict counts; one that fails, says both or nothing is not judged."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage
from llama_index.core.llms import MockLLM

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import as_grader, judge
from bitcal_integrations.grading._judge import verdict
from bitcal_integrations.testing.toy import ToyModel


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("Verdict: right", True),
        ("Verdict: wrong", False),
        ("It could be wrong at first sight, but no.\n**Verdict: right**\n", True),
        ("Verdict: right\nOn reflection:\nVerdict: wrong", False),
        ("Right.", True),
        ("correct", True),
        ("That is incorrect.", False),
        ("Yes", True),
        ("not right", False),
        ("This isn't correct.", False),
        ("Verdict: not correct", False),
        ("<think>It is right, I guess.</think>Verdict: wrong", False),
        ("<think>It is right", None),
        ("Right or wrong, who knows", None),
        ("End with 'Verdict: right' or 'Verdict: wrong'.", None),
        ("The answer has some merit.", None),
        ("", None),
        ("copyright", None),
    ],
)
def test_verdict(reply: str, says: bool | None) -> None:
    assert verdict(reply) is says


def test_a_langchain_model() -> None:
    grade = judge(FakeListChatModel(responses=["Verdict: right", "Verdict: wrong", "Hm."]))
    assert [grade("Paris", "paris") for _ in range(3)] == [True, False, None]


def test_a_llama_index_model() -> None:
    """MockLLM repeats the prompt, which names both verdicts."""
    assert judge(MockLLM())("Paris", "Paris") is None

    class Sure(MockLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: object) -> object:
            return super().complete("Verdict: right", formatted, **kwargs)

    assert as_grader(judge(Sure()))("Paris", "Paris") is True


def test_our_own_model() -> None:
    grade = judge(ToyModel({}, default=("Verdict: wrong", 0.9)))
    assert grade("Rome", "Paris") is False


def test_it_is_shown_the_answer_and_every_gold_as_they_are() -> None:
    seen: list[str] = []

    def invoke(prompt: str) -> str:
        seen.append(prompt)
        return "Verdict: right"

    grade = judge(SimpleNamespace(invoke=invoke))
    assert grade("{gold} of {x}", ["Paris", 75]) is True
    assert "<answer>\n{gold} of {x}\n</answer>" in seen[0]
    assert "<reference>\nParis\n75\n</reference>" in seen[0]


def test_content_blocks() -> None:
    blocks = AIMessage(content=[{"type": "text", "text": "Verdict: "}, "right"])
    assert judge(SimpleNamespace(invoke=lambda prompt: blocks))("a", "a") is True


def test_a_failure_is_not_judged_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def down(prompt: str) -> str:
        raise TimeoutError("no reply")

    assert judge(SimpleNamespace(invoke=down))("Paris", "Paris") is None
    assert "TimeoutError('no reply')" in caplog.text
    assert judge(SimpleNamespace(invoke=lambda prompt: 3))("Paris", "Paris") is None
    assert judge(SimpleNamespace(invoke=down))(None, "Paris") is None


def test_what_cannot_judge_is_refused() -> None:
    with pytest.raises(BadRequest, match="none of the methods invoke, complete and ask"):
        judge(object())
    with pytest.raises(BadRequest, match=r"needs \{gold\} and \{answer\}"):
        judge(MockLLM(), prompt="Is {answer} right?")
