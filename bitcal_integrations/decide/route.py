"""Which answers to hand to a bigger model: the gain is learnt, the costs are counted.

`fit_router` learns P(big right) - P(small right) from answers of both models to the same
questions; `Router.policy` cuts it where a rule says. An escalated query pays both models. Of the
labelled rows a part is held out, unseen by the gain model, for the promise of `max_regret`. It
knows features as columns of numbers; the calibrator of the small model plays no part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bitcal_integrations.calibrators._check import refuse_huge, refuse_part
from bitcal_integrations.decide import _gain, _rules
from bitcal_integrations.decide._check import as_labels, as_numbers, is_number, one_per_group
from bitcal_integrations.decide._curve import Point, cut, deferral
from bitcal_integrations.decide._router_policy import RouterPolicy
from bitcal_integrations.decide.policy import Unknown
from bitcal_integrations.errors import BadRequest, CalibrationError
from bitcal_integrations.metrics import group_numbers

Array: TypeAlias = np.ndarray
FOLDS = 5
FEWEST = 50  # rows (or groups) below which neither the gain nor its error can be estimated
VERSION = 1


@dataclass(frozen=True)
class Router:
    """A fitted gain model with its deferral curve, costs per query, and the held-out rows.

    `small_accuracy` and `big_accuracy` are shares over the `n` rows that were fitted on;
    `held_gain` and `held_diff` (y_big - y_small) are those of the held-out rows.
    """

    names: tuple[str, ...]
    model: _gain.GainModel
    curve: tuple[Point, ...]
    path: tuple[float | None, ...]
    held_gain: tuple[float, ...]
    held_diff: tuple[int, ...]
    small_accuracy: float
    big_accuracy: float
    cost_small: float
    cost_big: float
    n: int

    def gain(self, x: Any) -> Array:
        """(n,) predicted P(big right) - P(small right); NaN where a feature is missing."""
        return self.model(features(x, len(self.names)))

    def policy(
        self,
        *,
        match_big: bool = False,
        max_escalation: float | None = None,
        max_cost: float | None = None,
        max_regret: float | None = None,
        delta: float = 0.1,
        on_unknown: Unknown = "escalate",
    ) -> RouterPolicy:
        """A policy by one rule.

        `match_big`: the fewest escalations that do not fall behind the big model by more than
        can be measured to be a quarter of a point; `max_escalation` (a share) and `max_cost` (per
        query, in the unit of the costs) buy what accuracy they can; `max_regret` is the accuracy
        that may be lost against the big model, promised with probability 1 - `delta`.
        """
        rules = {
            "match_big": match_big or None,
            "max_escalation": max_escalation,
            "max_cost": max_cost,
            "max_regret": max_regret,
        }
        given = {name: value for name, value in rules.items() if value is not None}
        if len(given) != 1:
            raise BadRequest(f"{sorted(given) or 'no rule'} given: name one of {', '.join(rules)}")
        ((rule, value),) = given.items()
        found = _rules.apply(self, rule, value, delta)
        return RouterPolicy(self.names, self.model, on_unknown=on_unknown, **found)

    def to_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        lists = {name: list(plain[name]) for name in ("names", "path", "held_gain", "held_diff")}
        curve = [list(point) for point in self.curve]
        model = self.model.to_dict()
        return {"version": VERSION, **plain, **lists, "curve": curve, "model": model}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Router:
        values = dict(data)
        version = values.pop("version", None)
        if version != VERSION:
            raise CalibrationError(f"version {version!r} of a router; known is {VERSION}")
        refuse_part(data, (f.name for f in dataclasses.fields(cls)), "router")
        lists = {name: tuple(values[name]) for name in ("names", "path", "held_gain", "held_diff")}
        curve = tuple(Point(*point) for point in values["curve"])
        model = _gain.GainModel.from_dict(values["model"])
        return cls(**{**values, **lists, "curve": curve, "model": model})


def fit_router(
    x_small: Any,
    y_small: Any,
    y_big: Any,
    cost_small: float = 0.3,
    cost_big: float = 1.0,
    *,
    names: Sequence[str] | None = None,
    groups: Any = None,
    label_source: str = "labels",
    held_out: float = 0.3,
    seed: int = 0,
) -> Router:
    """Learn from labelled answers of both models where the big one is worth its cost.

    `x_small` holds the small model's features, one row per question, under `names`: signal names
    where the policy is to read records. Rows of one of the `groups` stay together. `held_out` is
    the share kept for the promise of `max_regret`. A teacher's answers are refused as labels: the
    big model would be right by definition.
    """
    if label_source != "labels":
        raise CalibrationError(
            f"label_source={label_source!r} cannot route: a model that is itself the judge is never"
            " wrong, so that its gain is not measured",
            "Label the answers of both models.",
        )
    _check_costs(cost_small, cost_big, held_out)
    x, small, big, where = _rows(x_small, y_small, y_big, groups)
    titles = _names(names, x.shape[1])
    rng = np.random.default_rng(seed)
    count = where.max() + 1
    held = (rng.permutation(count) < round(held_out * count))[where]
    if np.unique(where[~held]).size < FEWEST:
        raise CalibrationError(
            f"{np.unique(where[~held]).size} independent rows to fit on are too few: a router "
            f"needs {FEWEST} beside the held-out part of {held_out:g}"
        )
    fit = ~held
    folds = _gain.folds_of(where[fit], FOLDS, rng)
    kind, crossed = _gain.choose(x[fit], small[fit], big[fit], folds, where[fit])
    model = _gain.fit_gain(kind, x[fit], small[fit], big[fit])
    final, diff = model(x[fit]), big - small
    curve = deferral(final, crossed, diff[fit], folds, where[fit])
    alone = rng.permutation(np.flatnonzero(held)[one_per_group(where[held], held.sum(), seed)])
    return Router(
        titles, model, curve, tuple(cut(final, r / 20) for r in range(20, -1, -1)),
        tuple(float(g) for g in model(x[alone])), tuple(int(d) for d in diff[alone]),
        float(small[fit].mean()), float(big[fit].mean()), float(cost_small), float(cost_big),
        int(fit.sum()),
    )  # fmt: skip


def features(x: Any, columns: int | None = None) -> Array:
    """A table of features; infinite ones count as missing."""
    x = as_numbers("features", x)
    if x.ndim != 2 or (columns is not None and x.shape[1] != columns):
        wanted = f"(rows, {columns if columns is not None else 'features'})"
        raise BadRequest(f"features of the shape {x.shape} are not allowed: it must be {wanted}")
    return np.where(np.isfinite(x), x, np.nan)


def _rows(x: Any, small: Any, big: Any, groups: Any) -> tuple[Array, Array, Array, Array]:
    """Checked rows that have every feature, with the number of their group."""
    x, small, big = features(x), as_labels("y_small", small), as_labels("y_big", big)
    if not len(x) == len(small) == len(big):
        raise CalibrationError(
            f"x_small, y_small and y_big must have one length, not {len(x)}, {len(small)} and "
            f"{len(big)}"
        )
    where = np.arange(len(x)) if groups is None else group_numbers(groups, len(x))
    refuse_huge(x)
    known = np.isfinite(x).all(axis=1)
    if not known.any():
        raise CalibrationError(f"none of the {len(x)} rows of x_small has all features")
    numbers = np.unique(where[known], return_inverse=True)[1]
    return x[known], small[known], big[known], numbers


def _names(names: Sequence[str] | None, columns: int) -> tuple[str, ...]:
    titles = tuple(names) if names is not None else tuple(f"x{i}" for i in range(columns))
    if isinstance(names, str) or len(titles) != columns or len(set(titles)) != columns:
        raise BadRequest(f"names={names!r} must be {columns} different names, one per feature")
    return titles


def _check_costs(cost_small: Any, cost_big: Any, held_out: Any) -> None:
    for name, cost in (("cost_small", cost_small), ("cost_big", cost_big)):
        if not is_number(cost) or not 0 <= cost < float("inf"):
            raise BadRequest(f"{name}={cost!r} is not allowed: a cost is a number from 0 up")
    if not is_number(held_out) or not 0 <= held_out <= 0.5:
        raise BadRequest(f"held_out={held_out!r} is not allowed: a share from 0 to 0.5")
