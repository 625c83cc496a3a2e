"""Drift tests on recorded runs of real 4-bit models: false alarms, and how soon a change is seen.

    python tests/benchmarks/drift.py [FOLDER] [--weeks N] [--streams N] [--only PART] [--all]

FOLDER holds quantized_runs/*.npz (default: the data folder beside the repository). PART is stable
(simulated weeks in which nothing changes, each with a calibration set of its own), data (the
scores of the same model on another data set), checkpoint (of another model, toolchain or student
on the same data set) or labels (the same scores, but a share of the right answers is wrong now).
It plays the tests of bitcal_integrations.monitor.drift, many streams side by side, and prints
Markdown tables. A gap is the Kolmogorov-Smirnov distance of the scores, the larger of both
signals; profiles are fitted on 2,000 labels. Nothing here tunes anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bitcal_integrations.calibrators import Calibrator, fit_calibrator
from bitcal_integrations.monitor._bets import Bets, Stakes
from bitcal_integrations.monitor._evidence import (
    BINS,
    LARGE,
    SMALL,
    LabelTest,
    ScoreTest,
    in_bins,
    label_stakes,
)
from bitcal_integrations.monitor.drift import SHARES

DATA = Path(__file__).parents[3] / "shared" / "data"
PARTS = ("stable", "data", "checkpoint", "labels")
ALPHA = 0.05
NEEDED = SHARES / ALPHA
WEEK, LABELS = 7000, 350  # answers and labels of a week
WARM = 5000  # answers before a late change
DATA_LIMIT, CHECKPOINT_LIMIT = 300, 2000
FITTED = 2000  # labels of a profile that meets another data set or checkpoint


class Run(NamedTuple):
    """One model's answers to one data set."""

    name: str
    x: np.ndarray
    y: np.ndarray


def load(folder: Path, name: str) -> Run:
    with np.load(folder / f"{name}.npz") as data:
        x = np.column_stack([data["confidence"].astype(float), data["entropy"].astype(float)])
        return Run(name, x, data["correct"].astype(float))


def made_up(n: int = 200_000, seed: int = 0) -> Run:
    """Two signals and labels whose true rates no calibrator here has the exact shape of."""
    rng = np.random.default_rng(seed)
    score = rng.beta(4, 1.5, n)
    entropy = rng.gamma(2, 1 - 0.8 * score)
    rate = 0.15 + 0.8 * score**2 - 0.05 * np.minimum(entropy, 2)
    return Run("made up", np.column_stack([score, entropy]), (rng.random(n) < rate).astype(float))


def fit(run: Run, rows: np.ndarray) -> Calibrator:
    return fit_calibrator(run.x[rows], run.y[rows], method="logistic")


def play_scores(tests: Sequence[ScoreTest], streams: Sequence[np.ndarray]) -> np.ndarray:
    """After how many answers each stream's games found enough, inf where never: (streams, 2)."""
    cuts, pays = tests[0].share.size, [t.pay for t in tests]
    bets = Bets(np.full((len(tests), 2, cuts), 1 / cuts))
    pay = Stakes(np.stack([p.after_0 for p in pays]), np.stack([p.after_1 for p in pays]))
    below = np.stack([t.below(x) for t, x in zip(tests, streams, strict=True)])
    first = np.full((len(tests), 2), np.inf)
    for step in range(below.shape[1]):
        bets.see(below[:, step, None, :], pay)
        first[(bets.evidence >= NEEDED) & np.isinf(first)] = step + 1
        if np.isfinite(first).all():
            break
    return first


