"""vote(...): ask one question several times and give the answer that most samples agree on.

It draws small batches until decide/sampling.py says that the vote is clear, cancels what is then
still under way, and can give up weak samples while they decode. It knows a model that answers, not
how; how clear the vote is stands beside the confidence of the answer and never replaces it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bitcal_integrations.asker import Asker
from bitcal_integrations.decide._check import is_number
from bitcal_integrations.decide.sampling import (
    Rule,
    VoteTally,
    lowest_group,
    refuse_greedy,
    refuse_weights,
    weak_below,
    whole,
)
from bitcal_integrations.engines._watch import Watch
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import as_number, normalise
from bitcal_integrations.types import Record, Request

# DeepConf's gentle setting: the weakest tenth of the samples is given up.
KILL_SHARE = 0.1


@dataclass(frozen=True)
class Vote:
    """What a vote came to.

    `record` is the first sample that gave the leading `answer`, which is None where no sample had
    one; `counts` are the votes by answer, `posterior` and `e_value` say how clear they are (see
    VoteTally). `samples` were drawn, of which `voted` count and `killed` were given up as weak.
    `tokens` are those of all samples, `killed_tokens` those of the weak ones. `stopped_because` is
    "clear", "certified" or "max_samples".
    """

    record: Record
    answer: str | None
    counts: dict[str, float]
    posterior: float | None
    e_value: float | None
    samples: int
    voted: int
    tokens: int
    killed: int
    killed_tokens: int
    stopped_because: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the record's `bitcal` instead of the record."""
        return {**self.__dict__, "counts": dict(self.counts), "record": self.record.bitcal()}


def vote(model: Asker, prompt: Any, **options: Any) -> Vote:
    """Ask `prompt` until the leading answer is clear, at most `max_samples` (16) times and at least
    `min_samples` times (2, or as many as are allowed).

    `rule` "posterior" stops once the leader is likelier than the next with probability `stop_at`
    (.95), "certified" once it is a most likely answer but for 1 - stop_at. Votes are counted by the
    answer that `parser` finds (without one, the task's), else by the whole text. With
    `weights="confidence"` a sample counts its calibrated confidence, and 1 where that is unknown.
    Sample i is drawn at `temperature` (.7) with the seed `seed` + i; votes count in that order, so
    the result does not depend on which sample ends first.

    `batch` (4) samples are drawn at a time. More are faster, since they share the model's steps,
    and draw up to batch - 1 samples too many; those are cancelled. `kill=True`, or a share, gives
    up samples that become weak: after `warmup` (4) samples, one whose log-probability over 16
    tokens falls below that share of theirs (.1) ends there and does not vote. That changes what is
    sampled from, so the rule "certified" refuses it. All other options are those of `ask`.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> result = vote(ToyModel({"Capital of France?": ("Paris", 0.9)}), "Capital of France?")
    >>> result.answer, result.samples, result.stopped_because
    ('paris', 4, 'clear')
    """
    votes = _Votes(model, prompt, **options)
    while not votes.done:
        for index, record in votes.asker.ask_requests(votes.draw()):
            votes.take(index, record)
    return votes.result()


async def avote(model: Asker, prompt: Any, **options: Any) -> Vote:
    """`vote` for an event loop; cancelling the task stops the model."""
    votes = _Votes(model, prompt, **options)
    while not votes.done:
        await _draw(votes)
    return votes.result()


