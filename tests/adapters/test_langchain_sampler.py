"""AdaptiveSampler: how many samples it draws, whose message it gives, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.prompts import ChatPromptTemplate
from lc_chain_help import Scripted, Watching, always, six_ways

from bitcal_integrations import load
from bitcal_integrations.decide.sampling import VoteTally
from bitcal_integrations.errors import BadRequest, UnknownName
from bitcal_integrations.langchain.chat import ChatBitCal
from bitcal_integrations.langchain.sampler import AdaptiveSampler


def says(*texts: str) -> Scripted:
    """A model that gives these answers in turn, and then begins again."""
    model = Scripted(say=lambda _: (texts[(len(model.asked) - 1) % len(texts)], 0.5))
    model.temperature = 0.7
    return model


def votes(message: Any) -> dict[str, Any]:
    return message.response_metadata["bitcal"]["votes"]


def test_it_stops_once_the_vote_is_clear() -> None:
    model = says("Paris")
    answer = AdaptiveSampler(model, max_samples=8, stop_at=0.95).invoke("q")
    tally = VoteTally(8, 0.95)
    while not tally.done:
        tally.add("paris")
    assert len(model.asked) == tally.n == 4
    assert answer.text == "Paris"
    assert votes(answer) == {
        "samples": 4, "counts": {"paris": 4.0}, "leader": "paris", "posterior": 0.96875,
        "tokens": 4,
    }  # fmt: skip
    assert answer.response_metadata["bitcal"]["confidence"] == 0.5  # the vote is no confidence


def test_it_draws_at_most_max_samples() -> None:
    model = says("a x", "b y")
    answer = AdaptiveSampler(model, max_samples=5).invoke("q")
    assert len(model.asked) == 5
    assert votes(answer)["counts"] == {"x": 3.0, "b y": 2.0}
    assert answer.text == "a x"
    assert votes(AdaptiveSampler(says("a x"), max_samples=1).invoke("q"))["samples"] == 1


def test_seeds_differ_and_the_temperature_is_passed_on() -> None:
    model = always("x", 0.5)
    model.temperature = 0.0
    AdaptiveSampler(model, 3, temperature=0.7, seed=10).invoke("q", stop=["\n"])
    assert [o["seed"] for o in model.options] == [10, 11, 12]
    assert {o["temperature"] for o in model.options} == {0.7}


def test_votes_are_for_the_parsed_answer() -> None:
    model = says("so it is 42", "I count 7", "that makes 42.0")
    answer = AdaptiveSampler(model, 3, parser="last_number").invoke("q")
    assert votes(answer)["counts"] == {"42": 2.0, "7": 1.0}
    assert answer.text == "so it is 42"
    silent = AdaptiveSampler(says("none", "nothing"), 2, parser="last_number").invoke("q")
    assert votes(silent)["leader"] is None
    assert votes(silent)["posterior"] is None


async def test_every_way_behind_a_prompt() -> None:
    chain = ChatPromptTemplate.from_template("{q}") | AdaptiveSampler(says("Paris"))
    answers = await six_ways(chain, {"q": "Capital?"})
    assert {(m.text, votes(m)["samples"]) for m in answers.values()} == {("Paris", 4)}


def test_the_event() -> None:
    watch = Watching()
    AdaptiveSampler(says("Paris")).invoke("q", {"callbacks": [watch]})
    ((name, data),) = watch.events
    assert (name, data["samples"], data["text"]) == ("bitcal.votes", 4, "Paris")


def test_greedy_samples_are_refused() -> None:
    greedy = always("x", 0.5)
    greedy.temperature = 0.0
    for chat, options in (
        (greedy, {}), (greedy, {"temperature": 0}), (says("x").bind(temperature=0), {}),
        (ChatBitCal(model="bitcal-tiny"), {}),
    ):  # fmt: skip
        with pytest.raises(BadRequest, match="temperature=0"):
            AdaptiveSampler(chat, **options)
    with pytest.raises(BadRequest, match="temperature=0"):
        AdaptiveSampler(says("x")).invoke("q", temperature=0)
    hosted = always("x", 0.5)
    hosted.temperature = None
    assert AdaptiveSampler(hosted).invoke("q").text == "x"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"max_samples": 0}, BadRequest, "max_samples=0"),
        ({"stop_at": 2}, BadRequest, "stop_at=2"),
        ({"seed": -1}, BadRequest, "seed=-1"),
        ({"parser": "poetry"}, UnknownName, "'poetry'"),
    ],
)
def test_wrong_arguments_are_refused(options, error, words) -> None:
    with pytest.raises(error, match=words):
        AdaptiveSampler(says("x"), **options)


def test_a_chain_is_refused() -> None:
    with pytest.raises(BadRequest, match="no chat model"):
        AdaptiveSampler(ChatPromptTemplate.from_template("{q}") | says("x"))


def test_the_built_in_model_votes_the_same_with_the_same_seed() -> None:
    with load("bitcal-tiny", weights="qint8", profile=None, max_batch=1) as model:
        chat = ChatBitCal(model=model, max_tokens=4)
        sampler = AdaptiveSampler(chat, 3, parser="first_line", temperature=1.5, seed=1)
        first, again = (sampler.invoke("What is the capital of Peru?") for _ in range(2))
        assert votes(first) == votes(again)
        assert 2 <= votes(first)["samples"] <= 3
        assert AdaptiveSampler(ChatBitCal(model=model, temperature=0.5)).temperature is None
