"""The built-in model at few bits, and what each way to better its weights takes back.

`python tests/benchmarks/low_bits.py --keep DIR` makes each variant once for each seed, asks it
fresh questions, and prints the tables of the README. Weights and answers are kept, so that a cut
run goes on; `--only` and `--seeds` name a part of the work, for several processes that share it.
Calibrators are fitted on a fifth of the questions, by whole groups; numbers are of the others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from float_layers import floats

from bitcal_integrations import load, metrics
from bitcal_integrations.answered import answer_all
from bitcal_integrations.bits import choose_bits
from bitcal_integrations.dataset import Example, split
from bitcal_integrations.kept import read_answers
from bitcal_integrations.paired import Columns, Difference, compare, pooled
from bitcal_integrations.recovery import Recovery, recover_model
from bitcal_integrations.repair import STEPS, Repair
from bitcal_integrations.report.study_text import difference
from bitcal_integrations.studied import Result, numbers_of
from bitcal_integrations.tiny import card, measure
from bitcal_integrations.tiny.answers import MAX_NEW_TOKENS, PARSER
from bitcal_integrations.tiny.assets import MODEL_DIR

ASKED: dict[str, Any] = {"parser": PARSER, "max_new_tokens": MAX_NEW_TOKENS}
REPAIRED = ("clip", "fold", "fold+clip", "fold+clip+round")
TYPES = ("qint8", "qint4", "qint2")
VARIANTS = (
    "none",
    *(name for kind in TYPES for name in (kind, *(f"{kind}+{steps}" for steps in REPAIRED))),
    "qint2+recover",
    "plan3",
    "plan3+fold+clip",
    "qint2+fold+clip+recover",
    "plan3+fold+clip+recover",
)
BITS = "3 bits"  # of plan3, on average
FIT = 0.2  # of all questions; the others are measured
PLANNED, TAUGHT, HELD = 256, 880, (0.55, 0.45)  # other questions, that plans and recovery learn on


@dataclass(frozen=True)
class Bench:
    """Where things are kept, how many questions are measured, and in which dtype."""

    keep: Path
    questions: int
    dtype: str
    model: str

    def measured(self, name: str, seed: int) -> tuple[Result, dict[str, Any]]:
        """One variant under one seed, and what making and asking it took."""
        asked = measure.draw("test", round(self.questions / (1 - FIT)), 1000 + seed)
        place = split(asked, (FIT, 0, 1 - FIT), seed)
        with self.opened(name, seed) as model:
            size, about = model.memory_report()["total"], self._facts(name, seed)
            rows = self._answers(model, asked, name, seed, about)
        self._note(name, seed, about)
        rows = [replace(r, part=place[r.id]) for r in rows]
        return numbers_of(Result(name, bytes=size), rows, measure.asking().schema, "auto"), about

    def _answers(
        self, model: Any, asked: Sequence[Example], name: str, seed: int, about: dict[str, Any]
    ) -> list[Any]:
        path = self.keep / f"{name}-{seed}.jsonl"
        before = len(read_answers(path)) if path.exists() else 0
        floats(model._loaded.model)
        began = time.process_time()
        rows = answer_all(model, asked, measure.asking(), path)
        if new := len(read_answers(path)) - before:
            about["cpu_per_1000"] = 1000 * (time.process_time() - began) / new
        return rows

    def opened(self, name: str, seed: int) -> Any:
        """The model, from the folder where it was saved when it was made."""
        folder = self.keep / "weights" / f"{name}-{seed}"
        kind, *steps = name.split("+")
        if not steps and kind != "plan3":
            return self._load(weights=None if kind == "none" else kind)
        if not folder.exists():
            cut = bool(self._facts(name, seed))  # the rest must not be timed as all
            before = name.removesuffix("+recover")
            earlier = self._facts(before, seed).get("seconds", 0.0)  # 0 if it is made only now
            self._note(name, seed, {"begun": True})
            began = time.process_time()
            with self._taught(before, seed) if name != before else self._made(name, seed) as model:
                spent = earlier + time.process_time() - began
                model.save(folder)
            self._note(name, seed, {} if cut else {"seconds": spent})
        return load(folder, profile=None, max_batch=128)

    def _load(self, **given: Any) -> Any:
        return load(self.model, dtype=self.dtype, profile=None, max_batch=128, **given)

    def _made(self, name: str, seed: int) -> Any:
        """Quantized anew, with its repair, under a plan that was chosen for that repair."""
        kind, *steps = name.split("+")
        repair = Repair(tuple(step for step in STEPS if step in steps), seed) if steps else None
        if kind != "plan3":
            return self._load(weights=kind, repair=repair)
        data = measure.draw("calibration", PLANNED, seed)
        keep = self.keep / "weights" / f"{name}-{seed}.scores"
        with self._load(weights=None) as plain:
            plan = choose_bits(
                plain, data, budget=BITS, repair=repair, seed=seed, keep=keep, **ASKED
            ).plan
        return self._load(weights=plan, repair=repair)

    def _taught(self, name: str, seed: int) -> Any:
        """A variant whose norm gains have learned from the unquantized model, if that was kept."""
        model = self.opened(name, seed)
        keep = self.keep / "recover" / f"{name}-{seed}"
        keep.mkdir(parents=True, exist_ok=True)
        data = measure.draw("calibration", TAUGHT, seed)
        found = recover_model(
            model, data, teacher=self.model, how=Recovery(seed=seed), grader="tiny", parts=HELD,
            keep=keep, **ASKED,
        )  # fmt: skip
        print(f"{name}, seed {seed}: {found}", flush=True)
        return model

    def _facts(self, name: str, seed: int) -> dict[str, Any]:
        path = self.keep / f"{name}-{seed}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _note(self, name: str, seed: int, about: Mapping[str, Any]) -> None:
        (self.keep / f"{name}-{seed}.json").write_text(json.dumps(about))


def check(bench: Bench, names: Sequence[str]) -> None:
    """How far answers of quanto's layers and of float ones with the same weights lie apart."""
    prompts = [e.prompt for e in measure.draw("test", 64, 5)]
    for name in names:
        with bench.opened(name, 0) as model:
            one = model.ask(prompts, **ASKED)
            floats(model._loaded.model)
            other = model.ask(prompts, **ASKED)
        same = sum(a.text == b.text for a, b in zip(one, other, strict=True))
        raw = [[r.confidence.raw or 0.0 for r in records] for records in (one, other)]
        apart = np.abs(np.subtract(*raw)).max()
        print(f"{name}: {same} of {len(prompts)} texts equal, confidence within {apart:.1e}")


