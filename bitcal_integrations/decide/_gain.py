"""The gain model: features of the small model's answer -> P(big right) - P(small right).

Fitted with scikit-learn, predicted with numpy from plain numbers. It ranks answers by what the
big model would add; where to cut, and at what cost, is for route.py to say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bitcal_integrations.calibrators._columns import logit
from bitcal_integrations.calibrators._terms import polynomial
from bitcal_integrations.decide._curve import mean_and_error

Array: TypeAlias = np.ndarray
KINDS = ("differ", "small_right", "gain")
CLIP = 1e-4  # a feature in [0, 1] enters as its logit, cut off here
PENALTIES = tuple(float(10.0**k) for k in range(-1, 5))
SIMPLER = 1.0  # standard errors by which a later kind must beat an earlier one


@dataclass(frozen=True)
class Basis:
    """Features, their squares and products, each standardised; outside the fit range is clamped."""

    logit: tuple[bool, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, x: Array) -> Basis:
        inside = (x.min(axis=0) >= 0) & (x.max(axis=0) <= 1)
        bare = _unit(x, inside)
        low, high = bare.min(axis=0), bare.max(axis=0)
        terms = polynomial(_between(bare, low, high))
        mean, scale = terms.mean(axis=0), terms.std(axis=0)
        # A column that does not vary says nothing; its scale would divide by rounding noise.
        scale = np.where(scale > 1e-9, scale, np.inf)
        flat = [tuple(float(v) for v in column) for column in (low, high, mean, 1 / scale)]
        return cls(tuple(bool(v) for v in inside), *flat)

    def __call__(self, x: Array) -> Array:
        bare = _between(_unit(x, np.array(self.logit)), np.array(self.low), np.array(self.high))
        return (polynomial(bare) - np.array(self.mean)) * np.array(self.scale)


def _unit(x: Array, shares: Array) -> Array:
    return np.where(shares, logit(x, CLIP), x)


def _between(x: Array, low: Array, high: Array) -> Array:
    """In [-1, 1], so that a product does not depend on the units of its factors."""
    middle, half = (low + high) / 2, (high - low) / 2
    return (np.clip(x, low, high) - middle) / np.where(half > 0, half, 1.0)


@dataclass(frozen=True)
class GainModel:
    """One of three shapes, chosen by cross-validation, or a "constant" that predicts `bias`.

    "differ" is P(one is right and the other is not) times the big model's lead among those,
    "small_right" falls in a line with P(small right); both probabilities are logistic in the basis
    and `curve` is the line. "gain" is itself linear in the basis. Two models that are close differ
    in few answers, and that they differ is far better seen than who wins: hence "differ" comes
    first.
    """

    kind: str
    basis: Basis
    weights: tuple[float, ...] = ()
    bias: float = 0.0
    curve: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        """(n,) gains in [-1, 1]; a row with a missing feature gives NaN."""
        missing = ~np.isfinite(x).all(axis=1)
        x = np.where(missing[:, None], 0.5, x)
        if self.kind == "constant":
            found = np.full(len(x), self.bias)
        else:
            found = self.basis(x) @ np.array(self.weights) + self.bias
        if self.curve:
            found = np.polyval(self.curve, 1 / (1 + np.exp(-np.clip(found, -30, 30))))
        return np.where(missing, np.nan, np.clip(found, -1.0, 1.0))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GainModel:
        basis = Basis(**{k: tuple(v) for k, v in data["basis"].items()})
        lists = {k: tuple(data[k]) for k in ("weights", "curve")}
        return cls(**{**data, **lists, "basis": basis})


def fit_gain(kind: str, x: Array, small: Array, big: Array) -> GainModel:
    """One shape on these rows; a constant where there is nothing to tell apart."""
    basis, diff = Basis.of(x), (big - small).astype(float)
    terms = basis(x)
    if kind == "gain":
        from sklearn.linear_model import RidgeCV

        ridge = RidgeCV(alphas=[a * len(x) / 1000 for a in PENALTIES]).fit(terms, diff)
        return GainModel(kind, basis, _floats(ridge.coef_), float(ridge.intercept_))
    event = diff != 0 if kind == "differ" else small == 1
    if event.all() or not event.any():
        return GainModel("constant", basis, bias=float(diff.mean()))
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=1.0, max_iter=1000).fit(terms, event)
    curve = np.array([diff.sum() / event.sum(), 0.0])
    if kind == "small_right":
        said = fit.predict_proba(terms)[:, 1]
        # No line goes through one point.
        curve = np.polyfit(said, diff, 1) if np.ptp(said) > 1e-9 else np.zeros(2)
        curve = curve if curve[0] < 0 else np.array([0.0, diff.mean()])
    weights, bias = _floats(fit.coef_[0]), float(fit.intercept_[0])
    return GainModel(kind, basis, weights, bias, _floats(curve))


def _floats(values: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in values)


def folds_of(groups: Array, count: int, rng: np.random.Generator) -> Array:
    """The fold of each row; rows of one group share it."""
    _, where = np.unique(groups, return_inverse=True)
    return rng.permutation(np.arange(where.max() + 1) % count)[where]


def cross_fitted(kind: str, x: Array, small: Array, big: Array, folds: Array) -> Array:
    """For each row the gain by a model that has not seen its fold."""
    gains = np.empty(len(x))
    for fold in np.unique(folds):
        out = folds == fold
        gains[out] = fit_gain(kind, x[~out], small[~out], big[~out])(x[out])
    return gains


def choose(x: Array, small: Array, big: Array, folds: Array, groups: Array) -> tuple[str, Array]:
    """The shape of least cross-validated squared error, earlier ones preferred; its gains."""
    diff, gains = big - small, {k: cross_fitted(k, x, small, big, folds) for k in KINDS}
    best = KINDS[0]
    for kind in KINDS[1:]:
        # Squared errors of one row under two models differ little, so their pairs are compared.
        better = (diff - gains[best]) ** 2 - (diff - gains[kind]) ** 2
        gain, error = mean_and_error(better, groups)
        if gain > SIMPLER * error:
            best = kind
    return best, gains[best]
