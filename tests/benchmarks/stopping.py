"""Early stops on the built-in model's word problems: savings, promises kept, live runs, the clock.

    python tests/benchmarks/stopping.py FOLDER [--only SECTION ...] [--weights TYPE ...]
        [--n-cal 1000] [--n-test 20000] [--draws 200] [--live 200] [--dtype auto] [--batch 128]

FOLDER keeps the logged runs and the draws (about 15 MB a weight type), so that a cut program goes
on where it was. Sections, each printed as Markdown:

rules      every rule on the test questions: all of them, and those that ask for repeated steps
transfer   the rule certified at one weight type, on the runs of another: realised loss
draws      how often the promise is broken over fresh draws of the calibration questions
controls   what shuffled and constant scores certify
live       live runs in float32 against the replay of their logs, token for token
clock      seconds saved beside tokens saved, at batch 1 and 8; the cost of a plan that never fires

The first `n-cal` questions choose and certify, the others test; no two are alike, and training saw
none. Certificates in `rules` and `transfer` hold each by itself, at delta 0.1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import stopping_draws
import stopping_runs
from stopping_runs import IDLE, MAX_NEW_TOKENS, WEIGHTS

from bitcal_integrations.bench.stops import Case, Line, Options
from bitcal_integrations.bench.stops.controls import CONTROLS
from bitcal_integrations.bench.stops.numbers import Figure
from bitcal_integrations.bench.stops.rules import planned
from bitcal_integrations.bench.stops.study import (
    baseline_rules,
    certified,
    control,
    lines_of,
    setting_of,
)
from bitcal_integrations.cli.stop_bench import bits_of
from bitcal_integrations.decide._stop_table import Table
from bitcal_integrations.decide.stop import PRESETS, StopCertificate, StopPlan, StopRule

DELTA = 0.1


class Bench:
    """What the sections share: the arguments, and each weight type's runs, read once."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.folder: Path = given.folder
        self.weights: list[str] = given.weights
        self._runs: dict[str, list[Case]] = {}
        self._certificates: dict[str, dict[str, StopCertificate]] = {}

    def runs(self, weights: str) -> list[Case]:
        if weights not in self._runs:
            n = self.given.n_cal + self.given.n_test
            self._runs[weights] = stopping_runs.logged(
                self.folder, weights, n, self.given.dtype, self.given.batch
            )
        return self._runs[weights]

    def parts(self, weights: str) -> tuple[list[Case], list[Case]]:
        runs = self.runs(weights)
        return runs[: self.given.n_cal], runs[self.given.n_cal :]

    def options(self, weights: str) -> Options:
        bits = bits_of({weights: 1})
        how = {"levels": tuple(self.given.levels)}
        return Options(dict(PRESETS), DELTA, MAX_NEW_TOKENS, bits, how=how)

    def certificates(self, weights: str) -> dict[str, StopCertificate]:
        if weights not in self._certificates:
            chosen = [case.run for case in self.parts(weights)[0]]
            self._certificates[weights] = certified(chosen, self.options(weights))
        return self._certificates[weights]


def rules(bench: Bench) -> None:
    """The rule table of each weight type."""
    for weights in bench.weights:
        chosen, test = bench.parts(weights)
        options, found = bench.options(weights), bench.certificates(weights)
        setting = setting_of(chosen, found, options)
        made = baseline_rules(setting, test, options.baselines)
        made |= {name: planned(c.plan) for name, c in found.items()}
        print(f"\n### {weights}: {len(chosen)} to certify, {len(test)} to test\n")
        print(_table(lines_of(made, test, options)))
        redundant = [case for case in test if case.run.by.get("check") == "yes"]
        print(f"\nThe {len(redundant)} of them that ask for the steps to be repeated:\n")
        print(_table(lines_of(made, redundant, options)))
        print("\n" + "\n".join(f"- {name}: {c}" for name, c in found.items()))


def _table(lines: Sequence[Line]) -> str:
    head = (
        "| rule | right | tokens | probes | saved | full right, end wrong | changed | ended "
        "| given up |\n|---|---|---|---|---|---|---|---|---|"
    )
    return "\n".join([head, *map(_row, lines)])


