"""Adaptive self-consistency against 16 samples of everything, on word problems of bitcal-tiny.

    python tests/benchmarks/voting.py [N] [--weights qint4] [--temperature 1.0] [--seed 0]

Every one of N fresh questions is answered 16 times; each rule then sees the samples one by one, in
the order of their seeds, and its numbers are those of the samples up to where it stops. Differences
of accuracy are paired, with a 95% bootstrap interval. 300 questions take minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bitcal_integrations import load
from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.decide.sampling import GROUP, VoteTally, lowest_group, weak_below
from bitcal_integrations.tiny.tasks import Question, grade, questions
from bitcal_integrations.types import Record
from bitcal_integrations.voting import ballot

SAMPLES, WARMUP, SHARE, FIT_SHARE = 16, 4, 0.1, 0.1


@dataclass(frozen=True)
class Sample:
    """One answer: what it votes for, whether it is right, its tokens, how sure the model was.

    `killed_at` gives for a bound the number of tokens after which it is given up, or None.
    """

    vote: str | None
    right: bool
    tokens: int
    raw: float
    logprobs: tuple[float, ...]

    def killed_at(self, bound: float | None) -> int | None:
        if bound is None or len(self.logprobs) < GROUP:
            return None
        sums = np.convolve(self.logprobs, np.ones(GROUP), "valid") / GROUP
        low = np.flatnonzero(sums < bound)
        return int(low[0]) + GROUP if low.size else None


@dataclass(frozen=True)
class Spent:
    """What a rule made of one question."""

    right: bool
    samples: int
    tokens: int


Rule = Callable[[Sequence[Sample]], Spent]


def draw(model: object, asked: Sequence[Question], temperature: float, seed: int) -> list[Record]:
    """SAMPLES records of each question, question by question."""
    requests = [
        model.request_of(  # type: ignore[attr-defined]
            q.messages, parser="tiny", temperature=temperature, max_new_tokens=160,
            seed=seed + SAMPLES * number + i,
        )
        for number, q in enumerate(asked) for i in range(SAMPLES)
    ]  # fmt: skip
    found: list[Record | None] = [None] * len(requests)
    for index, record in model.ask_requests(requests):  # type: ignore[attr-defined]
        if isinstance(record, Exception):
            raise record
        found[index] = record
    return [record for record in found if record is not None]


def as_sample(question: Question, record: Record) -> Sample:
    generation = record.generation
    return Sample(
        ballot(record), grade(question, record.text), generation.n_tokens,
        record.confidence.raw or 0.0, tuple(s.logprob for s in generation.steps),
    )  # fmt: skip


def adaptive(weigh: Callable[[Sample], float], kill: bool = False, **options: object) -> Rule:
    """The rule of a VoteTally, perhaps with weights, perhaps giving up weak samples."""

    def run(samples: Sequence[Sample]) -> Spent:
        tally = VoteTally(SAMPLES, **options)  # type: ignore[arg-type]
        bound = weak_below([lowest_group(s.logprobs) for s in samples[:WARMUP]], SHARE)
        tokens = 0
        while not tally.done:
            sample = samples[tally.n]
            end = sample.killed_at(bound) if kill and tally.n >= WARMUP else None
            tokens += sample.tokens if end is None else end
            tally.add(sample.vote if end is None else None, weigh(sample))
        right = any(s.right for s in samples if s.vote == tally.leader and s.vote is not None)
        return Spent(right, tally.n, tokens)

    return run


def rules(weigh: Callable[[Sample], float]) -> dict[str, Rule]:
    def one(_: Sample) -> float:
        return 1.0

    def every(**options: object) -> Rule:
        return adaptive(one, stop_at=1.0, min_samples=SAMPLES, **options)  # type: ignore[arg-type]

    return {
        "16 samples": every(),
        "1 sample": lambda samples: Spent(samples[0].right, 1, samples[0].tokens),
        "posterior .95": adaptive(one, stop_at=0.95),
        "posterior .90": adaptive(one, stop_at=0.90),
        "certified .95": adaptive(one, stop_at=0.95, rule="certified"),
        "certified .90": adaptive(one, stop_at=0.90, rule="certified"),
        "posterior .95, weights": adaptive(weigh, stop_at=0.95),
        "16 samples, kill": every(kill=True),
        "posterior .95, kill": adaptive(one, kill=True, stop_at=0.95),
    }


def weights_of(samples: Sequence[Sample]) -> Callable[[Sample], float]:
    """The calibrated confidence of a sample, fitted on the samples of other questions."""
    raw, right = [[s.raw] for s in samples], [s.right for s in samples]
    calibrator = fit_calibrator(np.asarray(raw), np.asarray(right), names=("raw",))
    return lambda sample: float(calibrator(np.asarray([[sample.raw]]))[0])


def row(name: str, spent: Sequence[Spent], plain: Sequence[Spent]) -> str:
    gain = np.asarray([a.right - b.right for a, b in zip(spent, plain, strict=True)], float)
    draws = np.random.default_rng(0).choice(gain, (2000, gain.size)).mean(1)
    low, high = 100 * np.quantile(draws, (0.025, 0.975))
    samples, tokens = (
        [np.mean([getattr(s, what) for s in some]) for some in (spent, plain)]
        for what in ("samples", "tokens")
    )
    return (
        f"| {name} | {samples[0]:.2f} | {100 * (1 - samples[0] / samples[1]):.1f}% "
        f"| {tokens[0]:.1f} | {100 * (1 - tokens[0] / tokens[1]):.1f}% "
        f"| {np.mean([s.right for s in spent]):.3f} | {100 * gain.mean():+.1f} "
        f"[{low:+.1f}, {high:+.1f}] |"
    )


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("n", nargs="?", type=int, default=200)
    options.add_argument("--weights", default="qint4")
    options.add_argument("--temperature", type=float, default=1.0)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    count = given.n + max(20, round(FIT_SHARE * given.n))
    asked = questions("math", "test", count, seed=given.seed)
    weights = None if given.weights == "none" else given.weights
    with load("bitcal-tiny", weights=weights, profile=None, max_batch=64) as model:
        records = draw(model, asked, given.temperature, given.seed)
    of = [records[SAMPLES * i : SAMPLES * (i + 1)] for i in range(count)]
    samples = [[as_sample(q, r) for r in some] for q, some in zip(asked, of, strict=True)]
    fit, test = samples[given.n :], samples[: given.n]
    single = np.mean([s.right for some in test for s in some])
    print(
        f"bitcal-tiny {given.weights}, temperature {given.temperature:g}, {given.n} questions; "
        f"one sample is right with {single:.3f}\n"
    )
    print("| rule | samples | fewer | tokens | fewer | accuracy | against 16 samples, points |")
    print("|---|---:|---:|---:|---:|---:|---|")
    found = rules(weights_of([s for some in fit for s in some]))
    plain = [found["16 samples"](some) for some in test]
    for name, rule in found.items():
        print(row(name, [rule(some) for some in test], plain))


if __name__ == "__main__":
    main()
