"""Stop rules compared: certified on some logged runs, replayed on others, with intervals.

Numbers only; the command line draws them. The runs are split by group: on the first part rules are
chosen and certified, on the test part every rule is replayed on the same runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bitcal_integrations.bench.stops.controls import CONTROLS, names_of
from bitcal_integrations.bench.stops.numbers import DRAWS, Figure, Resample
from bitcal_integrations.bench.stops.rules import (
    BASELINES,
    NEEDS_CHUNKS,
    Case,
    Rule,
    Setting,
    loses,
    planned,
)
from bitcal_integrations.dataset import Example
from bitcal_integrations.decide._stop_path import outcome
from bitcal_integrations.decide._stop_rule import LEVELS
from bitcal_integrations.decide._stop_table import Ahead, Outcome, Table, bar_of, course_of
from bitcal_integrations.decide.stop import (
    PRESETS,
    Exit,
    LoggedRun,
    StopCertificate,
    StopPlan,
    certify_stop,
)
from bitcal_integrations.errors import CalibrationError

COMPARED = "balanced"  # what the budget-matched baselines are matched with
FEWEST = 20  # runs in each part


@dataclass(frozen=True)
class Line:
    """What a rule does to the test runs; tokens a run, all else shares of runs (or of tokens).

    `probes` are tokens of trial answers beside the text; `saved` is against L0, with probes paid.
    `premature`: the full run was right, the end is not. `changed`: the answer differs. `ended` and
    `given_up` count runs that ended with an answer, or without one; `lost` are the shares of runs
    that each of the two levels lost (without labels: changed). None: nobody has judged.
    """

    rule: str
    n: int
    accuracy: Figure | None
    tokens: Figure
    probes: Figure
    saved: Figure
    premature: Figure | None
    changed: Figure
    ended: Figure
    given_up: Figure
    lost: Mapping[str, Figure]
    promised: float | None = None

    def to_dict(self) -> dict[str, Any]:
        plain = {
            f.name: value.to_dict() if isinstance(value, Figure) else value
            for f in dataclasses.fields(self)
            for value in (getattr(self, f.name),)
        }
        return {**plain, "lost": {level: share.to_dict() for level, share in self.lost.items()}}


@dataclass(frozen=True)
class StopStudy:
    """All numbers of a study. `controls` are certificates on scores that know nothing.

    `compared` is the preset whose tokens and share of early ends the fixed budget and the random
    rule take; None where it has no rule, and they take half.
    """

    lines: tuple[Line, ...]
    certificates: Mapping[str, StopCertificate]
    controls: Mapping[str, StopCertificate]
    counts: Mapping[str, int]
    kind: str
    delta: float
    length: float
    compared: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "lines": [line.to_dict() for line in self.lines],
            "certificates": {k: c.to_dict() for k, c in self.certificates.items()},
            "controls": {k: c.to_dict() for k, c in self.controls.items()},
            "counts": dict(self.counts),
            "about": dict(self.about),
        }


@dataclass(frozen=True)
class Options:
    """How a study is made; `losses` are max_loss by name, `how` goes to `certify_stop`."""

    losses: Mapping[str, float] = field(default_factory=lambda: dict(PRESETS))
    delta: float = 0.1
    budget: int = 512
    bits: int = 16
    test_share: float = 0.5
    baselines: tuple[str, ...] = tuple(BASELINES)
    how: Mapping[str, Any] = field(default_factory=dict)
    draws: int = DRAWS
    seed: int = 0


def study(cases: Sequence[Case], options: Options | None = None) -> StopStudy:
    """Split, certify, replay: the whole comparison."""
    options = options or Options()
    chosen, test = split([case.run for case in cases], options.test_share, options.seed)
    return compare([cases[i] for i in chosen], [cases[i] for i in test], options)


def split(
    runs: Sequence[LoggedRun | Example], test_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Rows to choose and certify on, and rows to test on; no group is in both.

    Examples are split as the runs that they give.

    >>> from bitcal_integrations.decide.stop import LoggedRun
    >>> runs = [LoggedRun((), 9, "1", True, id=str(i), group=str(i // 2)) for i in range(8)]
    >>> chosen, test = split(runs, 0.5, seed=0)
    >>> len(chosen), {i // 2 for i in chosen} & {i // 2 for i in test}
    (4, set())
    """
    names = [run.group or run.id or f"row {i}" for i, run in enumerate(runs)]
    groups = list(dict.fromkeys(names))
    drawn = np.random.default_rng(seed).permutation(len(groups))[: round(test_share * len(groups))]
    tested = {groups[i] for i in drawn}
    chosen = [i for i, name in enumerate(names) if name not in tested]
    return chosen, [i for i, name in enumerate(names) if name in tested]


def refuse_few(chosen: int, test: int) -> None:
    """Refuse parts that nothing can be said of."""
    if min(chosen, test) < FEWEST:
        raise CalibrationError(
            f"{chosen} runs to choose rules and {test} to test them are too few: each part needs "
            f"{FEWEST}, and a promise needs hundreds"
        )


