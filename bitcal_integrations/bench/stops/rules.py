"""Other ways to end a run early, each as a pure function of a logged run: the baselines of a study.

A maker sees the runs that rules may be chosen on, and gives a function from a run to its end.
Where a rule can be written as a StopPlan it is one, so that it is replayed by the code that the
live loop runs. None of them promises anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple, TypeAlias

import numpy as np

from bitcal_integrations.bench.stops.bitcal_tts import Chunk, Controller
from bitcal_integrations.decide.stop import Checkpoint, Exit, LoggedRun, StopPlan, StopRule, replay

WEAK = 0.1  # share of the runs whose lowest mean log-probability DeepConf takes for a bad sign
SURE = 0.95  # DEER's confidence of a trial answer
ALIKE = 3  # trial answers in a row that agree, after Dynasor
STEP, CALMEST = 0.2, 2  # EAT: weight of the newest entropy, and trials before it may end a run
ANSWER_AT = 292  # tokens to a complete answer in the runs that BitCal-TTS's floor was chosen for


class Case(NamedTuple):
    """A logged run, and what BitCal-TTS would have looked at (None where that was not kept)."""

    run: LoggedRun
    chunks: tuple[Chunk, ...] | None = None


@dataclass(frozen=True)
class Setting:
    """What baselines may be chosen by: runs to choose on, and what is compared with.

    `budget` is max_new_tokens, `bits` those of the weights; `max_loss` is what a tuned threshold
    may lose on `runs`; `ends` is the share of runs that the rule under study ends early, and
    `spent` the tokens a run that it takes.
    """

    cases: Sequence[Case]
    budget: int
    bits: int = 16
    max_loss: float = 0.02
    ends: float = 0.5
    spent: float = 0.0
    seed: int = 0

    @property
    def runs(self) -> list[LoggedRun]:
        return [case.run for case in self.cases]

    @property
    def length(self) -> float:
        """Mean tokens of a full run."""
        return float(np.mean([run.tokens for run in self.runs]))


Rule: TypeAlias = Callable[[Case], Exit]


def end_at(run: LoggedRun, at: int | None, asked: Iterable[int] = ()) -> Exit:
    """The end of a run with the trial answer of a checkpoint; `asked` are all that had a trial.

    Without a checkpoint, or without an answer there, it is the run's own end.
    """
    asked = set(asked)
    trial = None if at is None else run.checkpoints[at].trial
    if at is None or trial is None or trial.answer is None:
        probes = sum(_trial_tokens(run, place) for place in asked)
        return Exit(None, run.finish, run.tokens, probes, run.answer, run.right)
    probes = sum(_trial_tokens(run, place) for place in asked - {at})
    tokens = run.checkpoints[at].tokens + trial.tokens
    return Exit(at, "settled", tokens, probes, trial.answer, run.right_of(at))


def _trial_tokens(run: LoggedRun, at: int) -> int:
    trial = run.checkpoints[at].trial
    return trial.tokens if trial is not None else 0


def planned(plan: StopPlan | None) -> Rule:
    """The rule of a plan; without one every run comes to its own end."""
    return lambda case: end_at(case.run, None) if plan is None else replay(case.run, plan)


def full(setting: Setting) -> Rule:
    """Every run to its own end: where the answer is complete."""
    return planned(None)


def fixed(setting: Setting) -> Rule:
    """A token budget, then the answer is asked for: the budget that costs what is compared with."""
    budgets = sorted({p.tokens + _trial_tokens(r, i) for r, i, p in _places(setting)})
    if not budgets:
        return full(setting)
    spent = setting.spent or setting.length / 2
    low, high = 0, len(budgets) - 1
    while low < high:  # what it costs grows with the budget
        middle = (low + high + 1) // 2
        costs = np.mean([within(run, budgets[middle]).tokens for run in setting.runs])
        low, high = (middle, high) if costs <= spent else (low, middle - 1)
    return lambda case: within(case.run, budgets[low])


def _places(setting: Setting) -> Iterable[tuple[LoggedRun, int, Checkpoint]]:
    return ((run, i, place) for run in setting.runs for i, place in enumerate(run.checkpoints))


def within(run: LoggedRun, budget: int) -> Exit:
    """The end of a run that may take so many tokens, the closing text and the answer among them.

    Where not even the first checkpoint leaves room, it ends there.
    """
    if run.tokens <= budget:
        return end_at(run, None)
    ends = [place.tokens + _trial_tokens(run, i) for i, place in enumerate(run.checkpoints)]
    places = [i for i, end in enumerate(ends) if end <= budget]
    return end_at(run, places[-1] if places else (0 if ends else None))


def at_random(setting: Setting) -> Rule:
    """As many runs as what is compared with, each at a checkpoint drawn at random."""

    def rule(case: Case) -> Exit:
        rng, places = Random(f"{setting.seed} {case.run.id}"), len(case.run.checkpoints)
        ends = places > 0 and rng.random() < setting.ends
        return end_at(case.run, rng.randrange(places) if ends else None)

    return rule


def deepconf(setting: Setting) -> Rule:
    """Gives a run up when its lowest mean log-probability falls among the lowest tenth of runs'."""
    known = [low for run in setting.runs if (low := _lowest(run)) is not None]
    if not known:
        return full(setting)
    bound = float(np.quantile(known, WEAK))
    return planned(StopPlan(hopeless=StopRule("hopeless", "lowest", bound)))


