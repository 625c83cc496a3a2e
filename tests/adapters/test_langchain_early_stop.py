"""early_stop_chain: when it ends, what it gives, and what it says it saved."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from lc_chain_help import Scripted, Watching, always, fails, six_ways

from bitcal_integrations.decide import Certificate, as_policy
from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError, UnknownName
from bitcal_integrations.langchain.early_stop import early_stop_chain
from bitcal_integrations.langchain.gate import ConfidenceGate
from bitcal_integrations.langchain.handler import ConfidenceCallbackHandler
from bitcal_integrations.langchain.router import ConfidenceRouter


def steps_of(*values: float | None, words: int = 2) -> list[Scripted]:
    """One model a value; step i answers "step i" and is that sure."""
    text = " ".join(["word"] * (words - 1))
    return [always(f"{text} {i}", value, f"step{i}") for i, value in enumerate(values)]


def asked(steps: list[Scripted]) -> list[int]:
    return [len(step.asked) for step in steps]


def told(message: Any) -> dict[str, Any]:
    return message.response_metadata["bitcal"]["steps"]


async def test_a_certain_step_ends_it_in_every_way() -> None:
    steps = steps_of(0.5, 0.97, 0.99)
    answers = await six_ways(early_stop_chain(steps, stop_above=0.95), "q")
    assert {m.text for m in answers.values()} == {"word 1"}
    assert asked(steps) == [6, 6, 0]
    route = told(answers["invoke"])
    assert (route["ended"], route["of"]) == ("settled", 3)
    assert [(s["name"], s["confidence"]) for s in route["steps"]] == [
        ("step0", 0.5), ("step1", 0.97),
    ]  # fmt: skip
    assert route["confidence"] == 0.5
    assert answers["invoke"].response_metadata["bitcal"]["confidence"] == 0.97


def test_each_step_gets_what_the_one_before_gave() -> None:
    steps: list[Any] = steps_of(0.5, 0.6)
    chain = early_stop_chain([steps[0] | StrOutputParser(), str.upper, steps[1]], stop_above=0.9)
    chain.invoke("q")
    assert steps[0].asked == ["q"]
    assert steps[1].asked == ["WORD 0"]


def test_carry_makes_what_the_next_step_is_asked() -> None:
    steps = steps_of(0.5, 0.6)
    carry = lambda answer, question: f"{question}: {answer.text}, is it?"  # noqa: E731
    early_stop_chain(steps, stop_above=0.9, carry=carry).invoke("Capital?")
    assert steps[1].asked == ["Capital?: word 0, is it?"]


def test_without_a_certain_step_all_are_run() -> None:
    steps = steps_of(0.5, None, 0.8)
    answer = early_stop_chain(steps, stop_above=0.9).invoke("q")
    assert answer.text == "word 2"
    assert told(answer)["ended"] == "finished"
    assert told(answer)["saved"] == {"steps": 0, "tokens": 0}
    assert told(answer)["confidence"] is None  # one step is unknown


def test_saved_tokens_are_the_mean_of_earlier_runs() -> None:
    sure = {"long": 0.1, "short": 0.99}
    first = Scripted(say=lambda q: ("a b c", sure[q]))
    lengths = iter((3, 5))
    second = Scripted(say=lambda q: (" ".join("x" * next(lengths)), 0.1))
    chain = early_stop_chain([first, second], stop_above=0.9)
    assert told(chain.invoke("short"))["saved"] == {"steps": 1, "tokens": None}
    chain.invoke("long")
    chain.invoke("long")
    assert told(chain.invoke("short"))["saved"] == {"steps": 1, "tokens": 4}


async def test_a_hopeless_step_gives_up_towards_the_fallback() -> None:
    steps, fallback = steps_of(0.5, 0.1, 0.9), always("from the fallback", 0.8, "strong")
    chain = early_stop_chain(steps, stop_above=0.95, stop_below=0.2, fallback=fallback)
    answers = await six_ways(chain, "q")
    assert {m.text for m in answers.values()} == {"from the fallback"}
    assert asked(steps) == [6, 6, 0]
    assert set(fallback.asked) == {"q"}  # the chain's own input
    assert told(answers["ainvoke"])["ended"] == "hopeless"
    assert told(answers["ainvoke"])["saved"]["steps"] == 1


def test_without_a_fallback_it_raises() -> None:
    chain = early_stop_chain(steps_of(0.5, 0.1), stop_below=0.2)
    with pytest.raises(
        LowConfidenceError, match=r"'step1': the confidence 0\.1 is below"
    ) as caught:
        chain.invoke("q")
    assert caught.value.record.text == "word 1"


def test_a_policy_or_a_certificate_settles() -> None:
    certificate = Certificate(
        0.6, coverage=0.5, max_error=0.1, delta=0.1, n=90, errors=1, accepted=45
    )
    for policy in (as_policy(0.6), certificate):
        steps = steps_of(0.5, 0.7, 0.9)
        answer = early_stop_chain(steps, policy=policy).invoke("q")
        assert answer.text == "word 1"
        assert asked(steps) == [1, 1, 0]


def test_text_steps_are_judged_by_the_model_in_them() -> None:
    steps = [step | StrOutputParser() for step in steps_of(0.5, 0.97, 0.99)]
    watch = Watching()
    answer = early_stop_chain(steps, stop_above=0.95).invoke("q", {"callbacks": [watch]})
    assert answer == "word 1"
    ((name, data),) = watch.events
    assert name == "bitcal.steps"
    assert data["saved"]["steps"] == 1
    assert data["bitcal"]["confidence"] == 0.97


def test_handlers_and_gates_inside_end_it() -> None:
    inner = steps_of(0.97, 0.5)
    step = inner[0] | StrOutputParser() | inner[1] | StrOutputParser()
    chain = early_stop_chain([step, always("never", 0.9)], stop_above=0.99)
    handler = ConfidenceCallbackHandler(stop_above=0.95)
    assert chain.invoke("q", {"callbacks": [handler]}) == "word 0"
    assert asked(inner) == [1, 0]

    gated = always("unsure", 0.3) | ConfidenceGate(min_confidence=0.5)
    fallback = always("fallback", 0.9)
    assert (
        early_stop_chain([gated], stop_above=0.9, fallback=fallback).invoke("q").text == "fallback"
    )
    with pytest.raises(LowConfidenceError, match="the gate refuses"):
        early_stop_chain([gated], stop_above=0.9).invoke("q")


def test_a_broken_step_is_not_hidden() -> None:
    with pytest.raises(EngineError, match="broken"):
        early_stop_chain([fails(EngineError("broken"))], stop_above=0.9, fallback=str).invoke("q")


def test_it_is_one_answer_for_a_router_around_it() -> None:
    chain = early_stop_chain(steps_of(0.5, 0.97, 0.99), stop_above=0.95) | StrOutputParser()
    router = ConfidenceRouter(chain, [lambda q: "other"], min_confidence=0.9, aggregate="minimum")
    assert router.invoke("q") == "word 1"  # 0.97, and not the least of the steps


def test_the_input_stays_as_it_is() -> None:
    question = {"q": ["x"]}
    chain = early_stop_chain([RunnableLambda(lambda d: d["q"][0]), *steps_of(0.5)], stop_above=0.9)
    chain.invoke(question)
    assert question == {"q": ["x"]}


@pytest.mark.parametrize(
    ("steps", "options", "error", "words"),
    [
        ([str], {}, BadRequest, "stop_above="),
        ([], {"stop_above": 0.9}, BadRequest, "at least one step"),
        (["x"], {"stop_above": 0.9}, BadRequest, "step 0 is 'x'"),
        ([str], {"stop_above": 9}, BadRequest, "9"),
        ([str], {"stop_above": 0.2, "stop_below": 0.5}, BadRequest, "above stop_above"),
        ([str], {"stop_above": 0.9, "names": ["a", "b"]}, BadRequest, "1 names"),
        ([str], {"stop_above": 0.9, "aggregate": "sum"}, UnknownName, "'sum'"),
    ],
)
def test_wrong_arguments_are_refused(steps, options, error, words) -> None:
    with pytest.raises(error, match=words):
        early_stop_chain(steps, **options)
