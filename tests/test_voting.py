"""vote: which samples are drawn, in what order they count, what is cancelled and what refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from bitcal_integrations.asker import Asker
from bitcal_integrations.decide.sampling import VoteTally
from bitcal_integrations.engines._ticket import Listener, Outcome
from bitcal_integrations.errors import BadRequest, EngineError
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Generation, Request, Step, Timing
from bitcal_integrations.voting import avote, key_of, vote


def said(text: str, logprobs: list[float], finish: Any = "stop") -> Generation:
    steps = tuple(Step(i, "", 0, len(text), lp, 0.1, 1.0, 0.0) for i, lp in enumerate(logprobs))
    return Generation(text, finish, steps, 1, len(steps))


@dataclass
class Held:
    """An engine that answers when it is told to; `say(seed)` gives (text, log-probabilities)."""

    say: Callable[[int], tuple[str, list[float]]]
    answer: Callable[[Held], None] = lambda held: held.finish_all()
    waiting: dict[int, Listener] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    expects: int = 4
    on_cancel: Callable[[], Any] = lambda: None

    def submit(self, request: Request, listener: Listener, steps: bool = True) -> Any:
        assert request.seed is not None
        seed = request.seed
        self.asked.append(request)
        self.waiting[seed] = listener
        held = self

        class Ticket:
            def cancel(self) -> None:
                if seed in held.waiting:
                    held.cancelled.append(seed)
                    held.waiting.pop(seed)(Outcome(said("", [-1.0] * 2, "cancelled"), Timing()))
                    held.on_cancel()

        ticket = Ticket()
        if len(self.waiting) == self.expects:
            self.answer(self)
        return ticket

    def finish(self, seed: int) -> None:
        text, logprobs = self.say(seed)
        self.waiting.pop(seed)(Outcome(said(text, logprobs), Timing()))

    def finish_all(self) -> None:
        for seed in list(self.waiting):
            self.finish(seed)

    def close(self) -> None:
        """Nothing is held open."""

    def report(self) -> dict[str, Any]:
        return {}


def asker(say: Callable[[int], tuple[str, list[float]]], **options: Any) -> tuple[Asker, Held]:
    held = Held(say, **options)
    return Asker(held, "held"), held


def test_a_clear_vote_needs_four_samples() -> None:
    toy = ToyModel({"q": ("Paris", 0.9)})
    found = vote(toy, "q")
    assert (found.answer, found.counts, found.samples, found.voted) == (
        "paris",
        {"paris": 4.0},
        4,
        4,
    )
    assert (found.tokens, found.killed, found.killed_tokens) == (4, 0, 0)
    assert found.stopped_because == "clear"
    assert found.posterior == 0.96875
    assert found.record.text == "Paris"
    assert found.record.confidence.value == 0.9  # the vote is no confidence
    json.dumps(found.to_dict())


def test_it_is_the_tally_of_the_same_samples() -> None:
    toy = ToyModel({"q": ("yes", 0.6, "no")})
    for rule in ("posterior", "certified"):
        tally = VoteTally(16, 0.9, rule=rule)  # type: ignore[arg-type]
        while not tally.done:
            tally.add(toy.ask("q", temperature=0.7, seed=5 + tally.n).text)
        found = vote(toy, "q", stop_at=0.9, rule=rule, seed=5)
        assert (found.counts, found.answer) == (tally.counts, tally.leader)
        assert (found.posterior, found.e_value) == (tally.posterior, tally.e_value)
        reason = {"posterior": "clear", "certified": "certified"}[rule]
        assert found.stopped_because == (reason if tally.clear else "max_samples")


def test_seeds_and_batches() -> None:
    model, held = asker(lambda seed: ("ab"[seed % 2], [-0.1]), expects=3)
    found = vote(model, "q", batch=3, max_samples=9, seed=10, top_p=0.9)
    assert [r.seed for r in held.asked] == list(range(10, 19))
    assert {(r.temperature, r.top_p) for r in held.asked} == {(0.7, 0.9)}
    assert (found.samples, found.stopped_because) == (9, "max_samples")
    assert found.counts == {"a": 5.0, "b": 4.0}


def test_votes_count_in_the_order_of_the_draws() -> None:
    """The last sample ends first, and the one that is drawn first still counts first."""

    def backwards(held: Held) -> None:
        for seed in sorted(held.waiting, reverse=True):
            held.finish(seed)

    texts = {0: "x", 1: "y", 2: "y", 3: "x"}
    for answer in (backwards, Held.finish_all):
        model, _ = asker(lambda seed: (texts[seed], [-0.1]), answer=answer)
        found = vote(model, "q", max_samples=4)
        assert list(found.counts) == ["x", "y"]
        assert found.answer == "x"


def test_what_is_no_longer_needed_is_cancelled_and_its_tokens_count() -> None:
    def two(held: Held) -> None:
        held.finish(0)
        held.finish(1)

    model, held = asker(lambda seed: ("x", [-0.1] * 5), answer=two)
    found = vote(model, "q", stop_at=0.8)  # two of two: 1 - 1/8
    assert held.cancelled == [2, 3]
    assert (found.samples, found.voted, found.tokens) == (4, 2, 2 * 5 + 2 * 2)


async def test_the_same_for_an_event_loop() -> None:
    toy = ToyModel({"q": ("yes", 0.6, "no")})
    assert (await avote(toy, "q", stop_at=0.99)).counts == vote(toy, "q", stop_at=0.99).counts

    def two(held: Held) -> None:
        held.finish(0)
        held.finish(1)

    model, held = asker(lambda seed: ("x", [-0.1] * 5), answer=two)
    found = await avote(model, "q", stop_at=0.8)
    assert sorted(held.cancelled) == [2, 3]
    assert (found.samples, found.voted, found.tokens) == (4, 2, 14)


async def test_cancelling_the_task_stops_the_samples() -> None:
    loop, begun, ended = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def begin(held: Held) -> None:
        loop.call_soon_threadsafe(begun.set)

    def end() -> None:
        if len(held.cancelled) == 4:
            ended.set()

    model, held = asker(lambda seed: ("x", []), answer=begin, on_cancel=end)
    task = asyncio.ensure_future(avote(model, "q"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 5)  # one was still being handed over


def test_a_sample_that_fails_ends_the_vote() -> None:
    def fail(held: Held) -> None:
        held.waiting.pop(0)(EngineError("no"))

    model, held = asker(lambda seed: ("x", []), answer=fail)
    with pytest.raises(EngineError, match="no"):
        vote(model, "q")
    assert sorted(held.cancelled) == [1, 2, 3]


def test_confidence_as_weight() -> None:
    toy = ToyModel({"q": ("yes", 0.75), "unknown": ("yes", None)})
    assert vote(toy, "q", weights="confidence", max_samples=4).counts == {"yes": 3.0}
    found = vote(toy, "unknown", weights="confidence", max_samples=4)
    assert found.counts == {"yes": 4.0}  # not known: one vote, as without weights
    assert vote(toy, "q", weights="confidence").e_value is None


def weak_at(seed: int) -> tuple[str, list[float]]:
    """Samples 0 to 3 are the warm-up, sample 5 turns weak at its 20th token."""
    return "x", [-1.0] * 19 + [-2.0 if seed == 5 else -1.0] * 21


def stream_all(held: Held) -> None:
    """Token by token, as an engine does: who is cancelled meanwhile hears no more."""
    for seed in list(held.waiting):
        text, logprobs = held.say(seed)
        for step in said(text, logprobs).steps:
            if seed in held.waiting:
                held.waiting[seed](step)
        if seed in held.waiting:
            held.finish(seed)


def test_weak_samples_are_given_up() -> None:
    held = Held(weak_at, answer=stream_all)
    heard: list[str] = []
    model = Asker(held, "held")
    model.add_sink(lambda record: heard.append(record.generation.finish))
    found = vote(model, "q", kill=True, stop_at=1.0, max_samples=8)
    assert (found.killed, found.samples, found.voted) == (1, 8, 7)
    assert held.cancelled == [5]
    assert heard.count("hopeless") == 1
    assert found.killed_tokens == 2  # what the engine says of a cancelled one
    assert found.tokens == 7 * 40 + 2
    assert found.counts == {"x": 7.0}


def test_without_kill_none_is_given_up() -> None:
    held = Held(weak_at, answer=stream_all)
    assert vote(Asker(held, "held"), "q", stop_at=1.0, max_samples=8).voted == 8
    assert held.cancelled == []


def test_one_sample_may_be_all() -> None:
    found = vote(ToyModel({"q": ("yes", 0.9)}), "q", max_samples=1)
    assert (found.answer, found.samples, found.stopped_because) == ("yes", 1, "max_samples")


def test_no_sample_with_an_answer() -> None:
    model, _ = asker(lambda seed: ("  ", [-1.0]))
    found = vote(model, "q", max_samples=4)
    assert (found.answer, found.counts, found.posterior, found.voted) == (None, {}, None, 0)
    assert found.stopped_because == "max_samples"
    assert found.record.request.seed == 0


def test_the_parser_finds_what_is_voted_for() -> None:
    texts = ["so it is 42", "I count 7", "that makes 42.0", "42"]
    model, _ = asker(lambda seed: (texts[seed], [-1.0]))
    found = vote(model, "q", max_samples=4)
    assert len(found.counts) == 4
    toy = ToyModel({"q": ("it is 1,200", 0.9)})
    assert vote(toy, "q", parser="last_number").counts == {"1200": 4.0}


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"temperature": 0}, "temperature=0 "),
        ({"rule": "best"}, "rule='best'"),
        ({"weights": "tokens"}, "weights='tokens'"),
        ({"weights": "confidence", "rule": "certified"}, "weights='confidence'"),
        ({"kill": True, "rule": "certified"}, "kill=True is not allowed with rule='certified'"),
        ({"kill": 1.5}, r"kill=1\.5"),
        ({"batch": 0}, "batch=0"),
        ({"warmup": 0}, "warmup=0"),
        ({"seed": -1}, "seed=-1"),
        ({"max_samples": 0}, "max_samples=0"),
        ({"max_samples": 1, "min_samples": 2}, "min_samples=2 is above max_samples=1"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"samples": 3}, "samples"),
    ],
)
def test_what_is_refused(options: dict[str, Any], quoted: str) -> None:
    with pytest.raises(BadRequest, match=quoted):
        vote(ToyModel({}), "q", **options)


def test_only_models_of_ours() -> None:
    with pytest.raises(BadRequest, match="no model of ours"):
        vote("bitcal-tiny", "q")  # type: ignore[arg-type]


def test_equal_answers() -> None:
    assert key_of("The Nile.") == key_of("nile")
    assert key_of("42") == key_of("42.0") == "42"
    assert key_of(" ") is None
