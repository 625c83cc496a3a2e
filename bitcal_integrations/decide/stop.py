"""When a run may end early, with a promise: logged runs -> the cheapest rule that is certified.

Learn-then-Test. Some runs, the fit part, lay one path of rules from careful to bold; the others
test its rules in that order, each by an exact binomial test at delta, until the first failure. The
last rule that passed is the cheapest one with the promise. It knows numbers and answers, no model:
a rule is replayed on runs that were logged to their end, by the code that the live loop runs.

The loss is against the full run, so that the promise speaks of what stopping costs, not of
correctness. It need not grow with the threshold, which is why rules are tested one by one. It holds
for runs drawn like these: same model, weights, prompt template and decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np

from bitcal_integrations.decide._check import as_share, one_per_group
from bitcal_integrations.decide._stop_certificate import StopCertificate
from bitcal_integrations.decide._stop_plan import StopPlan
from bitcal_integrations.decide._stop_replay import Exit, replay
from bitcal_integrations.decide._stop_rule import LEVELS, Level, StopRule, check_whole
from bitcal_integrations.decide._stop_walk import Study
from bitcal_integrations.decide.accept import _is_list as is_list
from bitcal_integrations.decide.accept import _simultaneous as as_many
from bitcal_integrations.decide.logged import Checkpoint, LoggedRun, Trial
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.metrics import group_numbers

__all__ = [
    "PRESETS",
    "Checkpoint",
    "Exit",
    "LoggedRun",
    "StopCertificate",
    "StopPlan",
    "StopRule",
    "Trial",
    "certify_stop",
    "replay",
]

PRESETS = {"conservative": 0.01, "balanced": 0.02, "fast": 0.05}
KINDS = ("wrong", "changed")
FIT_SHARE = 0.4  # of the runs, to choose rules; the promise needs the others


@overload
def certify_stop(
    runs: Sequence[LoggedRun], max_loss: float = 0.02, delta: float = 0.1, *,
    kind: Literal["wrong", "changed"] = "wrong", levels: Sequence[Level] = ("settled",),
    scores: Sequence[str] | None = None, closing: str | None = None,
    spacing: Literal["line", "sentence"] | int | None = None, answer_tokens: int | None = None,
    label_source: str = "labels", simultaneous: int | bool = 1, seed: int = 0,
) -> StopCertificate: ...  # fmt: skip


@overload
def certify_stop(
    runs: Sequence[LoggedRun], max_loss: Sequence[float], delta: float = 0.1, *,
    kind: Literal["wrong", "changed"] = "wrong", levels: Sequence[Level] = ("settled",),
    scores: Sequence[str] | None = None, closing: str | None = None,
    spacing: Literal["line", "sentence"] | int | None = None, answer_tokens: int | None = None,
    label_source: str = "labels", simultaneous: int | bool = 1, seed: int = 0,
) -> tuple[StopCertificate, ...]: ...  # fmt: skip


def certify_stop(
    runs: Sequence[LoggedRun],
    max_loss: float | Sequence[float] = 0.02,
    delta: float = 0.1,
    *,
    kind: Literal["wrong", "changed"] = "wrong",
    levels: Sequence[Level] = ("settled",),
    scores: Sequence[str] | None = None,
    closing: str | None = None,
    spacing: Literal["line", "sentence"] | int | None = None,
    answer_tokens: int | None = None,
    label_source: str = "labels",
    simultaneous: int | bool = 1,
    seed: int = 0,
) -> StopCertificate | tuple[StopCertificate, ...]:
    """The cheapest rule for ending runs early that loses at most `max_loss`, promised at 1 - delta.

    `kind` "wrong": a run loses where its full length was right and its early end is not; "changed"
    needs no labels: where the early end gives another answer than the full length. With the level
    "hopeless" runs that will not come right are given up, beside those that settle; a run loses
    there if its full length was right. Each level keeps `max_loss` by itself; delta is split.
    `scores` limits rules to these of the runs' scores. `closing` ("#### "), `spacing` ("line") and
    `answer_tokens` (24) are needed only for runs that do not say how they were logged; another one
    than they say is refused, because nothing was measured with it. Runs of one group stay together
    and count once. A list of max_loss gives one certificate each; `simultaneous` of them hold
    together (True: the list), each tested at delta / simultaneous. `seed` draws the fit part, 40%
    of the groups, and one run of each group.

    >>> def run(i):
    ...     trials = [Trial(str(i), {"trial_probability": 0.99 - i / 1e4}, 2) for _ in range(3)]
    ...     places = tuple(Checkpoint(10 * n, {}, t) for n, t in enumerate(trials, 1))
    ...     return LoggedRun(places, 40, str(i), True, (True,) * 3, id=str(i))
    >>> certificate = certify_stop([run(i) for i in range(400)], max_loss=0.02)
    >>> certificate.saved > 0.5, certificate.losses
    (True, {'settled': 0})
    """
    targets: Any = max_loss if is_list(max_loss) else (max_loss,)
    wanted = [as_share("max_loss", target) for target in targets]
    if not wanted:
        raise BadRequest("max_loss=[] is not allowed: name at least one share of runs")
    many = as_many(simultaneous, len(wanted) if is_list(max_loss) else None)
    runs, levels = _checked(runs, kind, levels), _levels(levels)
    check_whole("seed", seed, 0)
    frame = _frame(runs, closing=closing, spacing=spacing, answer_tokens=answer_tokens)
    source = _source(label_source, kind)
    fit, certify = _split(runs, seed)
    study = Study(runs, fit, certify, kind, _scores(scores), frame, source, seed)
    made = tuple(
        study.certificate(target, as_share("delta", delta), many, levels) for target in wanted
    )
    return made if is_list(max_loss) else made[0]


def _checked(runs: Any, kind: str, levels: Any) -> list[LoggedRun]:
    """The runs, refused where nothing can be learned from them."""
    if kind not in KINDS:
        raise BadRequest(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    if not isinstance(runs, Iterable):
        raise BadRequest(f"runs={runs!r:.80} is not a list of LoggedRuns")
    runs = list(runs)
    for at, run in enumerate(runs):
        if not isinstance(run, LoggedRun):
            raise BadRequest(f"runs[{at}] is {run!r:.80}, not a LoggedRun")
    units = sorted({run.unit for run in runs})
    if len(units) != 1:
        raise CalibrationError(f"runs hold {' and '.join(units) or 'nothing'}: one unit is needed")
    if not any(run.checkpoints for run in runs):
        raise CalibrationError(f"none of the {len(runs)} runs has a checkpoint to end at")
    for run in runs:
        _check_run(run, kind, "settled" in levels)
    return runs


def _check_run(run: LoggedRun, kind: str, settles: bool) -> None:
    if kind == "wrong" and run.right is None:
        raise CalibrationError(
            f"nobody knows whether run {run.id!r} is right",
            "Label the runs, or use kind='changed', which needs no labels.",
        )
    if run.tokens <= 0:
        raise CalibrationError(f"run {run.id!r} has tokens={run.tokens!r}; it needs some")
    bare = [at for at, place in enumerate(run.checkpoints) if place.trial is None]
    if settles and bare:
        raise CalibrationError(
            f"run {run.id!r} has no trial answer at checkpoint {bare[0]}: a run that ends there "
            "needs one",
            "Log the runs with StopPlan(log=True).",
        )


def _frame(runs: Sequence[LoggedRun], **given: Any) -> StopPlan:
    """The plan without rules: its trial answers are asked for as those of the runs were."""
    found = {name: value for name, value in given.items() if value is not None}
    StopPlan(**found)  # refuses what is not allowed
    for run in runs:
        for name in filter(run.asked.__contains__, given):
            if found.setdefault(name, value := run.asked[name]) != value:
                raise CalibrationError(
                    f"{name}={found[name]!r}, but run {run.id!r} was logged with {value!r}",
                    "A promise holds only for runs that were logged as the plan will ask.",
                )
    return StopPlan(**found)


def _levels(levels: Any) -> tuple[Level, ...]:
    given = (levels,) if isinstance(levels, str) else tuple(levels)
    if not given or any(level not in LEVELS for level in given) or len(set(given)) < len(given):
        raise BadRequest(f"levels={levels!r} must be one or both of {', '.join(LEVELS)}")
    return tuple(level for level in ("settled", "hopeless") if level in given)


def _scores(scores: Any) -> tuple[str, ...] | None:
    if scores is None:
        return None
    if isinstance(scores, str) or not all(isinstance(name, str) for name in scores):
        raise BadRequest(f"scores={scores!r:.80} must be a list of names of scores")
    return tuple(scores)


def _source(label_source: Any, kind: str) -> str:
    if label_source != "labels" and not str(label_source).startswith("teacher"):
        raise BadRequest(
            f"label_source={label_source!r} is not 'labels', 'teacher' or 'teacher: NAME'"
        )
    return "none" if kind == "changed" else str(label_source)


def _split(runs: Sequence[LoggedRun], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the fit part, and one row a group of the certify part; no group is in both."""
    names = [run.group or (f"id {run.id}" if run.id else f"row {i}") for i, run in enumerate(runs)]
    groups = group_numbers(names, len(runs))
    count = int(groups.max()) + 1
    drawn = np.random.default_rng(seed).permutation(count)[: round(FIT_SHARE * count)]
    fits = np.isin(groups, drawn)
    fit, certify = np.flatnonzero(fits), np.flatnonzero(~fits)
    return fit, certify[one_per_group(groups[certify], certify.size, seed)]
