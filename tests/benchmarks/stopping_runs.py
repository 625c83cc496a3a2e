"""The built-in model's word problems: full runs kept in a folder, live runs, and the clock.

One full run per question, with a trial answer at each line, kept as compressed JSON lines: nothing
is asked twice. `live` checks that a model that is let stop does what the replay of its logged run
says; `clock` measures seconds, in pairs of one machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bitcal_integrations import load
from bitcal_integrations.bench.stops import Case
from bitcal_integrations.bench.stops.logs import Asking, log_cases
from bitcal_integrations.dataset import Example
from bitcal_integrations.decide.stop import StopPlan, StopRule, replay
from bitcal_integrations.tiny import tasks
from bitcal_integrations.types import make_prompt

WEIGHTS = ("none", "qint8", "qint4", "qint2")
MAX_NEW_TOKENS = 160
SEED = 1  # the first questions of seed 0 were looked at when scores were chosen
OPTIONS = {"max_new_tokens": MAX_NEW_TOKENS}
ASKING = Asking(parser="tiny", grader="tiny", closing="#### ", options=OPTIONS)
# Free scores are measured at every line, and the threshold is out of reach.
IDLE = StopPlan(settled=StopRule("settled", "logprob", 1e9))


def examples(n: int, seed: int = SEED) -> list[Example]:
    """Word problems that no training saw, no two alike; `check` says whether the question asks
    for the steps to be repeated, which makes the rest of a chain redundant.
    """
    found: dict[str, Example] = {}
    for question in tasks.stream("math", "test", seed):
        if len(found) == n:
            break
        by = {"check": "yes" if question.wording.endswith("+check") else "no"}
        prompt = make_prompt(list(question.messages))
        found.setdefault(question.id, Example(question.id, question.id, prompt, question.gold, by))
    return list(found.values())


def model_of(weights: str, dtype: str, batch: int) -> Any:
    return load(
        "bitcal-tiny", weights=None if weights == "none" else weights, dtype=dtype, profile=None,
        max_batch=batch,
    )  # fmt: skip


def logged(folder: Path, weights: str, n: int, dtype: str = "auto", batch: int = 128) -> list[Case]:
    """The first n questions' runs, from the folder as far as they are there.

    Unquantized weights answer in float32 unless a dtype is named: in bfloat16 they are slow where
    the processor has no units for it.
    """
    dtype = "float32" if (weights, dtype) == ("none", "auto") else dtype
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def progress(done: int, total: int, label: str) -> None:
        if done % 64 and done < total:
            return
        line = f"\r{weights}: {label} {done}/{total}, {time.monotonic() - begun:.0f} s"
        print(line, end="\n" if done == total else "", file=sys.stderr, flush=True)

    with model_of(weights, dtype, batch) as model:
        path = folder / f"{weights}-{dtype}.jsonl.gz"
        return log_cases(model, examples(n), ASKING, path, progress)


class Live(NamedTuple):
    """How many live runs were compared with their replay, and how many were not equal."""

    weights: str
    plan: str
    runs: int
    ended: int
    different: int


def live(folder: Path, weights: str, n: int, plans: dict[str, StopPlan]) -> Iterator[Live]:
    """Live runs in float32 against the replay of their logs: tokens, probes, finish, answer."""
    cases = logged(folder, weights, n, dtype="float32")
    asked = examples(n)
    with model_of(weights, "float32", 8) as model:
        for name, plan in plans.items():
            records = model.ask(
                [e.prompt for e in asked], parser="tiny", early_stop=plan, **OPTIONS
            )
            ends = [replay(case.run, plan) for case in cases]
            found = [_shown(record) for record in records]
            wanted = [(e.tokens, e.probe_tokens, e.finish, e.answer) for e in ends]
            different = sum(a != b for a, b in zip(found, wanted, strict=True))
            yield Live(weights, name, n, sum(e.index is not None for e in ends), different)


def _shown(record: Any) -> tuple[int, int, str, str | None]:
    g = record.generation
    return g.n_tokens, g.probe_tokens, g.finish, g.answer.text if g.answer else None


class Clock(NamedTuple):
    """Two ways to answer the same questions: the shares of tokens and of seconds that the second
    saves, the median over pairs of runs one after the other, with the range of the seconds.
    """

    weights: str
    batch: int
    tokens: float
    seconds: float
    low: float
    high: float


def clock(
    weights: str, batch: int, plan: StopPlan, n: int, pairs: int = 5, dtype: str = "auto"
) -> Clock:
    """Answers without a plan and with it, in turn."""
    prompts = [e.prompt for e in examples(n, seed=1)]
    with model_of(weights, dtype, batch) as model:

        def answer(early_stop: StopPlan | None) -> tuple[float, int]:
            begun = time.perf_counter()
            records = _in_turn(model, prompts, batch, early_stop)
            spent = sum(r.generation.n_tokens + r.generation.probe_tokens for r in records)
            return time.perf_counter() - begun, spent

        answer(None)
        answer(plan)
        taken = [(answer(None), answer(plan)) for _ in range(pairs)]
    saved = [1 - with_[0] / without[0] for without, with_ in taken]
    tokens = [1 - with_[1] / without[1] for without, with_ in taken]
    middle: Callable[[Sequence[float]], float] = statistics.median
    return Clock(weights, batch, middle(tokens), middle(saved), min(saved), max(saved))


def _in_turn(model: Any, prompts: Sequence[Any], batch: int, early_stop: Any) -> list[Any]:
    """One prompt after the other at batch 1, as one list (seats are filled anew) otherwise."""
    options: dict[str, Any] = {"parser": "tiny", "early_stop": early_stop, **OPTIONS}
    if batch == 1:
        return [model.ask(prompt, **options) for prompt in prompts]
    return list(model.ask(prompts, **options))