def in_tasks(columns: Columns) -> list[Columns]:
    """The questions of each of the three tasks by themselves."""
    tasks = np.array([str(g).partition("-")[0] for g in columns.groups])
    return [columns.where(tasks == t) for t in sorted(set(tasks))]


def inside(columns: Columns) -> float:
    """Mean over the tasks of the AUROC of the raw score among the questions of one."""
    known = [(c, c.known("raw")) for c in in_tasks(columns)]
    return float(np.mean([metrics.auroc(c.raw[k], c.right[k]) for c, k in known]))


Numbers = Callable[[Result], float]
COLUMNS: dict[str, tuple[Numbers, int]] = {
    "right %": (lambda r: 100 * (r.accuracy or 0.0), 1),
    "Brier": (lambda r: r.raw.numbers["brier"], 4),
    "calibrated": (lambda r: r.calibrated.numbers["brier"], 4),
    "ECE": (lambda r: r.raw.numbers["ece"], 3),
    "floor": (lambda r: r.raw.numbers["ece_floor"], 3),
    "AUROC": (lambda r: r.raw.numbers["auroc"], 3),
    "in tasks": (lambda r: inside(r.columns), 3),
    "AUROC calibrated": (lambda r: r.calibrated.numbers["auroc"], 3),
}
# What can be taken back, and the difference that tells whether there is anything to take back.
LOST = {
    "right %": "accuracy", "Brier": "brier_raw", "calibrated": "brier_calibrated",
    "AUROC": "auroc_raw", "in tasks": "inside", "AUROC calibrated": "auroc_calibrated",
}  # fmt: skip
Found = dict[str, list[tuple[Result, dict[str, Any]]]]


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation over the seeds."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores(found: Found) -> str:
    rows = []
    for name, many in found.items():
        cells = [spread([get(r) for r, _ in many], d) for get, d in COLUMNS.values()]
        size = f"{np.mean([r.bytes or 0 for r, _ in many]) / 2**20:.2f}"
        seconds = [about["seconds"] for _, about in many if "seconds" in about]
        unknown = sum(r.unknown for r, _ in many)
        cells += [size, spread(seconds, 0) if seconds else "-", str(unknown)]
        rows.append([name, *cells])
    return table(["weights", *COLUMNS, "MiB", "CPU s", "unknown"], rows)


