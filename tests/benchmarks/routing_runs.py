"""Routing between two precisions on the real runs: what accuracy is left, what is escalated.

    python tests/benchmarks/routing_runs.py FOLDER [SPLITS]

Rows are split at random in halves, 50 times: the router is fitted on one half and read on the
other. In TriviaQA most questions stand twice in the runs; "by question" keeps both copies on one
side, and in one fold. Beside it stand the random choice and the small model's own confidence at
the same number of escalations.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calibration_runs import MODELS, Run, halves, load

from bitcal_integrations.decide import fit_router

PAIRS = (("hellaswag", False), ("triviaqa", False), ("triviaqa", True))  # whether by question
POLICIES: dict[str, dict[str, Any]] = {
    "max_escalation=0.25": {"max_escalation": 0.25},
    "match_big": {"match_big": True},
    "max_regret=0.01": {"max_regret": 0.01},
}
SPLITS = 50


def one_split(run: Run, big: Any, seed: int, by_question: bool) -> list[dict[str, Any]]:
    """Every policy on the half that was not fitted on, in points of accuracy."""
    fit, test = halves(run, seed, by_question)
    x, small = run.x, run.y.astype(int)
    router = fit_router(
        x[fit], small[fit], big[fit], names=("confidence", "entropy"), seed=seed,
        groups=run.question[fit] if by_question else None,
    )  # fmt: skip
    diff, found = (big - small)[test], []
    for name, rule in POLICIES.items():
        policy = router.policy(**rule)
        sent = policy.escalate(x[test])
        least = np.argsort(x[test, 0], kind="stable")[: sent.sum()]
        found.append(
            {
                "policy": name,
                "escalated": float(sent.mean()),
                "behind": -100 * float(np.mean(diff * ~sent)),
                "behind_least_confident": -100
                * float((diff.sum() - diff[least].sum()) / len(diff)),
                "behind_random": -100 * float(diff.mean() * (1 - sent.mean())),
                "claimed_above_big": policy.accuracy > policy.big_accuracy,
                "kind": policy.kind,
            }
        )
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean over splits with a 95% normal interval of it."""
    half = 1.96 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return mean, mean - half, mean + half


def rows(data_dir: Path, splits: int = SPLITS) -> list[dict[str, Any]]:
    """One row per model, data set and policy: means over the splits."""
    found = []
    for data, by_question in PAIRS:
        for model in MODELS:
            run, big = (load(data_dir, model, m, data) for m in ("gptq", "fp16"))
            right = big.y.astype(int)
            runs = [one_split(run, right, seed, by_question) for seed in range(splits)]
            for index, name in enumerate(POLICIES):
                cell = [one[index] for one in runs]
                where = f"{data} by question" if by_question else data
                found.append({"model": model, "data": where, "policy": name, **_means(cell)})
                found[-1]["gap"] = 100 * float((run.y - big.y).mean())
    return found


def _means(cell: list[dict[str, Any]]) -> dict[str, Any]:
    mean, low, high = interval([c["behind"] for c in cell])
    keys = ("escalated", "behind_least_confident", "behind_random", "claimed_above_big")
    plain = {key: float(np.mean([c[key] for c in cell])) for key in keys}
    kinds = {kind: sum(c["kind"] == kind for c in cell) for kind in ("never", "some", "always")}
    return {"behind": mean, "low": low, "high": high, **plain, "kinds": kinds}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, one line per model, data set and policy."""
    lines = [
        "| model, data (4 bits to 16) | policy | escalated | points to fp16 [95%] "
        "| least confident first | at random | none escalated | splits never/some/always |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in found:
        lines.append(
            f"| {r['model']} {r['data']} | {r['policy']} | {100 * r['escalated']:.1f}% "
            f"| {r['behind']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}] "
            f"| {r['behind_least_confident']:+.2f} | {r['behind_random']:+.2f} "
            f"| {r['gap']:+.2f} | {'/'.join(str(n) for n in r['kinds'].values())} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table for a folder of runs; a second argument sets the number of splits."""
    print(table(rows(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SPLITS)))


if __name__ == "__main__":
    main()
