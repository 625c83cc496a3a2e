"""replay: what a plan would have done to a run that was logged to its end.

It calls the rules checkpoint by checkpoint, as the live loop does, and shows them only the trial
answers that they have asked for. It knows no model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from bitcal_integrations.decide._stop_plan import StopPlan
from bitcal_integrations.decide.logged import Checkpoint, LoggedRun
from bitcal_integrations.errors import CalibrationError


@dataclass(frozen=True)
class Exit:
    """How a run ends under a plan.

    `index` is the checkpoint where it ends, None at its own end. `tokens` is the length of the text
    (with the closing text and the answer, if settled), `probe_tokens` what trial answers took
    beside it. `right` is None where nobody knows; a run that was given up has no answer and is not
    right.
    """

    index: int | None
    finish: str
    tokens: int
    probe_tokens: int
    answer: str | None
    right: bool | None


def replay(run: LoggedRun, plan: StopPlan) -> Exit:
    """What the live loop would do with this run under this plan.

    >>> from bitcal_integrations.decide._stop_rule import StopRule
    >>> from bitcal_integrations.decide.logged import Trial
    >>> trials = [Trial("4", {"trial_probability": p}, 3) for p in (0.6, 0.95)]
    >>> places = tuple(Checkpoint(10 * i, {}, t) for i, t in enumerate(trials, 1))
    >>> run = LoggedRun(places, 50, "4", True, (True, True))
    >>> replay(run, StopPlan(StopRule("settled", "trial_probability", 0.9)))
    Exit(index=1, finish='settled', tokens=23, probe_tokens=3, answer='4', right=True)
    """
    seen: list[Checkpoint] = []
    probes = 0
    for at, place in enumerate(run.checkpoints):
        seen.append(dataclasses.replace(place, trial=None))
        verdict = plan.verdict(seen)
        if verdict == "trial":
            if place.trial is None:
                raise CalibrationError(
                    f"run {run.id!r} has no trial answer at checkpoint {at}, where the plan asks "
                    "for one; only runs logged with StopPlan(log=True) can be replayed"
                )
            seen[-1] = place
            verdict = plan.verdict(seen)
            probes += place.trial.tokens if verdict != "settled" else 0
        if verdict in ("settled", "hopeless"):
            return _exit(run, at, verdict, probes)
    return Exit(None, run.finish, run.tokens, probes, run.answer, run.right)


def _exit(run: LoggedRun, at: int, finish: str, probes: int) -> Exit:
    place = run.checkpoints[at]
    if finish == "hopeless":
        right = None if run.right is None else False
        return Exit(at, finish, place.tokens, probes, None, right)
    assert place.trial is not None
    tokens = place.tokens + place.trial.tokens
    return Exit(at, finish, tokens, probes, place.trial.answer, run.right_of(at))
