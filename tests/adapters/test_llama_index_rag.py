"""RAGConfidence: its features, its fit on labelled answers, and what stays unknown."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from adapters.scripted_llm import ScriptedEngine, bitcal, response
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import NodeWithScore, TextNode

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.llama_index._grounded import prompt_of, yes_share
from bitcal_integrations.llama_index.engine import ConfidenceFallbackQueryEngine
from bitcal_integrations.llama_index.rag import RAGConfidence
from bitcal_integrations.metrics import brier
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Generation, Record, Step, make_request


def node(text: str, score: float | None) -> NodeWithScore:
    return NodeWithScore(node=TextNode(text=text), score=score)


def judge(**said: tuple[str, float]) -> ToyModel:
    """A toy that says yes or no about answers named here, for the context 'a passage'."""
    table = {prompt_of("?", a, ["a passage"]): entry for a, entry in said.items()}
    return ToyModel(table, default=("maybe", 0.5))


def test_features_of_a_response() -> None:
    given = response("four", 0.8, [node("b", 0.3), node("a passage", 0.9), node("c", None)])
    assert RAGConfidence().features("?", given) == {
        "answer": 0.8,
        "answer_raw": 0.8,
        "top_score": 0.9,
        "mean_score": pytest.approx(0.6),
        "score_gap": pytest.approx(0.6),
    }


async def test_groundedness_is_the_models_own_yes_or_no() -> None:
    rag = RAGConfidence(judge(four=("yes", 0.9), five=("No.", 0.8)))
    passages = [node("a passage", 0.9)]
    assert rag.features("?", response("four", 0.8, passages))["grounded"] == pytest.approx(0.9)
    assert rag.features("?", response("five", 0.8, passages))["grounded"] == pytest.approx(0.2)
    assert "grounded" not in rag.features("?", response("six", 0.8, passages))  # it said: maybe
    assert "grounded" not in rag.features("?", response("four", 0.8))  # nothing was retrieved
    found = await rag.afeatures("?", response("four", 0.8, passages))
    assert found == rag.features("?", response("four", 0.8, passages))


def said(top: dict[str, float]) -> Record:
    pairs = tuple((i, math.log(p)) for i, p in enumerate(top.values()))
    step = Step(0, next(iter(top)), 0, 1, pairs[0][1], 0.0, 0.0, 0.0, pairs, tuple(top))
    return Record(make_request("?"), Generation("x", "length", (step,)), None)  # type: ignore[arg-type]


def test_all_ways_to_write_a_word_count() -> None:
    assert yes_share(said({"Yes": 0.4, " yes": 0.2, "NO": 0.2, "a": 0.1})) == pytest.approx(0.75)
    assert yes_share(said({"Yes": 0.6, "a": 0.2})) == pytest.approx(0.75)  # no: at most 0.2
    assert math.isnan(yes_share(said({"a": 0.6, "b": 0.2})))


def test_a_question_about_an_answer_is_no_answer_of_the_app() -> None:
    model = judge(four=("yes", 0.9))
    seen: list[Any] = []
    model.add_sink(seen.append)
    RAGConfidence(model).features("?", response("four", 0.8, [node("a passage", 0.9)]))
    assert seen == []


def test_it_is_unknown_until_it_is_fitted() -> None:
    confidence = RAGConfidence().predict("?", response("four", 0.8))
    assert (confidence.value, confidence.calibrated, confidence.raw) == (None, False, 0.8)
    assert "not been fitted" in confidence.reason


def world(n: int, seed: int) -> tuple[list[tuple[str, Response]], list[int]]:
    """Answers that are right if the model knew, or retrieval was good: neither alone tells."""
    rng = random.Random(seed)
    pairs, correct = [], []
    for _ in range(n):
        value, score = rng.random(), rng.random() * 20
        pairs.append(("?", response("so", value, [node("a", score), node("b", score / 2)])))
        odds = 3 * (value - 0.5) + 0.4 * (score - 10)
        correct.append(int(rng.random() < 1 / (1 + math.exp(-odds))))
    return pairs, correct


def test_fitted_it_is_better_than_the_answers_confidence_alone() -> None:
    rag = RAGConfidence().fit(*world(600, 1))
    assert rag.names[0] == "answer"
    pairs, correct = world(600, 2)
    got = [rag.predict(question, answer) for question, answer in pairs]
    alone = [answer.metadata["confidence"] for _, answer in pairs]
    assert all(c.calibrated and c.low <= c.value <= c.high for c in got)
    fitted = brier([c.value for c in got], correct)
    assert fitted < brier(alone, correct) - 0.03
    share = sum(c.value for c in got) / len(got)
    assert share == pytest.approx(sum(correct) / len(correct), abs=0.06)


def test_it_goes_by_the_raw_score_where_no_confidence_is_known() -> None:
    pairs, correct = world(80, 3)
    for _, answer in pairs:
        raw = answer.metadata["confidence"]
        answer.metadata["bitcal"] = {**bitcal(None), "raw": raw}
    rag = RAGConfidence().fit(pairs, correct)
    assert rag.names[0] == "answer_raw"
    assert rag.predict(*pairs[0]).value is not None


def test_what_is_missing_is_unknown() -> None:
    rag = RAGConfidence().fit(*world(80, 4))
    confidence = rag.predict("?", response("so", 0.8))
    assert confidence.value is None
    assert "not measured: top_score" in confidence.reason
    assert rag.predict("?", Response("Empty Response")).value is None


def test_it_is_saved_as_json() -> None:
    rag = RAGConfidence().fit(*world(80, 5))
    again = RAGConfidence.from_dict(json.loads(json.dumps(rag.to_dict())))
    pair = world(1, 6)[0][0]
    assert again.predict(*pair) == rag.predict(*pair)
    assert RAGConfidence.from_dict(RAGConfidence().to_dict()).names == ()
    with pytest.raises(CalibrationError, match="kind 'threshold'"):
        RAGConfidence.from_dict({"kind": "threshold", "version": 1})


async def test_it_routes() -> None:
    rag = RAGConfidence().fit(*world(300, 7))
    nodes = [node("a", 0.5), node("b", 0.2)]
    first = ScriptedEngine(response("unsure", 0.99, nodes))
    second = ScriptedEngine(response("sure", 0.99, [node("a", 20.0), node("b", 10.0)]))
    engine = ConfidenceFallbackQueryEngine(first, [second], scorer=rag, min_confidence=0.6)
    for given in (engine.query("?"), await engine.aquery("?")):
        assert str(given) == "sure"
        assert given.metadata["bitcal"]["task"] == "rag"
        assert given.metadata["bitcal"]["calibrated"]
        assert given.metadata["confidence"] > 0.6


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(BadRequest, match="cannot be asked"):
        RAGConfidence("model")
    with pytest.raises(BadRequest, match="pair"):
        RAGConfidence().fit(["so"], [1])
    with pytest.raises(CalibrationError, match="no example"):
        RAGConfidence().fit([], [])
    with pytest.raises(BadRequest, match="must be some of"):
        RAGConfidence().fit(*world(10, 1), names=["luck"])
    with pytest.raises(CalibrationError, match="could be measured"):
        RAGConfidence().fit([("?", Response("so"))] * 4, [1, 0, 1, 0])
    rag = RAGConfidence(judge(so=("yes", 0.9)))
    pairs = [("?", response("so", 0.5, [node("a passage", 0.5)]))] * 10
    fitted = rag.fit(pairs, [1, 0] * 5, names=["grounded"], method="constant")
    with pytest.raises(BadRequest, match="needs model="):
        RAGConfidence.from_dict(fitted.to_dict())


@pytest.fixture(scope="module")
def tiny() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint8") as model:
        yield model


async def test_a_real_model_says_yes_or_no(tiny: CalibratedModel) -> None:
    """It was never taught to, so only that there is a number between 0 and 1 can be told."""
    rag = RAGConfidence(tiny)
    given = response("Paris", 0.9, [node("The capital of France is Paris.", 1.0)])
    grounded = rag.features("What is the capital of France?", given).get("grounded")
    assert grounded is None or 0 < grounded < 1
    assert await rag.afeatures("What is the capital of France?", given) == pytest.approx(
        rag.features("What is the capital of France?", given), abs=0.05
    )


def test_a_context_that_is_too_long_is_not_measured(tiny: CalibratedModel) -> None:
    given = response("Paris", 0.9, [node("word " * 5000, 1.0)])
    assert "grounded" not in RAGConfidence(tiny).features("?", given)
