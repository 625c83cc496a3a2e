"""Calibrators on the recorded runs of real 4-bit models, as a Markdown table.

    python tests/benchmarks/calibration_runs.py [FOLDER] [--splits N] [--draws N] [--part PART]

FOLDER holds quantized_runs/*.npz (default: the data folder beside the repository); PART is half,
few, carried or seconds. Every full 4-bit run of llama1 and mistral: fitted on a random half, tested
on the other. In TriviaQA most questions stand twice in the runs with the same scores, so halves of
rows share questions and reward memory; "by question" rows are split with both copies on one side.
Nothing here tunes anything.

The packages venn-abers and betacal stand in the table where they are installed. In an environment
of their own, with this package on the path and no torch:

    pip install numpy scikit-learn pandas venn-abers betacal
    PYTHONPATH=. python tests/benchmarks/calibration_runs.py --part half
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from bitcal_integrations import metrics
from bitcal_integrations.calibrators import adapt, fit_calibrator, transfer
from bitcal_integrations.profile import Profile

DATA = Path(__file__).parents[3] / "shared" / "data"
PROFILES = Path(__file__).parents[2] / "bitcal_integrations" / "tiny" / "profiles"
PARTS = ("half", "few", "carried", "seconds")
MODELS, METHODS, TASKS = ("llama1", "mistral"), ("awq", "gptq", "nf4"), ("triviaqa", "hellaswag")
OURS = ("constant", "temperature", "platt", "beta", "isotonic", "histogram", "venn_abers",
        "logistic", "smooth", "auto")  # fmt: skip

Predict = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray], Predict]


class Run(NamedTuple):
    """One model's answers to one data set: features (confidence, entropy), verdicts, question."""

    model: str
    task: str
    x: np.ndarray
    y: np.ndarray
    question: np.ndarray


class Row(NamedTuple):
    """One line of the table: what was done, on what, and its numbers by name."""

    part: str
    model: str
    task: str
    name: str
    numbers: dict[str, float]


def load(folder: Path, model: str, method: str, task: str) -> Run:
    bits = {"fp16": 16}.get(method, 4)
    x, y = _read(folder / f"{model}-7b__{method}__{bits}__{task}.npz")
    # Copies of a question have one and the same score in a run without batch noise.
    twin, _ = _read(folder / f"{model}-7b__nf4__4__{task}.npz")
    question = np.unique(twin, axis=0, return_inverse=True)[1].reshape(-1)
    return Run(model, task, x, y, question)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as data:
        columns = [data["confidence"].astype(float), data["entropy"].astype(float)]
        return np.column_stack(columns), data["correct"].astype(float)


