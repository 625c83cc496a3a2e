"""Certificates on the real 4-bit runs: how often a promise is broken, and what it still accepts.

    python tests/benchmarks/certificate_runs.py FOLDER [DRAWS]

Each draw calibrates the scores on 1,000 rows, certifies a threshold on 1,000 others, and reads the
true error on all rows left. Two controls stand beside it: the naive threshold (the laxest whose
error rate on the labels is within the target) and a certificate on shuffled scores. In TriviaQA
most questions stand twice in the runs; "by question" draws 1,000 questions with all of their rows,
and certifies on one row of each. The calibrator is `logistic`, which "auto" takes at 1,000 labels
in nine draws of ten, at twenty times the cost.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from calibration_runs import METHODS, MODELS, Run, load

from bitcal_integrations.calibrators import fit_calibrator
from bitcal_integrations.decide import certify_threshold

DATA = (("hellaswag", False), ("triviaqa", False), ("triviaqa", True))  # whether by question
SHARES = (0.8, 0.6)  # of the error rate of accepting all
DELTA, DRAWS, ROWS = 0.1, 200, 1000


def places(run: Run, by_question: bool, rng: np.random.Generator) -> list[Any]:
    """Rows to fit on, to certify on and to read the truth from."""
    if not by_question:
        return np.split(rng.permutation(len(run.y)), [ROWS, 2 * ROWS])
    turn = rng.permutation(run.question.max() + 1)[run.question]
    order = np.argsort(turn, kind="stable")
    return np.split(order, np.searchsorted(turn[order], [ROWS, 2 * ROWS]))


def naive(p: Any, y: Any, max_error: float) -> float | None:
    """The laxest threshold whose error rate on these labels is within the target."""
    order = np.argsort(-p, kind="stable")
    rate = np.cumsum(1 - y[order]) / np.arange(1, len(y) + 1)
    within = np.flatnonzero(rate <= max_error)
    return float(p[order][within[-1]]) if within.size else None


def outcome(p: Any, y: Any, threshold: float | None, max_error: float) -> tuple[bool, float]:
    """Whether the true error is above the target, and the share accepted."""
    accepted = p >= (2.0 if threshold is None else threshold)
    if not accepted.any():
        return False, 0.0
    return bool(1 - y[accepted].mean() > max_error), float(accepted.mean())


def one_draw(
    run: Run, by_question: bool, max_error: float, rng: np.random.Generator
) -> dict[str, Any]:
    """(violated, coverage) by certificate, naive threshold and shuffled scores."""
    fit, certify, left = places(run, by_question, rng)
    p, y = fit_calibrator(run.x[fit], run.y[fit], method="logistic")(run.x), run.y
    mixed = rng.permutation(p)

    def certified(scores: Any) -> float | None:
        found = certify_threshold(
            scores[certify], y[certify].astype(int), max_error, DELTA,
            groups=run.question[certify] if by_question else None,
        )  # fmt: skip
        return found.threshold

    found = {
        "certificate": (p, certified(p)),
        "naive": (p, naive(p[certify], y[certify], max_error)),
        "shuffled": (mixed, certified(mixed)),
    }
    return {k: outcome(s[left], y[left], t, max_error) for k, (s, t) in found.items()}


def rows(data_dir: Path, draws: int = DRAWS) -> list[dict[str, Any]]:
    """One row per run and target: violation rate and mean coverage of all three."""
    found_rows = []
    cells = [(d, s, m, q) for d in DATA for s in SHARES for m in MODELS for q in METHODS]
    for index, ((data, by_question), share, model, method) in enumerate(cells):
        run = load(data_dir, model, method, data)
        target, rng = share * float(1 - run.y.mean()), np.random.default_rng(index)
        found = [one_draw(run, by_question, target, rng) for _ in range(draws)]
        name = f"{data} by question" if by_question else data
        row: dict[str, Any] = {"model": model, "method": method, "data": name, "share": share}
        row |= {"target": target, "draws": draws}
        for kind in ("certificate", "naive", "shuffled"):
            row[kind], row[f"{kind}_coverage"] = np.mean([f[kind] for f in found], axis=0).tolist()
        found_rows.append(row)
    return found_rows


def within(found: list[dict[str, Any]]) -> tuple[bool, bool]:
    """Violations on average within DELTA + 2 SE, and in each cell within DELTA + 3.5 SE."""
    se = math.sqrt(DELTA * (1 - DELTA) / found[0]["draws"])
    seen = [row["certificate"] for row in found]
    average = DELTA + 2 * se / math.sqrt(len(seen))
    return float(np.mean(seen)) <= average, max(seen) <= DELTA + 3.5 * se


def table(found: list[dict[str, Any]]) -> str:
    """Markdown, one line per run and target, and the averages."""
    lines = [
        "| run | target | violated | accepted | naive violated | naive accepted "
        "| shuffled violated | shuffled accepted |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = ("certificate", "naive", "shuffled")
    for row in found:
        name = f"{row['model']} {row['method']} {row['data']}"
        cells = [f"{row[kind]:.3f} | {row[kind + '_coverage']:.2f}" for kind in kinds]
        target = f"{row['share']} x base = {row['target']:.3f}"
        lines.append(f"| {name} | {target} | {' | '.join(cells)} |")
    means = [float(np.mean([row[kind] for row in found])) for kind in kinds]
    return "\n".join(lines) + (
        "\n\nViolated on average: {:.3f}, naive {:.3f}, shuffled {:.3f}. Within delta + 2 SE on "
        "average and delta + 3.5 SE in each: {}, {}.".format(*means, *within(found))
    )


def main() -> None:
    """Print the table for a folder of runs; a second argument sets the number of draws."""
    print(table(rows(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else DRAWS)))


if __name__ == "__main__":
    main()
