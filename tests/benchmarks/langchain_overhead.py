"""What LangChain's classes cost: one call through ChatBitCal, and 64 at once against one by one.

    python tests/benchmarks/langchain_overhead.py [PAIRS]

Overhead is the time of `chat.invoke` minus that of `model.ask` with the same messages and options,
asked in turn; the toy answers in microseconds, so that it shows the classes alone. At once: 64
questions in one `batch`, one `abatch` and one `model.ask` against 64 times `invoke`, for word
problems (some forty tokens) and for facts (some four, where the prompts are most of the work).
Medians and the middle half. Run it on a quiet machine.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

from bitcal_integrations import load
from bitcal_integrations.bench._machine import machine
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import questions

QUESTION = "What is the capital of France?"
PAIRS, MANY = 60, 64


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    low, _, high = quantiles(values, n=4)
    return f"{median(values):.2f} [{low:.2f}, {high:.2f}]"


def added(model: Any, pairs: int) -> list[float]:
    """Milliseconds that ChatBitCal.invoke adds to model.ask, pair by pair."""
    chat = ChatBitCal(model=model, max_tokens=24)
    turns = [{"role": "user", "content": QUESTION}]
    found = []
    for index in range(pairs + 3):
        work = [lambda: chat.invoke(QUESTION), lambda: model.ask(turns, max_new_tokens=24)]
        order = (0, 1) if index % 2 else (1, 0)
        taken = {which: timed(work[which]) for which in order}
        found.append(1000 * (taken[0] - taken[1]))
    return found[3:]


def gains(model: Any, task: str, rounds: int) -> dict[str, list[float]]:
    """Times that 64 questions at once are faster than one by one, by way of asking."""
    chat = ChatBitCal(model=model, max_tokens=160)
    asked = [question.prompt for question in questions(task, "test", MANY)]
    ways: dict[str, Callable[[], Any]] = {
        "batch": lambda: chat.batch(asked),
        "abatch": lambda: asyncio.run(chat.abatch(asked)),
        "model.ask": lambda: model.ask(asked, max_new_tokens=160),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        alone = timed(lambda: [chat.invoke(question) for question in asked])
        for name, way in ways.items():
            found[name].append(alone / timed(way))
    return found


def main() -> None:
    """Print the table."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    rows = []
    toy = ToyModel({QUESTION: ("Paris", 0.9)})
    rows.append(("ms that invoke adds to ask, ToyModel", spread(added(toy, pairs)), "<= 3"))
    with load("bitcal-tiny", weights="qint4") as tiny:
        tiny.ask(QUESTION)
        rows.append(("ms that invoke adds to ask, bitcal-tiny", spread(added(tiny, pairs)), "<= 3"))
        for task in ("math", "facts"):
            for name, values in gains(tiny, task, max(3, pairs // 12)).items():
                what = f"throughput of {name}({MANY}) / {MANY} single invokes, bitcal-tiny, {task}"
                rows.append((what, spread(values), ">= 3"))
    print(machine())
    print("\n| what | median [middle half] | target |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
