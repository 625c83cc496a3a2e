"""How often a promise about early stops is broken: many certificates, each read on all other runs.

Each draw takes 1,000 of the logged runs by chance, certifies each loss on them, and reads the loss
on all that are left. Draws are kept in the folder of the runs as they come. The draws share one
pool, so that they are a little alike; the loss that is read off the rest has an error of its own,
about a tenth of a point at 20,000 runs and a loss of 2%.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bitcal_integrations.bench.stops import Case
from bitcal_integrations.bench.stops.study import outcome_of
from bitcal_integrations.decide._stop_table import Table
from bitcal_integrations.decide.stop import PRESETS, LoggedRun, StopCertificate, certify_stop


class Read(NamedTuple):
    """A plan on a table of runs: loss, share of tokens saved, share ended."""

    loss: float
    saved: float
    ended: float


class Cell(NamedTuple):
    """One weight type and loss over all draws; shares."""

    weights: str
    max_loss: float
    draws: int
    broken: float
    certified: float
    loss: float
    saved: float
    saved_low: float
    saved_high: float


def read(table: Table, certificate: StopCertificate) -> Read:
    """What a certificate's plan does to runs that it has not seen; none does nothing."""
    if certificate.plan is None:
        return Read(0.0, 0.0, 0.0)
    out, plan = outcome_of(table, certificate.plan), certificate.plan
    loss = out.lost[0].mean()
    if plan.settled and plan.hopeless:  # each level keeps max_loss by itself; `out` counts one
        loss = max(loss, outcome_of(table, replace(plan, hopeless=None)).lost[0].mean())
    ended = out.settled[0] | out.hopeless[0]
    saved = 1 - out.spent[0].sum() / table.length.sum()
    return Read(float(loss), float(saved), float(ended.mean()))


def one_draw(
    runs: Sequence[LoggedRun], table: Table, seed: int, n: int, delta: float, how: dict[str, Any]
) -> dict[str, list[float]]:
    """Loss, saving and share ended by preset; a promise stands for itself here."""
    order = np.random.default_rng(seed).permutation(len(runs))
    chosen, left = order[:n], table.rows(order[n:])
    found = certify_stop(
        [runs[i] for i in chosen], list(PRESETS.values()), delta, seed=seed, **how
    )  # fmt: skip
    return {name: list(read(left, c)) for name, c in zip(PRESETS, found, strict=True)}


def draws(
    folder: Path, weights: str, cases: Sequence[Case], many: int, n: int = 1000,
    delta: float = 0.1, how: dict[str, Any] | None = None, label: str = "",
) -> list[dict[str, Any]]:  # fmt: skip
    """So many draws, those of the folder from there."""
    asked = {"runs": len(cases), "n": n, "delta": delta, "how": repr(how or {})}
    path = folder / f"draws{label}-{weights}.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    kept = [row for row in map(json.loads, lines) if row["asked"] == asked][:many]
    runs = [case.run for case in cases]
    table = Table.of(runs, "wrong")
    with path.open("a", encoding="utf-8") as file:
        for seed in range(len(kept), many):
            row = {"asked": asked, "seed": seed}
            row["read"] = one_draw(runs, table, seed, n, delta, how or {})
            file.write(json.dumps(row) + "\n")
            file.flush()
            kept.append(row)
            print(f"\r{weights}: draw {seed + 1}/{many}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return kept


def cells(weights: str, kept: Sequence[dict[str, Any]]) -> list[Cell]:
    """The draws of a weight type, by loss."""
    out = []
    for name, max_loss in PRESETS.items():
        loss, saved, ended = np.array([row["read"][name] for row in kept]).T
        out.append(
            Cell(
                weights, max_loss, len(kept), float((loss > max_loss).mean()),
                float((ended > 0).mean()), float(loss.mean()), float(saved.mean()),
                *np.quantile(saved, [0.05, 0.95]).tolist(),
            )
        )  # fmt: skip
    return out


def table_of(found: Sequence[Cell], delta: float) -> str:
    """Markdown, with what the targets allow."""
    head = (
        "| weights | max_loss | draws | promise broken | a rule certified | mean loss "
        "| tokens saved (5% to 95% of draws) |\n|---|---|---|---|---|---|---|"
    )
    rows = [
        f"| {c.weights} | {c.max_loss:g} | {c.draws} | {c.broken:.1%} | {c.certified:.0%} "
        f"| {c.loss:.2%} | {c.saved:.1%} ({c.saved_low:.1%} to {c.saved_high:.1%}) |"
        for c in found
    ]
    error = math.sqrt(delta * (1 - delta) / found[0].draws)
    mean = float(np.mean([c.broken for c in found]))
    worst = max(c.broken for c in found)
    return "\n".join(
        [
            head, *rows, "",
            f"Broken on average {mean:.1%} (allowed: {delta + 2 * error:.1%}, delta + 2 SE of one "
            f"cell), in the worst cell {worst:.1%} (allowed: {delta + 3.5 * error:.1%}).",
        ]
    )  # fmt: skip