def base_of(name: str) -> str:
    """The variant that one is compared with: quanto's own weights of its type."""
    kind = name.partition("+")[0]
    return kind if kind in TYPES else "qint2"


def against(found: Found, name: str, other: str) -> dict[str, Difference]:
    """All seeds together: a question that more than one of them asked is one group."""
    one, base = (pooled([r.columns for r, _ in found[n] if r.columns]) for n in (name, other))
    pairs = zip(in_tasks(one), in_tasks(base), strict=True)
    tasks = [compare(*pair)["auroc_raw"] for pair in pairs]
    values = np.array([(d.value, d.low, d.high) for d in tasks], dtype=float)
    value, half = values[:, 0].mean(), np.linalg.norm(values[:, 2] - values[:, 1]) / 2 / len(tasks)
    ends = (value, value - half, value + half)  # the questions are apart, so errors add up
    inside = Difference(*(None if np.isnan(v) else float(v) for v in ends))
    return {**compare(one, base), "inside": inside}


def differences(found: Found) -> str:
    rows = []
    for name in found:
        base = "none" if name in TYPES else base_of(name)
        if name != "none" and base in found:
            d = against(found, name, base)
            rows.append([name, base, *(difference(key, d[key]) for key in LOST.values())])
    return table(["weights", "minus", *LOST], rows)


def shares(found: Found) -> str:
    """Of what quanto's weights lost to the unquantized ones, the share that is undone."""
    rows = []
    for name in found:
        base = base_of(name)
        if name not in (*TYPES, "none") and {"none", base} <= set(found):
            lost = against(found, base, "none")
            sets = [[r for r, _ in found[n]] for n in ("none", base, name)]
            rows.append([name, *(_share(title, key, lost, sets) for title, key in LOST.items())])
    return table(["taken back", *LOST], rows)


def _share(title: str, key: str, lost: Mapping[str, Difference], sets: list[list[Result]]) -> str:
    if not lost[key].clear:
        return "no clear loss"
    plain, base, mine = (np.array([COLUMNS[title][0](r) for r in results]) for results in sets)
    return spread((100 * (base - mine) / (base - plain)).tolist(), 0) + " %"


def noted(bench: Bench, seeds: Sequence[int]) -> str:
    """What the tables in the model's card are of."""
    return (
        f"By `low_bits.py` in {bench.dtype}: {bench.questions:,} fresh questions for each of "
        f"{len(seeds)} seeds of drawing, planning and repairing; ± is the standard deviation over "
        "seeds, 'in tasks' the mean AUROC inside a task, CPU s what making the weights took. Then "
        "the shares that are taken back, and differences with 95% intervals by question."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=20_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default=",".join(VARIANTS))
    parser.add_argument("--keep", default="low-bits")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--model", default="bitcal-tiny", help="or a folder of tiny.train")
    parser.add_argument("--check", action="store_true", help="are float layers the same?")
    parser.add_argument("--card", action="store_true", help="put the tables into its card")
    torch.set_num_threads(1)
    options = parser.parse_args()
    bench = Bench(Path(options.keep), options.questions, options.dtype, options.model)
    (bench.keep / "weights").mkdir(parents=True, exist_ok=True)
    names, seeds = options.only.split(","), [int(s) for s in options.seeds.split(",")]
    if unknown := set(names) - set(VARIANTS):
        parser.error(f"{min(unknown)!r} is not one of {', '.join(VARIANTS)}")
    if options.check:
        return check(bench, names)
    found: Found = {}
    for name in names:
        for seed in seeds:
            result, about = bench.measured(name, seed)
            found.setdefault(name, []).append((result, about))
            cost = about.get("cpu_per_1000", np.nan)
            print(f"{name}, seed {seed}: {cost:.1f} s of CPU per 1,000 questions", flush=True)
    print("", *(tables := [scores(found), shares(found), differences(found)]), sep="\n\n")
    if options.card:
        folder = MODEL_DIR if bench.model == "bitcal-tiny" else Path(bench.model)
        card.add_low_bits(folder, noted(bench, seeds), tables)


if __name__ == "__main__":
    main()
