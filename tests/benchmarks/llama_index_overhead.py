"""What BitCalLLM costs: milliseconds per call, blocks of the event loop, and queries at once.

Run it on a quiet machine: python tests/benchmarks/llama_index_overhead.py [--pairs 40]
At once are asked: short answers of some three tokens to LlamaIndex's own prompt with a passage,
where the prompts are most of the work, and long ones of some forty tokens. It prints one line per
measure, with the quartiles of interleaved runs, and its target.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations import load
from bitcal_integrations.bench._loops import rounds
from bitcal_integrations.bench._machine import machine
from bitcal_integrations.llama_index import BitCalLLM, with_confidence
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny import tasks

AT_ONCE = 32
TICK_S = 0.001


class Passage(BaseRetriever):
    """Finds one short text."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [NodeWithScore(node=TextNode(text="Norland has 5 million people."), score=1.0)]


def milliseconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def spread(values: Sequence[float]) -> str:
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:8.2f}  (quartiles {low:.2f} to {high:.2f}, n={len(values)})"


def added(model: Any, prompts: Sequence[str], pairs: int) -> list[float]:
    """What `complete` takes more than `ask`, prompt by prompt, each asked both ways."""
    llm, found = BitCalLLM(model=model, max_tokens=32), []
    for index in range(pairs):
        prompt = prompts[index % len(prompts)]
        taken = rounds(
            {
                "ask": lambda p=prompt: milliseconds(lambda: model.ask(p, max_new_tokens=32)),
                "complete": lambda p=prompt: milliseconds(lambda: llm.complete(p)),
            },
            pairs=1,
            warm_up=index == 0,
        )
        found.append(taken["complete"][0] - taken["ask"][0])
    return found


class Pauses:
    """How long Python has stopped for its garbage so far, and at most, in seconds."""

    def __init__(self) -> None:
        self.total, self.longest, self._since = 0.0, 0.0, 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._since = time.perf_counter()
        else:
            taken = time.perf_counter() - self._since
            self.total, self.longest = self.total + taken, max(self.longest, taken)

    def __enter__(self) -> Pauses:
        gc.callbacks.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self)


async def longest_block(engine: Any, prompts: Sequence[str]) -> tuple[float, float]:
    """The longest time, in ms, that the loop could do nothing else while all are answered, and the
    longest pause for garbage, which is Python's own and is left out of the first."""
    worst, done = 0.0, False

    async def tick(pauses: Pauses) -> None:
        nonlocal worst
        while not done:
            before, paused = time.perf_counter(), pauses.total
            await asyncio.sleep(TICK_S)
            taken = time.perf_counter() - before - TICK_S - (pauses.total - paused)
            worst = max(worst, taken)

    with Pauses() as pauses:
        ticking = asyncio.create_task(tick(pauses))
        await asyncio.gather(*(engine.aquery(prompt) for prompt in prompts))
        done = True
        await ticking
    return 1000 * worst, 1000 * pauses.longest


async def at_once(engine: Any, prompts: Sequence[str]) -> list[Any]:
    return list(await asyncio.gather(*(engine.aquery(prompt) for prompt in prompts)))


async def one_by_one(engine: Any, prompts: Sequence[str]) -> list[Any]:
    return [await engine.aquery(prompt) for prompt in prompts]


def engine_of(llm: BitCalLLM, template: PromptTemplate | None) -> Any:
    synthesizer = get_response_synthesizer(llm=llm, text_qa_template=template)
    return with_confidence(RetrieverQueryEngine(Passage(), response_synthesizer=synthesizer))


def times_as_fast(engine: Any, prompts: Sequence[str], pairs: int) -> list[float]:
    return ratios(
        lambda: asyncio.run(one_by_one(engine, prompts)),
        lambda: asyncio.run(at_once(engine, prompts)),
        pairs,
    )


def prompts_alone(model: Any, prompts: Sequence[str], pairs: int) -> list[float]:
    """The same with one new token each, asked without LlamaIndex: what reading prompts gains."""
    return ratios(
        lambda: [model.ask(prompt, max_new_tokens=1) for prompt in prompts],
        lambda: model.ask(prompts, max_new_tokens=1),
        pairs,
    )


def ratios(one: Callable[[], Any], every: Callable[[], Any], pairs: int) -> list[float]:
    ways = {"one": lambda: milliseconds(one), "all": lambda: milliseconds(every)}
    taken = rounds(ways, pairs=pairs)
    return [a / b for a, b in zip(taken["one"], taken["all"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(machine())
    prompts = [q.prompt for q in tasks.questions("math", "test", AT_ONCE)]
    toy = ToyModel({}, default=("one two three four five six seven eight", 0.8))
    print(f"ms that complete adds to ask, a toy   {spread(added(toy, prompts, given.pairs))}")
    with load("bitcal-tiny", weights="qint4") as model:
        print(f"ms that complete adds, bitcal-tiny    {spread(added(model, prompts, given.pairs))}")
        llm = BitCalLLM(model=model, max_tokens=160)
        short, long = engine_of(llm, None), engine_of(llm, PromptTemplate("{query_str}"))
        asyncio.run(at_once(short, prompts))  # LlamaIndex reads its own tokenizer at first use
        blocks = [
            asyncio.run(longest_block(engine, prompts))
            for engine in (short, long)
            for _ in range(given.rounds)
        ]
        longest, collected = (max(found) for found in zip(*blocks, strict=True))
        print(f"ms of the longest block of the loop   {longest:8.2f}  (asked: under 50)")
        print(f"ms of the longest garbage collection  {collected:8.2f}  (Python's own, beside it)")
        for name, engine in (("short", short), ("long", long)):
            found = times_as_fast(engine, prompts, given.rounds)
            print(f"{AT_ONCE} at once, times as fast, {name:5}   {spread(found)}  (asked: 3)")
        found = prompts_alone(model, prompts, given.rounds)
        print(f"{AT_ONCE} prompts with one token each      {spread(found)}")


if __name__ == "__main__":
    main()