def _row(line: Line) -> str:
    shares = [line.saved, line.premature, line.changed]
    cells = [
        line.rule, _share(line.accuracy), _plain(line.tokens), f"{line.probes.value:.1f}",
        *map(_share, shares), f"{line.ended.value:.1%}", f"{line.given_up.value:.1%}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _share(figure: Figure | None) -> str:
    if figure is None:
        return ""
    return f"{figure.value:.2%} ({figure.low:.2%} to {figure.high:.2%})"


def _plain(figure: Figure) -> str:
    return f"{figure.value:.1f} ({figure.low:.1f} to {figure.high:.1f})"


def transfer(bench: Bench) -> None:
    """Rows: where it was certified. Columns: whose test runs it ends."""
    tables = {w: Table.of([c.run for c in bench.parts(w)[1]], "wrong") for w in bench.weights}
    for preset, max_loss in PRESETS.items():
        print(f"\n### {preset}, max_loss {max_loss:g}: realised loss (tokens saved)\n")
        print("| certified at | " + " | ".join(f"on {w}" for w in bench.weights) + " |")
        print("|---" * (len(bench.weights) + 1) + "|")
        for source in bench.weights:
            certificate = bench.certificates(source)[preset]
            reads = [stopping_draws.read(tables[w], certificate) for w in bench.weights]
            cells = [_read(r, max_loss) for r in reads]
            print(f"| {source} | " + " | ".join(cells) + " |")


def _read(found: stopping_draws.Read, max_loss: float) -> str:
    mark = "**" if found.loss > max_loss else ""
    return f"{mark}{found.loss:.2%}{mark} ({found.saved:.1%})"


def draws(bench: Bench) -> None:
    """Promises kept over many draws of the calibration questions."""
    found = []
    how = {"levels": tuple(bench.given.levels)}
    for weights in bench.weights:
        kept = stopping_draws.draws(
            bench.folder, weights, bench.runs(weights), bench.given.draws, bench.given.n_cal,
            DELTA, how,
        )  # fmt: skip
        found += stopping_draws.cells(weights, kept)
    print("\n" + stopping_draws.table_of(found, DELTA))


def controls(bench: Bench) -> None:
    """What scores that know nothing certify at the largest loss."""
    print("\n| weights | scores | certified at max_loss .05 | tokens saved |\n|---|---|---|---|")
    for weights in bench.weights:
        runs = [case.run for case in bench.parts(weights)[0]]
        for name in CONTROLS:
            found = control(runs, name, bench.options(weights))
            rule = "nothing" if found.plan is None else str(found.plan.settled)
            print(f"| {weights} | {name} | {rule} | {found.saved:.1%} |")
        real = bench.certificates(weights)["fast"]
        rule = "nothing" if real.plan is None else str(real.plan.settled)
        print(f"| {weights} | as measured | {rule} | {real.saved:.1%} |")


def plans(bench: Bench, weights: str) -> dict[str, StopPlan]:
    """Plans to run live: those that were certified, and some by hand."""
    found = {n: c.plan for n, c in bench.certificates(weights).items() if c.plan is not None}
    hand = {
        "free score": StopPlan(StopRule("settled", "logprob", -0.02, patience=2)),
        "gated trial": StopPlan(
            StopRule("settled", "trial_probability", 0.9, gate=("logprob", -0.1))
        ),
        "both levels": StopPlan(
            StopRule("settled", "trial_agreement", 2), StopRule("hopeless", "lowest", -1.0)
        ),
    }
    return {**found, **hand}


def live(bench: Bench) -> None:
    """Live runs against replayed logs."""
    print("\n| weights | plan | live runs | ended early | not equal to the replay |")
    print("|---|---|---|---|---|")
    for weights in bench.weights:
        made = plans(bench, weights)
        for one in stopping_runs.live(bench.folder, weights, bench.given.live, made):
            print(f"| {one.weights} | {one.plan} | {one.runs} | {one.ended} | {one.different} |")


def clock(bench: Bench) -> None:
    """Seconds and tokens, with a plan and without."""
    print("\n| weights | batch | plan | tokens saved | seconds saved (range of pairs) |")
    print("|---|---|---|---|---|")
    for weights in bench.weights:
        certificate = bench.certificates(weights)["balanced"]
        timed = {"never fires": IDLE}
        timed |= {"balanced": certificate.plan} if certificate.plan else {}
        for batch in (1, 8):
            for name, plan in timed.items():
                c = stopping_runs.clock(weights, batch, plan, bench.given.clock, bench.given.pairs)
                seconds = f"{c.seconds:.1%} ({c.low:.1%} to {c.high:.1%})"
                print(f"| {weights} | {batch} | {name} | {c.tokens:.1%} | {seconds} |", flush=True)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "rules": rules,
    "transfer": transfer,
    "draws": draws,
    "controls": controls,
    "live": live,
    "clock": clock,
}


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add: Any = options.add_argument
    add("folder", type=Path, help="keeps logged runs and draws")
    add("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    add("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    add("--levels", nargs="+", choices=("settled", "hopeless"), default=["settled"])
    add("--n-cal", type=int, default=1000)
    add("--n-test", type=int, default=20_000)
    add("--draws", type=int, default=200)
    add("--live", type=int, default=200, help="questions of the live check")
    add("--clock", type=int, default=200, help="questions that are timed")
    add("--pairs", type=int, default=5, help="times each way is timed")
    add("--dtype", default="auto")
    add("--batch", type=int, default=128, help="seats while logging")
    return options.parse_args()


def main() -> None:
    """Print the sections asked for."""
    bench = Bench(arguments())
    for name in bench.given.only:
        print(f"\n## {name}")
        SECTIONS[name](bench)


if __name__ == "__main__":
    main()