def compare(chosen: Sequence[Case], test: Sequence[Case], options: Options) -> StopStudy:
    """The same with parts that are already apart."""
    refuse_few(len(chosen), len(test))
    runs = [case.run for case in chosen]
    certificates = certified(runs, options)
    setting = setting_of(chosen, certificates, options)
    rules = baseline_rules(setting, test, options.baselines)
    rules |= {name: planned(c.plan) for name, c in certificates.items()}
    lines = lines_of(rules, test, options)
    compared = compared_of(certificates)
    promised = {name: options.losses[name] for name, c in certificates.items() if c.plan}
    return StopStudy(
        tuple(replace(line, promised=promised.get(line.rule)) for line in lines),
        certificates,
        {name: control(runs, name, options) for name in CONTROLS},
        {"chosen": len(chosen), "test": len(test)},
        kind_of(runs),
        options.delta,
        setting.length,
        compared if certificates[compared].plan else None,
    )


def certified(runs: Sequence[LoggedRun], options: Options) -> dict[str, StopCertificate]:
    """A certificate for each loss, which hold at once."""
    found = certify_stop(
        list(runs), list(options.losses.values()), options.delta, kind=kind_of(runs),
        seed=options.seed, **options.how,
    )  # fmt: skip
    return dict(zip(options.losses, found, strict=True))


def kind_of(runs: Sequence[LoggedRun]) -> Any:
    """Whether losses are counted by labels ("wrong"), or without any ("changed")."""
    return "wrong" if all(run.right is not None for run in runs) else "changed"


def control(runs: Sequence[LoggedRun], name: str, options: Options) -> StopCertificate:
    """What is certified at the largest loss when the scores say nothing."""
    spoilt = CONTROLS[name](runs, options.seed)
    how = {**options.how, "scores": names_of(spoilt), "simultaneous": 1}
    loss = max(options.losses.values())
    return certify_stop(
        spoilt, loss, options.delta, kind=kind_of(runs), seed=options.seed, **how
    )  # fmt: skip


def outcome_of(table: Table, plan: StopPlan) -> Outcome:
    """What a plan does to many runs at once: what `replay` says of each, as arrays."""
    settled, hopeless = plan.settled, plan.hopeless
    rule: Any = hopeless or settled
    ahead = Ahead.of(table, settled if hopeless else None)
    return outcome(table, course_of(table, rule), np.array([bar_of(rule)]), ahead, rule.level)


def setting_of(
    chosen: Sequence[Case], certificates: Mapping[str, StopCertificate], options: Options
) -> Setting:
    """What baselines see: the same runs, and what the rule under study takes on them."""
    setting = Setting(
        chosen, options.budget, options.bits, min(options.losses.values()), seed=options.seed
    )
    name = compared_of(certificates)
    setting = replace(setting, max_loss=options.losses[name])
    plan = certificates[name].plan
    if plan is None:
        return setting
    ends = [planned(plan)(case) for case in chosen]
    return replace(
        setting,
        ends=float(np.mean([end.index is not None for end in ends])),
        spent=float(np.mean([end.tokens + end.probe_tokens for end in ends])),
    )


def compared_of(certificates: Mapping[str, StopCertificate]) -> str:
    """The preset that the budget-matched baselines are matched with."""
    return COMPARED if COMPARED in certificates else next(iter(certificates))


def baseline_rules(setting: Setting, test: Sequence[Case], names: Sequence[str]) -> dict[str, Rule]:
    """The baselines by name; those that need what was not kept are left out."""
    kept = all(case.chunks is not None for case in test)
    return {name: BASELINES[name](setting) for name in names if kept or name not in NEEDS_CHUNKS}


def lines_of(rules: Mapping[str, Rule], test: Sequence[Case], options: Options) -> list[Line]:
    """Every rule on the same runs."""
    runs = [case.run for case in test]
    again = Resample([run.group or run.id or str(i) for i, run in enumerate(runs)], options.draws)
    return [
        line_of(name, runs, [rule(case) for case in test], again) for name, rule in rules.items()
    ]


def line_of(name: str, runs: Sequence[LoggedRun], ends: Sequence[Exit], again: Resample) -> Line:
    """One rule on its runs."""
    judged = all(run.right is not None for run in runs)
    pairs = list(zip(runs, ends, strict=True))
    tokens = np.array([end.tokens for end in ends])
    probes = np.array([end.probe_tokens for end in ends])
    lost = {
        level: again.share([end.finish == level and loses(run, end) for run, end in pairs])
        for level in LEVELS
    }
    return Line(
        name,
        len(runs),
        again.share([bool(end.right) for end in ends]) if judged else None,
        again.mean(tokens),
        again.mean(probes),
        again.saved(tokens + probes, [run.tokens for run in runs]),
        again.share([loses(run, end) for run, end in pairs]) if judged else None,
        again.share([end.answer != run.answer for run, end in pairs]),
        again.share([end.finish == "settled" and end.index is not None for end in ends]),
        again.share([end.finish == "hopeless" for end in ends]),
        lost,
    )
