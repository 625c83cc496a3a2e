"""ConfidenceRouter around ChatBitCal and others: its short form, a batch, log-probabilities."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from lc_chain_help import always, six_ways

from bitcal_integrations import load
from bitcal_integrations.langchain import BitCalLLM, ChatBitCal, ConfidenceRouter
from bitcal_integrations.testing.toy import ToyModel

QUESTIONS = [f"Question {i}?" for i in range(50)]
LOW = [q for i, q in enumerate(QUESTIONS) if i % 7 in (2, 5)]


@pytest.fixture
def toys() -> tuple[ToyModel, ToyModel, Counter[str]]:
    """A small model that is unsure of some questions, a big one, and what the big one is asked."""
    small = ToyModel({q: ("small", 0.2 if q in LOW else 0.9) for q in QUESTIONS}, name="small")
    big = ToyModel(dict.fromkeys(QUESTIONS, ("big", 0.95)), name="big")
    asked: Counter[str] = Counter()
    big.add_sink(lambda record: asked.update([str(record.request.prompt[-1]["content"])]))
    return small, big, asked


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_mixed_batch_of_fifty(toys, asynchronous) -> None:
    small, big, asked = toys
    chain = ChatBitCal(model=small).with_confidence_fallback(
        [ChatBitCal(model=big)], min_confidence=0.7
    )
    answers = await chain.abatch(QUESTIONS) if asynchronous else chain.batch(QUESTIONS)
    assert asked == Counter(LOW)
    assert [m.text for m in answers] == ["big" if q in LOW else "small" for q in QUESTIONS]
    models = [m.response_metadata["bitcal"]["route"]["attempts"][-1]["model"] for m in answers]
    assert models == ["big" if q in LOW else "small" for q in QUESTIONS]


async def test_every_way_gives_the_same(toys) -> None:
    small, big, _ = toys
    chain = ChatBitCal(model=small).with_confidence_fallback([ChatBitCal(model=big)])
    for question, text in ((LOW[0], "big"), (QUESTIONS[0], "small")):
        answers = await six_ways(chain, question)
        assert {m.text for m in answers.values()} == {text}
        told = [m.response_metadata["bitcal"] for m in answers.values()]
        assert all(t == told[0] for t in told)


def test_completions_are_heard_though_they_are_only_text(toys) -> None:
    small, big, _ = toys
    chain = ConfidenceRouter(
        BitCalLLM(model=small), [ChatBitCal(model=big) | StrOutputParser()], min_confidence=0.7
    )
    assert chain.invoke(LOW[0]) == "big"
    assert chain.batch(QUESTIONS) == ["big" if q in LOW else "small" for q in QUESTIONS]


# ---- other models, scored by their log-probabilities -----------------------------------------


@pytest.fixture(scope="module")
def profile() -> Iterator[Any]:
    """The built-in model's profile, taken for that of a model behind a server."""
    with load("bitcal-tiny", weights="qint8", dtype="float32") as model:
        measured = model.profile
        assert measured is not None
        yield dataclasses.replace(measured, parts={"engine": "remote"})


def hosted(p: float) -> Any:
    """Another model's answer of one token, as sure as `p`, in OpenAI's shape."""
    rest = math.log(max(1 - p, 1e-9))
    top = [{"token": "Paris", "logprob": math.log(p)}, {"token": "Lyon", "logprob": rest}]
    content = [{"token": "Paris", "logprob": math.log(p), "top_logprobs": top}]
    metadata = {"logprobs": {"content": content}, "model_name": ""}
    return lambda question: AIMessage("Paris", response_metadata=metadata)


def test_another_model_is_scored_by_its_profile(profile) -> None:
    fallback = always("from the fallback", 0.9)

    def answer(p: float) -> AIMessage:
        options: Any = {"min_confidence": 0.5, "names": ["hosted", "local"]}
        router = ConfidenceRouter(
            hosted(p), [fallback], scored_by={"hosted": profile}, task="facts", **options
        )
        return router.invoke("Capital of France?")

    sure = answer(0.999)
    assert sure.text == "Paris"
    assert sure.response_metadata["bitcal"]["calibrated"] is True
    assert answer(0.2).text == "from the fallback"


def test_without_a_profile_it_is_unknown(profile) -> None:
    router = ConfidenceRouter(hosted(0.999), [always("from the fallback", 0.9)], min_confidence=0.5)
    answer = router.invoke("Capital of France?")
    assert answer.text == "from the fallback"
    attempt = answer.response_metadata["bitcal"]["route"]["attempts"][0]
    assert attempt["confidence"] is None
    assert attempt["decision"]["reason"].startswith("unknown")
