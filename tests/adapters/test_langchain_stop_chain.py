"""Chains that end early by a certificate: run to their end, judged, certified, ended."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from lc_chain_help import Scripted, always, six_ways

from bitcal_integrations.decide import LoggedRun, StopCertificate, StopPlan, StopRule, certify_stop
from bitcal_integrations.decide.stop import replay
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.langchain import (
    AsyncConfidenceCallbackHandler,
    ConfidenceCallbackHandler,
    early_stop_chain,
)
from bitcal_integrations.types import Record

STEPS = 3
RULE = StopRule("settled", "confidence", 0.8, patience=2)
GIVE_UP = StopRule("hopeless", "confidence", 0.2)


def step(index: int) -> Scripted:
    """Right more often from step to step, and as sure as it is right."""

    def say(question: str) -> tuple[str, float]:
        draw = random.Random(f"{index}|{question}")
        sure = draw.uniform(0.1, 1.0) if index + 1 < STEPS else 0.95
        return ("right" if draw.random() < sure else f"wrong {index}"), sure

    return Scripted(say=say, model=f"step{index}")


def steps() -> list[Scripted]:
    return [step(index) for index in range(STEPS)]


def carry(answer: Any, question: Any) -> Any:
    return question


def run_of(records: Sequence[Record], name: str) -> LoggedRun:
    right = [record.text == "right" for record in records]
    return LoggedRun.of_chain(records, right[-1], right, id=name)


def questions(count: int, part: str) -> list[str]:
    return [f"{part} {i}" for i in range(count)]


def logged(names: Sequence[str]) -> dict[str, LoggedRun]:
    runs: dict[str, LoggedRun] = {}

    def log(question: Any, records: Sequence[Record]) -> None:
        runs[question] = run_of(records, question)

    early_stop_chain(steps(), carry=carry, log=log).batch(names)
    return runs


def certificate(*rules: StopRule) -> StopCertificate:
    plan = StopPlan(**{rule.level: rule for rule in rules})
    return StopCertificate(plan, 0.05, 0.1, 100, unit="chain")


def told(message: Any) -> dict[str, Any]:
    return message.response_metadata["bitcal"]["steps"]


# ---- runs to their end --------------------------------------------------------------------------


async def test_with_log_every_step_runs_in_every_way() -> None:
    heard: list[tuple[Any, tuple[str, ...]]] = []

    def log(question: Any, records: Sequence[Record]) -> None:
        heard.append((question, tuple(r.text for r in records)))

    models = [always(text, 0.99) for text in "ab"]
    chain = early_stop_chain(models, stop_above=0.5, log=log)
    answers = await six_ways(chain, "q")
    assert heard == [("q", ("a", "b"))] * 6
    assert {m.text for m in answers.values()} == {"b"}
    assert {told(m)["ended"] for m in answers.values()} == {"finished"}


def test_a_step_without_a_model_is_a_step_of_unknown_confidence() -> None:
    heard: list[Any] = []
    chain = early_stop_chain(
        [always("a", 0.9) | StrOutputParser(), str.upper],
        log=lambda _, records: heard.append(records),
    )
    assert chain.invoke("q") == "A"
    run = LoggedRun.of_chain(heard[0], True)
    assert [c.scores for c in run.checkpoints] == [{"confidence": 0.9}, {}]
    assert [c.tokens for c in run.checkpoints] == [1, 1]
    assert run.answer == "A"


def test_what_a_log_raises_is_raised() -> None:
    def log(question: Any, records: Any) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        early_stop_chain([always("a", 0.9)], log=log).invoke("q")
    with pytest.raises(BadRequest, match="log='runs' must be a callable"):
        early_stop_chain([always("a", 0.9)], log="runs")


def test_a_handler_hears_the_same_runs() -> None:
    names = questions(4, "fit")
    handler, found = ConfidenceCallbackHandler(), {}
    full = early_stop_chain(steps(), carry=carry, log=lambda question, records: None)
    for name in names:
        full.invoke(name, {"callbacks": [handler]})
        found[name] = run_of(handler.trail.records, name)
    assert found == logged(names)


# ---- from runs to a certificate to a chain -----------------------------------------------------


def test_a_certified_chain_ends_where_the_replay_says() -> None:
    found = certify_stop(list(logged(questions(400, "fit")).values()), max_loss=0.1)
    assert found.unit == "chain"
    assert found.plan is not None
    assert found.saved > 0.05
    fresh = questions(60, "test")
    answers = early_stop_chain(steps(), carry=carry, policy=found).batch(fresh)
    runs = logged(fresh)
    exits = [replay(runs[name], found.plan) for name in fresh]
    assert {e.index for e in exits} > {0}
    for answer, end in zip(answers, exits, strict=True):
        assert answer.text == end.answer
        last = STEPS - 1 if end.index is None else end.index
        assert len(told(answer)["steps"]) == last + 1
        assert told(answer)["ended"] == ("settled" if end.index is not None else "finished")


@pytest.mark.parametrize("as_json", [False, True])
async def test_patience_counts_the_steps_of_the_chain(as_json: bool) -> None:
    models = [always(str(i), value) for i, value in enumerate((0.9, 0.5, 0.85, 0.9, 0.99))]
    found = certificate(RULE)
    chain = early_stop_chain(models, policy=found.to_dict() if as_json else found)
    for answer in (await six_ways(chain, "q")).values():
        assert answer.text == "3"
        decided = told(answer)
        assert decided["ended"] == "settled"
        assert [s["confidence"] for s in decided["steps"]] == [0.9, 0.5, 0.85, 0.9]


def test_unknown_confidence_never_settles() -> None:
    models = [always("a", 0.9), always("b", None), always("c", 0.9)]
    answer = early_stop_chain(models, policy=certificate(RULE)).invoke("q")
    assert (answer.text, told(answer)["ended"]) == ("c", "finished")


def test_a_hopeless_chain_goes_to_the_fallback() -> None:
    models = [always("a", 0.6), always("b", 0.1), always("c", 0.9)]
    given_up = certificate(RULE, GIVE_UP)
    answer = early_stop_chain(models, policy=given_up, fallback=always("d", 0.5)).invoke("q")
    assert (answer.text, told(answer)["ended"]) == ("d", "hopeless")
    assert not models[2].asked
    with pytest.raises(LowConfidenceError, match=r"hopeless: confidence <= 0\.2, and there is no"):
        early_stop_chain(models, policy=given_up).invoke("q")


def test_a_certificate_for_generations_is_no_policy_of_a_chain() -> None:
    of_answers = StopCertificate(StopPlan(RULE), 0.05, 0.1, 100)
    with pytest.raises(BadRequest, match="certificate for generations is no policy"):
        early_stop_chain([always("a", 0.9)], policy=of_answers)


def test_without_a_certified_rule_all_steps_run() -> None:
    none = StopCertificate(None, 0.05, 0.1, 20, unit="chain", reason="too few runs")
    models = [always("a", 0.99), always("b", 0.99)]
    answer = early_stop_chain(models, policy=none).invoke("q")
    assert (answer.text, told(answer)["ended"]) == ("b", "finished")
    decision = early_stop_chain(models[:1], policy=none).invoke("q")
    assert told(decision)["ended"] == "finished"


# ---- a handler ends a chain of one's own ------------------------------------------------------


def test_a_handler_ends_a_chain_by_a_certificate() -> None:
    models = [always(str(i), value) for i, value in enumerate((0.9, 0.85, 0.99))]
    chain = models[0] | (lambda m: m.text) | models[1] | (lambda m: m.text) | models[2]
    handler = ConfidenceCallbackHandler(policy=certificate(RULE))
    with pytest.raises(EarlyAnswer, match=r"settled: confidence >= 0\.8 at 2 checkpoints") as ended:
        chain.invoke("q", {"callbacks": [handler]})
    assert ended.value.record is not None
    assert ended.value.record.text == "1"
    assert not models[2].asked


async def test_an_async_handler_gives_up_by_a_certificate() -> None:
    handler = AsyncConfidenceCallbackHandler(policy=certificate(GIVE_UP))
    with pytest.raises(LowConfidenceError, match=r"hopeless: confidence <= 0\.2"):
        await always("a", 0.1).ainvoke("q", {"callbacks": [handler]})
