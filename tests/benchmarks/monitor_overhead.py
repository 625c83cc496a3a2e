"""What `monitor.watch` adds to a request, and how soon an answer is in the store.

    python tests/benchmarks/monitor_overhead.py [REQUESTS]

In the sink: the time of `Watch.see` itself, which lies on the request's path, with spans where
OpenTelemetry is installed, by the clock and as far as its thread computed, which others that use
the machine do not move. Added: blocks of requests with and without a watch take turns; the
difference of the two 99th percentiles also holds what the writing thread takes from the others.
The toy answers without a model, so that it is the worst case: nothing but Python runs. Written:
how many records a second one process commits to an SQLite file, and how many seconds passed at
most between an answer and its commit while bitcal-tiny answered. Run it on a quiet machine.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitcal_integrations import load
from bitcal_integrations.bench._machine import machine
from bitcal_integrations.monitor import Store, watch
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.tiny.tasks import questions

REQUESTS, BLOCKS = 1000, 10
TOYS = 20  # times as many requests of the toy, which would end before anything is written
QUESTION = "What is the capital of France?"


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_sink(
    model: Any, ask: Callable[[int], Any], requests: int, path: Path
) -> tuple[list[float], list[float]]:
    """Milliseconds in `Watch.see`, per request, while the thread writes: by the clock, and those
    that its own thread computed."""
    found: tuple[list[float], list[float]] = ([], [])
    with watch(None, path, max_queue=requests) as watching:  # the toy is faster than the disk

        def see(record: Any) -> None:
            computed = time.thread_time()
            found[0].append(1000 * timed(lambda: watching.see(record)))
            found[1].append(1000 * (time.thread_time() - computed))

        remove = model.add_sink(see)
        for index in range(requests):
            ask(index)
        remove()
    assert watching.report()["written"] == requests
    return found


def blocks(
    model: Any, ask: Callable[[int], Any], requests: int, path: Path
) -> tuple[list[float], list[float]]:
    """Milliseconds of requests that are not watched, and of watched ones."""
    found: tuple[list[float], list[float]] = ([], [])
    for block in range(2 * BLOCKS):
        watching = watch(model, path, max_queue=requests) if block % 2 else None
        taken = found[block % 2]
        taken.extend(1000 * timed(lambda i=i: ask(i)) for i in range(requests // BLOCKS))
        if watching is not None:
            watching.close()
    return found


def rate(path: Path, records: int = 20_000) -> float:
    """Records a second that the thread commits when it has enough to do."""
    record = ToyModel({}, default=("a short answer", 0.5)).ask(QUESTION)
    many = [replace(record, id=str(n)) for n in range(records)]
    with watch(None, path, spans=None, max_queue=records) as watching:
        return records / timed(lambda: ([watching.see(r) for r in many], watching.flush()))


def delay(model: Any, ask: Callable[[int], Any], requests: int, path: Path) -> float:
    """The most seconds from an answer until a transaction that holds it has ended."""
    taken: dict[str, float] = {}
    late = [0.0]
    with Store(path, create=True) as store:
        write = store.write

        def noted(rows: Any) -> None:
            write(rows)
            now = time.perf_counter()
            late.extend(now - taken.pop(row["id"]) for row in rows)

        store.write = noted  # type: ignore[method-assign]
        with watch(None, store) as watching:

            def see(record: Any) -> None:
                taken[record.id] = time.perf_counter()
                watching.see(record)

            remove = model.add_sink(see)
            for index in range(requests):
                ask(index)
            remove()
    return max(late)


def p(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))


def main() -> None:
    """Print the tables."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else REQUESTS
    asked = [question.prompt for question in questions("facts", "test", 64)]
    print(f"{machine()}\n")
    heads = ("in the sink", "of it computing", "request, not watched", "watched", "added")
    print("| " + " | ".join(("ms, 99th percentile (median)", *heads)) + " |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder, load("bitcal-tiny", weights="qint4") as tiny:
        place, toy = Path(folder), ToyModel({QUESTION: ("Paris", 0.9)})
        ways: dict[str, tuple[Any, Callable[[int], Any]]] = {
            "bitcal-tiny": (tiny, lambda i: tiny.ask(asked[i % 64], max_new_tokens=24)),
            "ToyModel": (toy, lambda i: toy.ask(QUESTION)),
        }
        for name, (model, ask) in ways.items():
            ask(0)
            many = requests * (TOYS if model is toy else 1)
            sink = in_sink(model, ask, many, place / f"{name}-sink.db")
            bare, watched = blocks(model, ask, many, place / f"{name}-blocks.db")
            cells = [f"{p(v, 0.99):.3f} ({p(v, 0.5):.3f})" for v in (*sink, bare, watched)]
            added = [p(watched, share) - p(bare, share) for share in (0.99, 0.5)]
            print(f"| {name} | {' | '.join(cells)} | {added[0]:.3f} ({added[1]:.3f}) |")
        print(f"\nwritten: {rate(place / 'rate.db'):,.0f} records a second, SQLite, one process")
        late = delay(*ways["bitcal-tiny"], requests, place / "delay.db")
        print(f"from an answer to its commit: at most {late:.2f} s")


if __name__ == "__main__":
    main()
