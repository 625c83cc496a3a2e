"""Benchmarks: ratios that are measured in one run, pair by pair, on the machine that asks.

One file per benchmark, found by its name; each has `cases(bed)`, which gives (label, measure) and
builds nothing yet. Models have random weights and are made in memory, so nothing is downloaded and
the figures say how fast the machinery is, not how good an answer is. Every pair is kept in its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bitcal_integrations import registry
from bitcal_integrations.bench._rows import Row, table

__all__ = ["Row", "run", "table"]


def run(
    names: Sequence[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    size: str = "default",
) -> list[Row]:
    """The rows of these benchmarks, or of all; `size="smoke"` only shows that they run.

    `progress(done, total, label)` is called before each case and after the last one.
    """
    from bitcal_integrations.bench._bed import Bed

    chosen = registry.names("bench") if names is None else names
    modules = [(name, registry.resolve("bench", name)) for name in chosen]
    bed = Bed(size)
    plan = [(f"{name}: {label}", go) for name, m in modules for label, go in m.cases(bed)]
    rows: list[Row] = []
    for done, (label, measure) in enumerate(plan):
        if progress is not None:
            progress(done, len(plan), label)
        rows += measure()
    if progress is not None:
        progress(len(plan), len(plan), "done")
    return rows
