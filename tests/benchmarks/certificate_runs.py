"""Certificates on the real 4-bit runs: how often a promise is broken, and what it still accepts.

Each draw calibrates the scores on 1,000 rows, certifies a threshold on 1,000 others, and reads the
true error on all rows left. Two controls stand beside it: the naive threshold (the laxest whose
error rate on the labels is within the target) and a certificate on shuffled scores. Run it with
the folder of the runs; it prints a Markdown table.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bitcal_integrations.decide import certify_threshold

MODELS = ("llama1-7b", "mistral-7b")
METHODS = ("awq", "gptq", "nf4")
DATA = ("hellaswag", "triviaqa")
SHARES = (0.8, 0.6)  # of the error rate of accepting all
DELTA, DRAWS, ROWS = 0.1, 200, 1000


def read(path: Path) -> tuple[Any, Any]:
    """The features [confidence, entropy] and the labels of one run."""
    with np.load(path) as run:
        x = np.stack([run["confidence"], run["entropy"]], axis=1).astype(np.float64)
        return x, run["correct"].astype(int)


def calibrated(x: Any, y: Any, fit: Any) -> Any:
    """P(right) of every row, learnt from the rows of `fit`."""
    from sklearn.linear_model import LogisticRegression

    z = np.stack([np.log(x[:, 0] / (1 - x[:, 0])), x[:, 1]], axis=1)
    z = (z - z[fit].mean(axis=0)) / z[fit].std(axis=0)
    z = np.concatenate([z, z**2, z[:, :1] * z[:, 1:]], axis=1)
    return LogisticRegression(max_iter=1000).fit(z[fit], y[fit]).predict_proba(z)[:, 1]


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


def one_draw(x: Any, y: Any, max_error: float, rng: np.random.Generator) -> dict[str, Any]:
    """(violated, coverage) by certificate, naive threshold and shuffled scores."""
    order = rng.permutation(len(y))
    fit, certify, left = order[:ROWS], order[ROWS : 2 * ROWS], order[2 * ROWS :]
    p = calibrated(x, y, fit)
    mixed = rng.permutation(p)
    found = {
        "certificate": (p, certify_threshold(p[certify], y[certify], max_error, DELTA).threshold),
        "naive": (p, naive(p[certify], y[certify], max_error)),
        "shuffled": (
            mixed,
            certify_threshold(mixed[certify], y[certify], max_error, DELTA).threshold,
        ),
    }
    return {k: outcome(s[left], y[left], t, max_error) for k, (s, t) in found.items()}


def rows(data_dir: Path, draws: int = DRAWS) -> list[dict[str, Any]]:
    """One row per run and target: violation rate and mean coverage of all three."""
    found_rows = []
    cells = [(d, s, m, q) for d in DATA for s in SHARES for m in MODELS for q in METHODS]
    for index, (data, share, model, method) in enumerate(cells):
        x, y = read(data_dir / f"{model}__{method}__4__{data}.npz")
        target, rng = share * float(1 - y.mean()), np.random.default_rng(index)
        found = [one_draw(x, y, target, rng) for _ in range(draws)]
        row: dict[str, Any] = {"model": model, "method": method, "data": data, "share": share}
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