def halves(run: Run, seed: int, by_question: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    if by_question:
        side = rng.random(run.question.max() + 1) < 0.5
        return np.flatnonzero(side[run.question]), np.flatnonzero(~side[run.question])
    order = rng.permutation(len(run.y))
    return order[: len(order) // 2], order[len(order) // 2 :]


def _logit(p: np.ndarray) -> np.ndarray:
    p = p.clip(1e-6, 1 - 1e-6)
    return np.log(p) - np.log1p(-p)


def _signals(x: np.ndarray) -> np.ndarray:
    return np.column_stack([_logit(x[:, 0]), x[:, 1]])


def others() -> dict[str, Fit]:
    """What others ship, where it is installed."""

    def logistic(x: np.ndarray, y: np.ndarray) -> Predict:
        made = make_pipeline(
            StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(),
            LogisticRegression(C=1e4, max_iter=5000),
        )  # fmt: skip
        fitted = made.fit(_signals(x), y)
        return lambda new: fitted.predict_proba(_signals(new))[:, 1]

    def platt(x: np.ndarray, y: np.ndarray) -> Predict:
        fitted = LogisticRegression(C=1e6).fit(_logit(x[:, :1]), y)
        return lambda new: fitted.predict_proba(_logit(new[:, :1]))[:, 1]

    def isotonic(x: np.ndarray, y: np.ndarray) -> Predict:
        fitted = IsotonicRegression(out_of_bounds="clip").fit(x[:, 0], y)
        return lambda new: fitted.predict(new[:, 0])

    found: dict[str, Fit] = {
        "raw": lambda x, y: lambda new: new[:, 0],
        "scikit-learn logistic, squares and products": logistic,
        "scikit-learn Platt": platt,
        "scikit-learn isotonic": isotonic,
    }
    return {**found, **_packages()}


def _packages() -> dict[str, Fit]:
    found: dict[str, Fit] = {}
    if (venn := _package("venn_abers")) is not None:

        def venn_abers(x: np.ndarray, y: np.ndarray) -> Predict:
            fitted = venn.VennAbers()
            fitted.fit(np.column_stack([1 - x[:, 0], x[:, 0]]), y)

            def predict(new: np.ndarray) -> np.ndarray:
                return fitted.predict_proba(np.column_stack([1 - new[:, 0], new[:, 0]]))[0][:, 1]

            return predict

        found["venn-abers package"] = venn_abers
    if (beta := _package("betacal")) is not None:

        def betacal(x: np.ndarray, y: np.ndarray) -> Predict:
            fitted = beta.BetaCalibration(parameters="abm").fit(x[:, :1], y)
            return lambda new: fitted.predict(new[:, :1])

        found["betacal package"] = betacal
    return found


def _package(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def ours(method: str) -> Fit:
    return lambda x, y: fit_calibrator(x, y, method=method)


def brier(predict: Predict, run: Run, rows: np.ndarray) -> float:
    return metrics.brier(predict(run.x[rows]), run.y[rows])


def scores(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    floor = metrics.ece_floor(p, draws=50)[0]
    ece = metrics.ece(p, y)
    found = {"brier": metrics.brier(p, y), "nll": metrics.nll(p, y)}
    return {**found, "ece": ece, "ece - floor": ece - floor}


def half_fits(runs: list[Run], splits: int, by_question: bool) -> Iterator[Row]:
    fits = {**others(), **{name: ours(name) for name in OURS}}
    if by_question:
        fits = {n: f for n, f in fits.items() if n in ("smooth", "auto") or "squares" in n}
    for name, fit in fits.items():
        found = []
        for run in runs:
            for seed in range(splits):
                a, b = halves(run, seed, by_question)
                found.append(scores(fit(run.x[a], run.y[a])(run.x[b]), run.y[b]))
        part = "half, by question" if by_question else "half"
        yield Row(part, runs[0].model, runs[0].task, name, _means(found))


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([f[key] for f in found])) for key in found[0]}


def few_labels(runs: list[Run], n: int, draws: int, methods: tuple[str, ...]) -> Iterator[Row]:
    """Fits on n labels of one half: against the constant of the same labels, and the half's own."""
    for method in methods:
        found = []
        for run in runs:
            a, b = halves(run, 0)
            own = brier(fit_calibrator(run.x[a], run.y[a], method=method), run, b)
            for draw in range(draws):
                few = np.random.default_rng(draw).choice(a, n, replace=False)
                if np.ptp(run.y[few]) == 0 and method != "auto":
                    continue
                cal = fit_calibrator(run.x[few], run.y[few], method=method)
                base = np.full(len(b), run.y[few].mean())
                mine = brier(cal, run, b)
                against = mine - metrics.brier(base, run.y[b])
                found.append({"brier": mine, "over constant": against, "over half fit": mine - own})
        yield Row(f"{n} labels", runs[0].model, runs[0].task, method, _means(found))


def carried(teacher: Run, runs: list[Run], splits: int) -> Iterator[Row]:
    """fp16 labels on int4 answers: as they are, by quantile map, and with 50 labels on top."""
    found = []
    for run in runs:
        for seed in range(splits):
            a, b = halves(run, seed)
            source = fit_calibrator(teacher.x[a], teacher.y[a])
            own = brier(fit_calibrator(run.x[a], run.y[a]), run, b)
            moved = transfer(source, source=teacher.x[a], target=run.x[a])
            few = [np.random.default_rng(i).choice(a, 50, replace=False) for i in range(10)]
            both = [brier(adapt(moved, run.x[f], run.y[f]), run, b) for f in few]
            plain, label_free = brier(source, run, b), brier(moved, run, b)
            found.append({"plain over half fit": plain - own, "over half fit": label_free - own,
                          "50 labels over half fit": float(np.mean(both)) - own})  # fmt: skip
    yield Row("fp16 to int4", teacher.model, teacher.task, "transfer", _means(found))


def seconds() -> Iterator[Row]:
    """Of a fit and of predictions on made-up data of 10,000 x 8, and of reading a profile."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.random(10_000), rng.normal(size=(10_000, 7))])
    y = rng.random(10_000) < 1 / (1 + np.exp(1 - 2 * x[:, 0] - x[:, 1] * x[:, 2]))
    start = time.perf_counter()
    cal = fit_calibrator(x, y)
    fitted, many = time.perf_counter(), np.tile(x, (100, 1))
    begun = time.perf_counter()
    cal(many)
    numbers = {"fit s": fitted - start, "1,000,000 rows s": time.perf_counter() - begun}
    yield Row("seconds", "-", "10,000 x 8", f"auto ({cal.method})", numbers)
    largest = max(PROFILES.glob("*.json"), key=lambda path: path.stat().st_size)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        Profile.load(largest)
        took.append(time.perf_counter() - start)
    size = f"profile of {largest.stat().st_size / 1e3:.0f} KB"
    yield Row("seconds", "-", size, "Profile.load, median of 20", {"s": float(np.median(took))})


def rows(
    data_dir: Path | str, splits: int = 10, draws: int = 20, parts: Sequence[str] = PARTS
) -> list[Row]:
    """The lines of the table; `draws` small samples per run."""
    folder, out = Path(data_dir) / "quantized_runs", []
    for model in MODELS:
        for task in TASKS:
            runs = [load(folder, model, method, task) for method in METHODS]
            if "half" in parts:
                out += half_fits(runs, splits, by_question=False)
            if "half" in parts and task == "triviaqa":
                out += half_fits(runs, splits, by_question=True)
            if "few" in parts:
                out += few_labels(runs, 50, draws, ("auto",))
                out += few_labels(runs, 200, draws, ("platt", "logistic", "auto"))
            if "carried" in parts:
                out += carried(load(folder, model, "fp16", task), runs, splits)
    return [*out, *(seconds() if "seconds" in parts else ())]


def table(found: list[Row]) -> str:
    """Markdown, one line per row."""
    lines = ["| part | model | data | what | numbers |", "|---|---|---|---|---|"]
    for row in found:
        numbers = ", ".join(_said(name, value) for name, value in row.numbers.items())
        lines.append(f"| {row.part} | {row.model} | {row.task} | {row.name} | {numbers} |")
    return "\n".join(lines)


def _said(name: str, value: float) -> str:
    """A difference shows its sign."""
    return f"{name} {value:+.4f}" if "over" in name or "floor" in name else f"{name} {value:.4f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", nargs="?", default=DATA)
    options.add_argument("--splits", type=int, default=10)
    options.add_argument("--draws", type=int, default=20)
    options.add_argument("--part", choices=PARTS, action="append", help="may be repeated")
    given = options.parse_args()
    print(table(rows(given.folder, given.splits, given.draws, given.part or PARTS)))


if __name__ == "__main__":
    main()
