"""Steps that end early by a certificate: run to their end, judged, certified, ended."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, ScriptedLLM, response
from llama_index.core import get_response_synthesizer
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.indices.query.query_transform.base import BaseQueryTransform
from llama_index.core.query_engine import CustomQueryEngine, MultiStepQueryEngine
from llama_index.core.schema import QueryBundle
from llama_index.core.workflow import Event, StopEvent

from bitcal_integrations.decide import LoggedRun, StopCertificate, StopPlan, StopRule, certify_stop
from bitcal_integrations.decide.stop import replay
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.llama_index import (
    BitCalLLM,
    ConfidenceCallbackHandler,
    ConfidenceEventHandler,
    ConfidenceGate,
    ConfidenceMultiStepQueryEngine,
    StepTracker,
    make_stop_fn,
)
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Record

STEPS = 3
RULE = StopRule("settled", "confidence", 0.8, patience=2)
GIVE_UP = StopRule("hopeless", "confidence", 0.2)


def certificate(*rules: StopRule) -> StopCertificate:
    plan = StopPlan(**{rule.level: rule for rule in rules})
    return StopCertificate(plan, 0.05, 0.1, 100, unit="chain")


class Numbered(BaseQueryTransform):
    """Asks 'step 1 of ...', 'step 2 of ...', by counting the questions so far."""

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None: ...

    def _run(self, query_bundle: QueryBundle, metadata: dict[str, Any]) -> QueryBundle:
        number = metadata["prev_reasoning"].count("- step") + 1
        return QueryBundle(f"step {number} of {query_bundle.query_str}")


class Ask(CustomQueryEngine):
    """The llm alone."""

    llm: Any

    def custom_query(self, query_str: str) -> str:
        return str(self.llm.complete(query_str).text)


def toy(questions: Sequence[str]) -> ToyModel:
    """Right more often from step to step, and as sure as it is right."""
    table: dict[str, Any] = {}
    for question in questions:
        for index in range(1, STEPS + 1):
            draw = random.Random(f"{index}|{question}")
            sure = draw.uniform(0.1, 1.0) if index < STEPS else 0.95
            said = "right" if draw.random() < sure else f"wrong {index}"
            table[f"step {index} of {question}"] = (said, sure)
    return ToyModel(table, default=("right in all", 0.9))


def multi(questions: Sequence[str], **how: Any) -> ConfidenceMultiStepQueryEngine:
    llm = BitCalLLM(model=toy(questions))
    return ConfidenceMultiStepQueryEngine(
        Ask(llm=llm), Numbered(), num_steps=STEPS, answer_with="step", llm=llm, **how
    )


def questions(count: int, part: str) -> list[str]:
    return [f"{part} {i}" for i in range(count)]


def logged(names: Sequence[str]) -> dict[str, LoggedRun]:
    runs: dict[str, LoggedRun] = {}

    def log(question: str, records: Sequence[Record]) -> None:
        right = ["right" in record.text for record in records]
        runs[question] = LoggedRun.of_chain(records, right[-1], right, id=question)

    engine = multi(names, log=log)
    for name in names:
        engine.query(name)
    return runs


async def ask(engine: Any, way: str) -> Any:
    return engine.query("?") if way == "query" else await engine.aquery("?")


both = pytest.mark.parametrize("way", ["query", "aquery"])


def scripted(*values: float | None, **how: Any) -> tuple[ScriptedEngine, Any]:
    inner = ScriptedEngine(*[response(f"answer {i}", v) for i, v in enumerate(values, 1)])
    synthesizer = get_response_synthesizer(llm=ScriptedLLM([("in all", 0.9)]))
    how = {"num_steps": len(values), "answer_with": "step", **how}
    return inner, ConfidenceMultiStepQueryEngine(inner, Numbered(), synthesizer, **how)


# ---- the multi-step engine -------------------------------------------------------------------


@both
async def test_with_log_every_step_runs(way: str) -> None:
    heard: list[Any] = []
    inner, engine = scripted(
        0.99, 0.5, stop_above=0.9, log=lambda question, records: heard.append((question, records))
    )
    assert str(await ask(engine, way)) == "in all"
    assert len(inner.asked) == 2
    ((question, records),) = heard
    assert question == "?"
    assert [r.text for r in records] == ["answer 1", "answer 2", "in all"]


def test_the_tokens_of_every_step_are_counted() -> None:
    run = logged(["a"])["a"]
    words = [len((c.trial.answer or "").split()) for c in run.checkpoints if c.trial]
    assert [c.tokens for c in run.checkpoints] == [sum(words[: i + 1]) for i in range(len(words))]
    given = multi(["a"]).query("a")
    steps = given.metadata["bitcal"]["trail"]["steps"]
    assert [s["tokens"] for s in steps] == words


def test_a_certified_engine_ends_where_the_replay_says() -> None:
    found = certify_stop(list(logged(questions(120, "fit")).values()), max_loss=0.15)
    assert found.unit == "chain"
    assert found.plan is not None
    fresh = questions(24, "test")
    runs, engine = logged(fresh), multi(fresh, policy=found.to_dict())
    ended = set()
    for name in fresh:
        given, end = engine.query(name), replay(runs[name], found.plan)
        trail = given.metadata["bitcal"]["trail"]
        assert str(given) == end.answer
        assert trail["steps_saved"] == (0 if end.index is None else STEPS - 1 - end.index)
        ended.add(trail["steps_saved"])
    assert ended > {0}


@both
async def test_patience_counts_the_steps(way: str) -> None:
    inner, engine = scripted(0.9, 0.5, 0.85, 0.9, 0.99, policy=certificate(RULE))
    given = await ask(engine, way)
    assert str(given) == "answer 4"
    assert given.metadata["bitcal"]["trail"]["stopped"] == "settled"
    assert len(inner.asked) == 4


@both
async def test_steps_that_are_given_up(way: str) -> None:
    how: dict[str, Any] = {"policy": certificate(RULE, GIVE_UP)}
    _, engine = scripted(0.6, 0.1, 0.9, **how)
    with pytest.raises(
        LowConfidenceError, match=r"step 2 is given up: hopeless: confidence <= 0\.2"
    ):
        await ask(engine, way)
    other = ScriptedEngine(response("from the big one", 0.9))
    _, engine = scripted(0.6, 0.1, 0.9, fallback_query_engine=other, **how)
    given = await ask(engine, way)
    assert str(given) == "from the big one"
    assert given.metadata["bitcal"]["trail"]["stopped"] == "hopeless"


def test_unknown_confidence_never_settles() -> None:
    inner, engine = scripted(0.9, None, 0.9, policy=certificate(RULE))
    assert str(engine.query("?")) == "in all"
    assert len(inner.asked) == 3


def test_what_cannot_be_promised_is_refused() -> None:
    with pytest.raises(BadRequest, match="need answer_with='step'"):
        scripted(0.9, answer_with="synthesizer", policy=certificate(RULE))
    with pytest.raises(BadRequest, match="need answer_with='step'"):
        scripted(0.9, answer_with="synthesizer", log=lambda question, records: None)
    with pytest.raises(BadRequest, match="log='runs' must be a callable"):
        scripted(0.9, log="runs")
    with pytest.raises(BadRequest, match="certificate for generations is no policy"):
        scripted(0.9, policy=StopCertificate(StopPlan(RULE), 0.05, 0.1, 100))


# ---- the stock engine, workflows, handlers ---------------------------------------------------


@both
async def test_the_stock_engine_stops_by_a_certificate(way: str) -> None:
    inner = ScriptedEngine(*[response("so", value) for value in (0.9, 0.5, 0.85, 0.9, 0.99)])
    tracker = StepTracker(inner)
    synthesizer = get_response_synthesizer(llm=ScriptedLLM([("in all", 0.9)]))
    engine = MultiStepQueryEngine(
        tracker, Numbered(), synthesizer, num_steps=5,
        stop_fn=make_stop_fn(tracker, policy=certificate(RULE)),
    )  # fmt: skip
    await ask(engine, way)
    assert len(inner.asked) == 4


class Again(Event): ...


def test_a_gate_looks_at_all_steps_of_a_chain() -> None:
    gate = ConfidenceGate(certificate(RULE))
    sure, surer, unsure = (response("so", value) for value in (0.85, 0.9, 0.5))
    assert gate.decide([sure, surer]).action == "accept"
    assert gate.decide([sure, unsure]).action == "escalate"
    assert gate.decide(sure).action == "escalate"  # one step alone
    passed = gate([sure, surer], accept=StopEvent, reject=Again)
    assert isinstance(passed, StopEvent)
    assert passed.result is surer
    unknown = response("so", None)
    assert isinstance(gate([unknown, sure], accept=StopEvent, reject=Again), Again)
    with pytest.raises(BadRequest, match="the list of steps is empty"):
        gate.decide([])
    with pytest.raises(BadRequest, match=r"0\.9 has no answer, and a StopCertificate is about"):
        gate.decide([sure, 0.9])


def heard_by(handler: ConfidenceCallbackHandler, *values: float) -> ScriptedLLM:
    script = [(f"answer {i}", value) for i, value in enumerate(values, 1)]
    return ScriptedLLM(script, callback_manager=CallbackManager([handler]))


class Twice(CustomQueryEngine):
    """Asks its llm twice."""

    llm: Any

    def custom_query(self, query_str: str) -> str:
        with self.callback_manager.event(CBEventType.QUERY):
            self.llm.complete(query_str)
            return str(self.llm.complete(query_str).text)


def test_a_handler_ends_a_query_by_a_certificate() -> None:
    handler = ConfidenceCallbackHandler(policy=certificate(RULE, GIVE_UP))
    llm = heard_by(handler, 0.9, 0.85, 0.1)
    engine = Twice(llm=llm, callback_manager=llm.callback_manager)
    with pytest.raises(EarlyAnswer, match=r"settled: confidence >= 0\.8 at 2") as ended:
        engine.query("?")
    assert ended.value.record is not None
    assert ended.value.record.text == "answer 2"
    with pytest.raises(LowConfidenceError, match=r"hopeless: confidence <= 0\.2"):
        engine.query("?")


def test_a_handler_hears_the_runs_to_certify() -> None:
    handler = ConfidenceCallbackHandler()
    llm = heard_by(handler, 0.9, 0.4)
    Twice(llm=llm, callback_manager=llm.callback_manager).query("?")
    run = LoggedRun.of_chain(handler.trail.records, True)
    assert [c.scores for c in run.checkpoints] == [{"confidence": 0.9}, {"confidence": 0.4}]
    assert run.answer == "answer 2"


def test_an_event_handler_cannot_end_a_query() -> None:
    with pytest.raises(BadRequest, match=r"policy=.* cannot be kept: the dispatcher swallows"):
        ConfidenceEventHandler(policy=certificate(RULE))
