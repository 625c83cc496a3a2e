"""Which method suits these labels: by their number, then by grouped cross-validated Brier score.

With few labels a cross-validated score is mostly noise, and choosing by it costs more than it
gives: there `logistic` is taken, whose priors shrink it to the base rate where the labels show
nothing. Isotonic and histogram are not tried: with many labels `smooth` does as well, with few
they are unsafe. The Brier score decides whatever the objective of the fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bitcal_integrations import registry
from bitcal_integrations.calibrators._base import seen
from bitcal_integrations.calibrators._columns import Columns

if TYPE_CHECKING:
    from bitcal_integrations.calibrators._fit import Rows

FOLDS = 5
# Labels of the rarer kind below which no score is fitted, and below which methods are not compared;
# a group counts once.
FIT, COMPARE = 5, 100
COMPARED = ("constant", "platt", "venn_abers", "logistic", "smooth")  # from simple to rich
CLEARLY = 0.25  # a richer method must win by this many standard errors


def choose(rows: Rows, objective: str) -> tuple[str, str]:
    """The name of a method and why."""
    n = len(rows.y)
    rare = min(np.unique(rows.groups[rows.y == label]).size for label in (0, 1))
    if np.ptp(rows.x, axis=0).max() == 0:
        return "constant", f"constant: the scores of all {n} labels are the same"
    if rare < FIT:
        return "constant", f"constant: {rare} of {n} labels are of the rarer kind, {FIT} are needed"
    if rare < COMPARE or np.ptp(rows.groups) == 0:
        few = f"{rare} of {n} labels are of the rarer kind, below {COMPARE}"
        return "logistic", f"logistic, shrunk to what the labels show: {few}"
    losses = {name: losses_of(name, rows, objective) for name in COMPARED}
    best = _simplest(losses)
    scores = ", ".join(f"{name} {loss.mean():.4f}" for name, loss in losses.items())
    return best, f"{best} by {FOLDS}-fold Brier score on {n} labels: {scores}"


def _simplest(losses: dict[str, np.ndarray]) -> str:
    """The method of lowest loss, richer ones only where they are clearly better."""
    best, *others = losses
    for name in others:
        gain = losses[best] - losses[name]
        if gain.mean() > CLEARLY * gain.std() / np.sqrt(gain.size):
            best = name
    return best


def losses_of(method: str, rows: Rows, objective: str) -> np.ndarray:
    """Squared error of each row, predicted by a fit that has not seen its group."""
    fold = folds_of(rows.groups)
    out = np.empty(len(rows.y))
    for held in range(fold.max() + 1):
        out[fold == held] = _held_out(method, rows, fold != held, objective)
    return out


def _held_out(method: str, rows: Rows, kept: np.ndarray, objective: str) -> np.ndarray:
    module = registry.resolve("calibrators", method)
    x, y, new = rows.x[kept], rows.y[kept], rows.x[~kept]
    if y.min() == y.max():
        module = registry.resolve("calibrators", "constant")
    columns = Columns.of(x)
    z, z_new = columns.scaled(x), columns.clamped(columns.scaled(new))
    params = module.fit(seen(module, z), y, objective)
    p: np.ndarray = module.predict(params, seen(module, z_new))
    return (p - rows.y[~kept]) ** 2


def folds_of(groups: np.ndarray) -> np.ndarray:
    """A fold per row: whole groups, dealt out at random from a fixed seed."""
    _, first, where = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # groups by where they begin, not by their names
    dealt = np.random.default_rng(0).permutation(first.size) % min(FOLDS, first.size)
    return dealt[rank][where.reshape(-1)]