async def _draw(votes: _Votes) -> None:
    """One batch: its samples run side by side, and each is taken as it comes."""

    async def one(index: int, request: Request) -> None:
        (record,) = await votes.asker.aask_requests([request])
        votes.take(index, record)

    tasks = [asyncio.ensure_future(one(i, r)) for i, r in enumerate(votes.draw())]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Votes:
    """One question's samples: which to draw next, and what those that came say."""

    def __init__(
        self,
        model: Asker,
        prompt: Any,
        *,
        max_samples: int = 16,
        temperature: float = 0.7,
        stop_at: float = 0.95,
        min_samples: int | None = None,
        rule: Rule = "posterior",
        parser: str | Callable[..., Any] | None = None,
        weights: str = "none",
        kill: bool | float = False,
        warmup: int = 4,
        batch: int = 4,
        seed: int = 0,
        **options: Any,
    ) -> None:
        if not isinstance(model, Asker):
            raise BadRequest(f"{model!r:.80} is no model of ours: pass what load(...) gives")
        refuse_greedy(temperature)
        refuse_weights(rule, weights)
        self.tally = VoteTally(max_samples, stop_at, min_samples, rule)
        self._kill = _share(kill, rule)
        self._warmup, self._batch = whole("warmup", warmup, 1), whole("batch", batch, 1)
        self._weighted, self._seed = weights == "confidence", whole("seed", seed, 0)
        parse = {} if parser is None else {"parser": parser}
        self._request = model.request_of(prompt, temperature=temperature, **parse, **options)
        self._watch = Watch()
        self.asker = model.through(self._watch.over)
        self._drawn = 0  # samples asked for
        self._begin = 0  # the first of this batch
        self._came: dict[int, Record] = {}

    @property
    def done(self) -> bool:
        return self.tally.done

    def draw(self) -> list[Request]:
        """The next batch, and from when on its samples are too weak."""
        count = min(self._batch, self.tally.max_samples - self._drawn)
        if self._kill is not None:
            if self._drawn < self._warmup:
                count = min(count, self._warmup - self._drawn)
            else:
                self._watch.weak = weak_below(self._lowest(), self._kill)
        self._begin, self._drawn = self._drawn, self._drawn + count
        seeds = range(self._begin, self._drawn)
        requests = [replace(self._request, seed=self._seed + number) for number in seeds]
        self._watch.watched = requests
        return requests

    def _lowest(self) -> list[float | None]:
        return [lowest_group(_logprobs(self._came[n])) for n in range(self._warmup)]

    def take(self, index: int, record: Record | Exception) -> None:
        """A sample of this batch; the votes are counted in the order of the draws."""
        if isinstance(record, Exception):
            raise record
        self._came[self._begin + index] = record
        while not self.tally.done and self.tally.n in self._came:
            came = self._came[self.tally.n]
            self.tally.add(ballot(came), self._weight(came))
        if self.tally.done:
            self._watch.cancel()

    def _weight(self, record: Record) -> float:
        value = record.confidence.value
        return 1.0 if not self._weighted or value is None else value

    def result(self) -> Vote:
        tally, records = self.tally, [self._came[n] for n in sorted(self._came)]
        clear = "certified" if tally.rule == "certified" else "clear"
        killed = [r for r in records if r.generation.finish == "hopeless"]
        return Vote(
            winner(records[: tally.n], tally.leader), tally.leader, tally.counts, tally.posterior,
            tally.e_value, len(records), sum(map(bool, map(ballot, records[: tally.n]))),
            _tokens(records), len(killed), _tokens(killed), clear if tally.clear else "max_samples",
        )  # fmt: skip


def winner(records: Sequence[Record], leader: str | None) -> Record:
    """The first record that votes for the leader; without one, the first of all."""
    return next((r for r in records if leader is not None and ballot(r) == leader), records[0])


def ballot(record: Record) -> str | None:
    """What a sample votes for: its answer, or without a parser its whole text; None for neither."""
    generation = record.generation
    if generation.finish in ("error", "cancelled", "hopeless"):
        return None
    if record.request.parser is not None:
        return key_of(generation.answer.text) if generation.answer else None
    return None if generation.finish == "length" else key_of(generation.text)


def key_of(answer: str) -> str | None:
    """What equal answers have in common; None for a blank one.

    >>> key_of("The Nile."), key_of("1,200"), key_of("-7"), key_of("  ")
    ('nile', '1200', '-7', None)
    """
    number = as_number(answer)
    if number is not None:
        return f"{number:.12g}"
    return normalise(answer) or answer.strip().casefold() or None


def _share(kill: Any, rule: str) -> float | None:
    """The share of samples to give up; None for none."""
    if kill is False:
        return None
    if kill is not True and (not is_number(kill) or not 0 < kill < 1):
        raise BadRequest(f"kill={kill!r} is not allowed: True, False, or a share between 0 and 1")
    if rule == "certified":
        raise BadRequest(
            f"kill={kill!r} is not allowed with rule='certified': without its weak samples a model "
            "has another most likely answer"
        )
    return KILL_SHARE if kill is True else float(kill)


def _logprobs(record: Record) -> list[float]:
    return [step.logprob for step in record.generation.steps]


def _tokens(records: Sequence[Record]) -> int:
    return sum(r.generation.n_tokens + r.generation.probe_tokens for r in records)