def _lowest(run: LoggedRun) -> float | None:
    found = [place.scores.get("lowest") for place in run.checkpoints]
    return min((low for low in found if low is not None), default=None)


def deer(setting: Setting) -> Rule:
    """A trial answer at every checkpoint; ends where its probability is 0.95 or more."""
    return planned(StopPlan(StopRule("settled", "trial_probability", SURE)))


def tuned(setting: Setting) -> Rule:
    """The same with the lowest threshold that kept the loss on the runs that it was chosen on."""
    probabilities = [
        trial.scores["trial_probability"]
        for run in setting.runs
        for place in run.checkpoints
        if (trial := place.trial) is not None and "trial_probability" in trial.scores
    ]
    if not probabilities:
        return full(setting)
    for bar in np.unique(np.quantile(probabilities, np.linspace(0.02, 0.98, 25))).tolist():
        rule = planned(StopPlan(StopRule("settled", "trial_probability", bar)))
        if _loss(setting, rule) <= setting.max_loss:
            return rule
    return full(setting)


def _loss(setting: Setting, rule: Rule) -> float:
    ends = [(case.run, rule(case)) for case in setting.cases]
    return float(np.mean([loses(run, end) for run, end in ends]))


def loses(run: LoggedRun, end: Exit) -> bool:
    """Whether the full run was right and this end is not; without labels, whether it differs."""
    if run.right is None:
        return end.answer != run.answer
    return bool(run.right) and not end.right


def dynasor(setting: Setting) -> Rule:
    """A trial answer at every checkpoint; ends where three in a row agree."""
    return planned(StopPlan(StopRule("settled", "trial_agreement", ALIKE)))


def eat(setting: Setting) -> Rule:
    """Ends where the entropy after the closing text has come to rest: its moving variance is low.

    How low is chosen as for `tuned`, because the published bound is for other models.
    """
    spreads = [s for run in setting.runs for s in unrest(run)[CALMEST - 1 :] if s is not None]
    if not spreads:
        return full(setting)
    for bound in np.unique(np.quantile(spreads, np.linspace(0.98, 0.02, 25)))[::-1].tolist():
        rule = _resting(bound)
        if _loss(setting, rule) <= setting.max_loss:
            return rule
    return full(setting)


def _resting(bound: float) -> Rule:
    def rule(case: Case) -> Exit:
        spreads = unrest(case.run)
        for at in range(CALMEST - 1, len(spreads)):
            spread, trial = spreads[at], case.run.checkpoints[at].trial
            if (
                spread is not None
                and spread <= bound
                and trial is not None
                and trial.answer is not None
            ):
                return end_at(case.run, at, range(at + 1))
        return end_at(case.run, None, range(len(spreads)))

    return rule


def unrest(run: LoggedRun) -> list[float | None]:
    """The moving variance of the trial answers' first entropy, at each checkpoint."""
    mean, spread, seen = 0.0, 0.0, 0
    found: list[float | None] = []
    for place in run.checkpoints:
        value = place.trial.scores.get("trial_entropy") if place.trial else None
        if value is None:
            found.append(None)
            continue
        seen += 1
        mean = value if seen == 1 else (1 - STEP) * mean + STEP * value
        spread = (1 - STEP) * spread + STEP * (value - mean) ** 2
        found.append(spread / (1 - (1 - STEP) ** seen))
    return found


def bitcal_tts(setting: Setting, floor: int = 128) -> Rule:
    """The controller of BitCal-TTS with its released constants."""
    controller = Controller(setting.bits, setting.budget, floor)

    def rule(case: Case) -> Exit:
        at = None if case.chunks is None else controller.stop(case.chunks)
        if at is None or case.chunks is None or case.chunks[at].tokens >= case.run.tokens:
            return end_at(case.run, None)
        chunk = case.chunks[at]
        right = None if case.run.right is None else bool(chunk.right)
        return Exit(at, "settled", chunk.tokens, 0, chunk.answer, right)

    return rule


def bitcal_tts_scaled(setting: Setting) -> Rule:
    """The same with its floor shortened as these runs are shorter than those it was chosen for."""
    return bitcal_tts(setting, round(128 * setting.length / ANSWER_AT))


BASELINES: dict[str, Callable[[Setting], Rule]] = {
    "L0": full,
    "fixed budget": fixed,
    "random": at_random,
    "DeepConf": deepconf,
    "Dynasor, 3 alike": dynasor,
    "DEER, p >= .95": deer,
    "EAT, tuned": eat,
    "DEER, tuned": tuned,
    "BitCal-TTS": bitcal_tts,
    "BitCal-TTS, scaled": bitcal_tts_scaled,
}
NEEDS_CHUNKS = ("BitCal-TTS", "BitCal-TTS, scaled")