def play_labels(
    calibrators: Sequence[Calibrator], streams: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The same for labels."""
    bets = Bets(np.full((len(calibrators), 2, len(BINS)), 1 / len(BINS)))
    found = [LabelTest(cal).bounds(x) for cal, (x, _) in zip(calibrators, streams, strict=True)]
    low, high, p = (np.stack(v) for v in zip(*found, strict=True))
    y = np.stack([y for _, y in streams])
    first = np.full((len(calibrators), 2), np.inf)
    for step in range(y.shape[1]):
        pay, inside = label_stakes(low[:, step], high[:, step]), in_bins(p[:, step])
        bets.see(y[:, step, None, None], pay, inside[:, None, :])
        first[(bets.evidence >= NEEDED) & np.isinf(first)] = step + 1
    return first


def stable(run: Run, labels: int, weeks: int, seed: int = 0) -> dict[str, Any]:
    """Weeks of more of the same, each after a calibration on so many labels of its own."""
    rng = np.random.default_rng(seed)
    tests, calibrators, scores, judged = [], [], [], []
    for _ in range(weeks):
        order = rng.permutation(len(run.y))
        cal = fit(run, order[:labels])
        rows = rng.choice(order[labels:], WEEK)
        calibrators.append(cal)
        tests.append(ScoreTest(cal, ALPHA / SHARES))
        scores.append(run.x[rows])
        judged.append((run.x[rows[:LABELS]], run.y[rows[:LABELS]]))
    by_scores = np.isfinite(play_scores(tests, scores))
    by_labels = np.isfinite(play_labels(calibrators, judged))
    either = by_scores | by_labels
    return {
        "run": run.name, "labels": labels, "weeks": weeks,
        "scores": by_scores[:, SMALL].mean(), "labels_said": by_labels[:, SMALL].mean(),
        "left_ok": either.any(axis=1).mean(), "expired": either[:, LARGE].mean(),
    }  # fmt: skip


def change(run: Run, other: Run, streams: int, longest: int, warm: int = 0) -> dict[str, Any]:
    """A profile of `run` that meets the answers of `other`, after `warm` of its own."""
    rng = np.random.default_rng(0)
    tests, calibrators, scores, judged = [], [], [], []
    for _ in range(streams):
        order = rng.permutation(len(run.y))
        cal = fit(run, order[:FITTED])
        before = rng.choice(order[FITTED:], warm)
        rows = rng.choice(len(other.y), longest, replace=longest > len(other.y))
        calibrators.append(cal)
        tests.append(ScoreTest(cal, ALPHA / SHARES))
        scores.append(np.concatenate([run.x[before], other.x[rows]]))
        judged.append((other.x[rows], other.y[rows]))
    found = play_scores(tests, scores) - warm
    by_labels = play_labels(calibrators, judged) if not warm else np.full((streams, 2), np.inf)
    return {
        "run": run.name, "other": other.name, "warm": warm, "gap": gap(run.x, other.x),
        "watch": found[:, SMALL], "expired": found[:, LARGE], "labels": by_labels[:, SMALL],
    }  # fmt: skip


def worse_rows(folder: Path, streams: int) -> Iterator[str]:
    """How many labels it takes to see that fewer answers are right than their scores say."""
    yield "| run | share right | seen | median labels | slowest | expired | median labels |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for name in ("llama1-7b__nf4__4__triviaqa", "mistral-7b__awq__4__hellaswag"):
        run = load(folder, name)
        for lost in (0.0, 0.05, 0.1, 0.2):
            found = worse(run, lost, streams)
            seen = np.isfinite(found).mean(axis=0)
            median, slowest = np.median(found, axis=0), found.max(axis=0)
            share = run.y.mean()
            yield (
                f"| {name} | {share:.2f} to {share - lost:.2f} | {seen[SMALL]:.0%} | "
                f"{_steps(median[SMALL])} | {_steps(slowest[SMALL])} | {seen[LARGE]:.0%} | "
                f"{_steps(median[LARGE])} |"
            )


def worse(run: Run, lost: float, streams: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    calibrators, judged = [], []
    for _ in range(streams):
        order = rng.permutation(len(run.y))
        calibrators.append(fit(run, order[:FITTED]))
        rows = rng.choice(order[FITTED:], CHECKPOINT_LIMIT)
        kept = rng.random(CHECKPOINT_LIMIT) >= lost / run.y.mean()
        judged.append((run.x[rows], run.y[rows] * kept))
    return play_labels(calibrators, judged)


def gap(x: np.ndarray, other: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance, the larger of both signals."""
    return max(_gap(a, b) for a, b in zip(x.T, other.T, strict=True))


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    points = np.concatenate([a, b])
    below = [np.searchsorted(np.sort(v), points, "right") / v.size for v in (a, b)]
    return float(np.abs(below[0] - below[1]).max())


def stable_rows(folder: Path, weeks: int) -> Iterator[dict[str, Any]]:
    names = ("llama1-7b__nf4__4__triviaqa", "mistral-7b__awq__4__hellaswag")
    for run in (made_up(), *(load(folder, name) for name in names)):
        for labels in (500, 2000):
            yield stable(run, labels, weeks)


def pairs(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(kind, measured, met): data, model, toolchain or student."""
    files = sorted(path.stem for path in folder.glob("*.npz"))
    full = [f for f in files if "-kd-" not in f and "-1k__" not in f and "__8__" not in f]
    for a in full:
        model, method, _, task = a.split("__")
        for b in full:
            theirs, their_method, _, their_task = b.split("__")
            if (model, method) == (theirs, their_method) and task != their_task:
                yield "data", a, b
            if task == their_task and method == their_method and model != theirs:
                yield "model", a, b
            if (model, task) == (theirs, their_task) and method != their_method:
                yield "toolchain", a, b
        if method == "nf4":
            for b in files:
                if b.startswith(f"{model}__nf4-kd-") and b.endswith(f"__{task}"):
                    yield "student", a, b


def change_rows(folder: Path, streams: int, data: bool) -> Iterator[dict[str, Any]]:
    for kind, a, b in pairs(folder):
        if (kind == "data") != data:
            continue
        longest = DATA_LIMIT if data else CHECKPOINT_LIMIT
        for warm in (0, WARM):
            found = change(load(folder, a), load(folder, b), streams, longest, warm)
            yield {**found, "kind": kind, "limit": longest}


def stable_table(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield "| scores of | calibrated on | weeks | by scores | by labels | left ok | expired |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for r in rows:
        shares = " | ".join(f"{r[k]:.1%}" for k in ("scores", "labels_said", "left_ok", "expired"))
        yield f"| {r['run']} | {r['labels']} | {r['weeks']} | {shares} |"


def change_table(rows: Iterator[dict[str, Any]], every: bool) -> Iterator[str]:
    """One line per pair, or per kind and size of the gap; delays are in answers."""
    first = "measured, met" if every else "gap"
    yield (f"| kind | {first} | answers before | streams | caught | median | slowest | expired "
           "| by 2,000 labels alone |")  # fmt: skip
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for r in rows:
        pair = f"{r['run']}, {r['other']} ({r['gap']:.3f})"
        what = pair if every else band(r["gap"])
        found.setdefault((r["kind"], what, r["warm"]), []).append(r)
    for (kind, what, warm), some in sorted(found.items()):
        watch, expired, labels = (
            np.concatenate([r[k] for r in some]) for k in ("watch", "expired", "labels")
        )
        by_labels = "" if warm else f"{np.isfinite(labels).mean():.0%}"
        yield (
            f"| {kind} | {what} | {warm} | {len(watch)} | {np.isfinite(watch).mean():.1%} | "
            f"{_steps(np.median(watch))} | {_steps(watch.max())} | "
            f"{np.isfinite(expired).mean():.0%} | {by_labels} |"
        )


def band(gap: float) -> str:
    """
    >>> band(0.07), band(0.5)
    ('.05 to .10', 'above .20')
    """
    edges = (0.05, 0.1, 0.14, 0.2)
    words = ("below .05", ".05 to .10", ".10 to .14", ".14 to .20", "above .20")
    return words[int(np.searchsorted(edges, gap, side="right"))]


def _steps(n: float) -> str:
    return f"{n:.0f}" if np.isfinite(n) else "-"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", nargs="?", type=Path, default=DATA)
    options.add_argument("--weeks", type=int, default=1000)
    options.add_argument("--streams", type=int, default=20)
    options.add_argument("--only", choices=PARTS)
    options.add_argument("--all", action="store_true", help="one line per pair of runs")
    given = options.parse_args()
    runs = given.folder / "quantized_runs"
    if given.only in (None, "stable"):
        print(f"Stable weeks of {WEEK} answers and {LABELS} labels, alpha {ALPHA}:\n")
        for line in stable_table(stable_rows(runs, given.weeks)):
            print(line, flush=True)
    for part in ("data", "checkpoint"):
        if given.only in (None, part):
            print(f"\nAnother {part}, {given.streams} streams each:\n")
            for line in change_table(change_rows(runs, given.streams, part == "data"), given.all):
                print(line, flush=True)
    if given.only in (None, "labels"):
        print(f"\nFewer right answers of the same scores, {given.streams} streams each:\n")
        for line in worse_rows(runs, given.streams):
            print(line, flush=True)


if __name__ == "__main__":
    main()
