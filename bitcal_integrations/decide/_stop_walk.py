"""One set of logged runs, studied: the paths from its fit part, and the walk on its certify part.

It finds what a StopCertificate says. The certify part is read by tests of rules that the fit part
has put in order, by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bitcal_integrations.calibrators import Calibrator, fit_calibrator
from bitcal_integrations.decide import _binomial, _path
from bitcal_integrations.decide._stop_certificate import StopCertificate
from bitcal_integrations.decide._stop_learn import candidates, learned, risk_of
from bitcal_integrations.decide._stop_path import Fit, Point, outcome, path_of
from bitcal_integrations.decide._stop_plan import StopPlan
from bitcal_integrations.decide._stop_rule import Level, StopRule
from bitcal_integrations.decide._stop_table import Ahead, Array, Outcome, Table, bar_of, course_of
from bitcal_integrations.decide.logged import LoggedRun
from bitcal_integrations.metrics import Z95, group_numbers

EXITS = 30  # settled runs of the fit part below which no calibrator is fitted


class Walked(NamedTuple):
    """How far a walk came: the last rule that passed, or why there is none."""

    rule: StopRule | None
    losses: int
    reason: str = ""
    runs_needed: int | None = None


class Study:
    """Runs in two parts, and the path of each level, laid once for all targets."""

    def __init__(
        self, runs: Sequence[LoggedRun], fit: Array, certify: Array, kind: str,
        scores: Sequence[str] | None, frame: StopPlan, source: str, seed: int,
    ) -> None:  # fmt: skip
        table = Table.of(runs, kind)
        self.fit, self.certify = table.rows(fit), table.rows(certify)
        self.names = candidates(table, scores)
        self.groups = group_numbers([runs[i].group or f"row {i}" for i in fit.tolist()], fit.size)
        self.kind, self.unit, self.frame = kind, runs[0].unit, frame
        self.source, self.seed = source, seed
        self._weights: dict[str, dict[str, Any]] = {}
        self._paths: dict[str, list[Point]] = {}

    def certificate(
        self, max_loss: float, delta: float, many: int, levels: tuple[Level, ...]
    ) -> StopCertificate:
        """The cheapest plan that keeps `max_loss` at each level, or none."""
        share, found = delta / len(levels) / many, {}
        likely = self._likely(max_loss) if "settled" in levels else None
        for level in levels:
            beside = likely if level == "hopeless" else None
            found[level] = self.walk(level, beside, max_loss, share)
        rules = {level: walked.rule for level, walked in found.items()}
        common: dict[str, Any] = {
            "max_loss": max_loss, "delta": delta, "n": len(self.certify.length),
            "losses": {level: walked.losses for level, walked in found.items()},
            "kind": self.kind, "unit": self.unit, "levels": levels, "label_source": self.source,
            "fitted": len(self.fit.length), "simultaneous": many,
            "reason": "; ".join(f"{k}: {w.reason}" for k, w in found.items() if w.reason),
        }  # fmt: skip
        if not any(rules.values()):
            needed = [w.runs_needed for w in found.values() if w.runs_needed is not None]
            common["runs_needed"] = min(needed, default=None)
            return StopCertificate(None, **common)
        return self._with_plan(rules, common)

    def _with_plan(self, rules: dict[Any, Any], common: dict[str, Any]) -> StopCertificate:
        out = self._outcome(self.certify, rules)
        saved, low, high = saving(out.spent[0], self.certify.length)
        ends = {"settled": out.settled, "hopeless": out.hopeless}
        told: dict[str, Any] = {
            "ended": {level: float(ends[level].mean()) for level in rules},
            "saved": saved, "saved_low": low, "saved_high": high,
        }  # fmt: skip
        keys = ("max_loss", "delta", "n", "losses", "kind", "unit", "label_source", "simultaneous")
        promise = {key: common[key] for key in keys} | told
        promise["losses"] = {k: v for k, v in common["losses"].items() if rules[k] is not None}
        plan = replace(self.frame, promise=promise, **rules)
        calibrator = self._calibrator(rules.get("settled"))
        return StopCertificate(plan, calibrator=calibrator, **common, **told)

    def _outcome(self, table: Table, rules: dict[Any, Any]) -> Outcome:
        settled, hopeless = rules.get("settled"), rules.get("hopeless")
        rule: Any = hopeless or settled
        ahead = Ahead.of(table, settled if hopeless else None)
        bars = np.array([bar_of(rule)])
        return outcome(table, course_of(table, rule), bars, ahead, rule.level)

    def _likely(self, max_loss: float) -> StopRule | None:
        """The rule for settled answers that the fit part expects to be certified."""
        kept = [point.rule for point in self.path("settled", None) if point.loss <= max_loss]
        return kept[-1] if kept else None

    def walk(self, level: Level, beside: StopRule | None, max_loss: float, delta: float) -> Walked:
        """Along the path of a level until the first rule that fails its test.

        A rule is tested as if there were no other level, where it loses at least as much as beside
        one: which rule there will be beside it hangs on the same runs, so no exact test allows for
        it. `beside` comes from the fit part, and only orders the path.
        """
        n, last = len(self.certify.length), None
        fewest = _binomial.error_free(max_loss, delta)
        if n < fewest:
            return Walked(
                None, 0, f"{n} runs to test are too few: a loss of {max_loss:g} needs {fewest} "
                "without one", self._all(_path.labels_needed(max_loss, delta, ranked=False)),
            )  # fmt: skip
        alone = Ahead.of(self.certify, None)
        for rule, _, _ in self.path(level, beside):
            bars = np.array([bar_of(rule)])
            out = outcome(self.certify, course_of(self.certify, rule), bars, alone, level)
            losses = int(out.lost.sum())
            if _binomial.cdf(losses, n, max_loss) > delta:
                return self._failed(losses, n, max_loss, delta) if last is None else last
            last = Walked(rule, losses)
        return last or Walked(None, 0, "no rule saves tokens on the runs that chose rules")

    def _failed(self, losses: int, n: int, max_loss: float, delta: float) -> Walked:
        rate = (losses + 0.5) / (n + 1)
        needed = None
        if rate < max_loss:
            needed = self._all(max(_path.labels_to_begin(max_loss, delta, rate, True), n + 1))
        return Walked(
            None, losses, f"{losses} of {n} runs lost already under the most careful rule, too "
            f"many to rule out a loss above {max_loss:g}", needed,
        )  # fmt: skip

    def _all(self, tested: int) -> int:
        """How many runs give so many to test."""
        whole = len(self.certify.length) + len(np.unique(self.groups))
        return int(np.ceil(tested * whole / max(len(self.certify.length), 1)))

    def path(self, level: Level, beside: StopRule | None) -> list[Point]:
        key = repr((level, beside))
        if not self.fit.length.size:
            return []
        if key not in self._paths:
            weights = self._learned(level)
            risk, ahead = risk_of(self.fit, level, weights), Ahead.of(self.fit, beside)
            self._paths[key] = path_of(Fit(self.fit, level, self.names, weights, risk, ahead))
        return self._paths[key]

    def _learned(self, level: Level) -> dict[str, Any]:
        if level not in self._weights:
            self._weights[level] = learned(self.fit, level, self.names, self.seed)
        return self._weights[level]

    def _calibrator(self, rule: StopRule | None) -> Calibrator | None:
        """P(right) of a settled answer from the score that settled it, from the fit part's."""
        if rule is None:
            return None
        at = Ahead.of(self.fit, rule).at
        rows = np.flatnonzero(at < self.fit.there.shape[1])
        score = self.fit.value(rule, rule.score, self.fit.looks(rule))[rows, at[rows]]
        right = self.fit.right[rows, at[rows]]
        known = np.isfinite(right)
        score, right, groups = score[known], right[known], self.groups[rows][known]
        if np.unique(groups).size < EXITS or right.min() == right.max():
            return None
        return fit_calibrator(score[:, None], right, (rule.score,), "logistic", groups=groups)


def saving(spent: Array, length: Array) -> tuple[float, float, float]:
    """The share of all tokens that is saved, with its 95% interval over runs.

    >>> saving(np.array([5.0, 5.0]), np.array([10.0, 10.0]))
    (0.5, 0.5, 0.5)
    """
    ratio = float(spent.sum() / length.sum())
    spread = float(np.std(spent - ratio * length) / np.sqrt(spent.size) / length.mean())
    return 1 - ratio, 1 - ratio - Z95 * spread, 1 - ratio + Z95 * spread
