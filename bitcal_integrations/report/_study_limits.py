"""What a study of weight types cannot show, and where its numbers mislead, as sentences.

Knows how numbers read. Computes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitcal_integrations.paired import FEW
from bitcal_integrations.report.words import count, percent

if TYPE_CHECKING:
    from bitcal_integrations.studied import Result, Study

# Fewer groups, and intervals are too narrow: on simulated answers they held the truth in .90 of all
# cases with 25 groups, and in .94 with 50.
SMALL = 50
CLEARLY = 0.02  # more right by this, and a lower Brier score does not make the better model
FAR = 0.1  # the same for one that is larger, which may cost some right answers
MANY = 0.02  # of all questions without a score: the scores of the others tell another story
# Questions to fit a calibrator: with fewer, its luck is more than the interval of a difference of
# calibrated scores allows for. Simulated: two alike scores, eight features, as many to measure.
FITTED = 400
LUCK = ".22 of simulated studies with 50 of them, in .12 with 100, and in .08 with 400"


def _whole(s: Study) -> list[Result]:
    return [r for r in s.results if not r.error]


def warnings(s: Study) -> list[str]:
    """What the data cannot show, and what could not be measured."""
    found = [f"{r.name} could not be measured: {r.error}" for r in s.results if r.error]
    found += [f"{r.name} is not calibrated ({r.calibrator.removeprefix('none: ')})."
              for r in _whole(s) if r.calibrated is None]  # fmt: skip
    found += [line for r in _whole(s) for line in _left_out(r, s)]
    found += filter(None, (_reliably_wrong(r, s) for r in _whole(s) if r.front))
    found += _one_sided(s)
    if s.groups >= FEW and s.fit < FITTED and any(r.calibrated for r in s.results):
        found.append(
            f"{count(s.fit, 'question')} to fit each calibrator are few, and their luck is in no "
            "interval: of two variants that were alike, calibrated scores differed clearly in "
            f"{LUCK}."
        )
    if s.groups < FEW:
        found.append(
            f"With {count(s.groups, 'group')} to measure there are no intervals: every difference "
            f"here may be chance. At least {FEW} are needed, {SMALL} or more are better."
        )
    elif s.groups < SMALL:
        found.append(
            f"{count(s.groups, 'group')} to measure are few: intervals are wide, and somewhat too "
            f"narrow for what they claim. {SMALL} or more are better."
        )
    return found


def _left_out(r: Result, s: Study) -> list[str]:
    """What counts in some of a variant's numbers and not in others."""
    found = []
    if r.failed:
        found.append(f"{r.name}: {_of(r.failed, s)} failed, and count nowhere.")
    if r.unknown - r.failed > MANY * s.measured:
        found.append(
            f"{r.name}: {_of(r.unknown - r.failed, s)} have no answer or no score: they count in "
            "the share right, and its other numbers, the place on the front too, are of the rest."
        )
    return found


def _of(n: int, s: Study) -> str:
    return f"{count(n)} of {count(s.measured, 'measured question')}"


def _one_sided(s: Study) -> list[str]:
    """Where nearly all answers are right, or nearly all are wrong, few of them tell much."""
    names = [r.name for r in _whole(s) if r.columns and r.raw and r.columns.rarer("raw") < FEW]
    if not names or s.groups < FEW:
        return []
    return [
        f"{', '.join(names)}: fewer than {FEW} groups hold a right answer, or fewer than {FEW} a "
        "wrong one. There is no interval for AUROC then, and those for the Brier score and NLL are "
        "too narrow."
    ]


def _reliably_wrong(r: Result, s: Study) -> str:
    """A low Brier score can come from answers that are known to be wrong."""
    more = {o.name: (o.accuracy or 0) - (r.accuracy or 0) for o in _whole(s)}
    better = [
        o for o in _whole(s)
        if (more[o.name] > CLEARLY and _no_larger(o, r)) or (more[o.name] > FAR and _put_off(o, r))
    ]  # fmt: skip
    if not better:
        return ""
    best = max(better, key=lambda o: o.accuracy or 0)
    which = "which is no larger" if _no_larger(best, r) else "which it puts off the front"
    return (
        f"{r.name} is on the front by its Brier score alone: {best.name}, {which}, has "
        f"{percent(best.accuracy)} right, and {r.name} {percent(r.accuracy)}."
    )


def _no_larger(o: Result, r: Result) -> bool:
    return o.bytes is not None and r.bytes is not None and o.bytes <= r.bytes


def _put_off(o: Result, r: Result) -> bool:
    """Whether one would be on the front but for another, which is no larger."""
    if o.front or o.calibrated is None or r.calibrated is None or not _no_larger(r, o):
        return False
    return bool(r.calibrated.numbers["brier"] <= o.calibrated.numbers["brier"])
