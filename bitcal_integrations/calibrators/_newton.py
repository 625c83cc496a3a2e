"""Logistic regression with Gaussian priors: coefficients, their uncertainty, and the priors.

It knows columns, labels and blocks of columns, not what they mean. Each block shares one prior
variance, chosen by evidence (MacKay's updates), so that a block that the labels do not speak for
shrinks to nothing: few labels give a nearly constant answer by themselves. The uncertainty is
Laplace's: the inverse Hessian at the solution. At a given prior the solution is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bitcal_integrations.calibrators._columns import sigmoid
from bitcal_integrations.metrics import Z95

FLAT = 1e-6  # prior precision of an intercept: none to speak of
# Inverse-gamma hyperprior of a block's variance: a block of any size starts out as worth one
# coefficient of size sqrt(2 B).
A, B = 0.5, 0.01
WIDEST = 100.0  # where labels are told apart without a mistake, the evidence knows no bound
ALIKE = 1e-4  # what is left of a column beyond its fellows counts only above this share
# Laplace's: right in 95% of the fits where the truth has the shape of the curve, less often (.4 to
# .8 where measured) where it has not.
KIND = "95% of the fitted curve, if its shape is right"


class Fit(NamedTuple):
    """Coefficients, a root of their covariance (root @ root.T), and prior variance per block."""

    beta: np.ndarray
    root: np.ndarray
    variance: np.ndarray


def fit(
    x: np.ndarray, y: np.ndarray, blocks: Sequence[int], objective: str, untangled: int = 0
) -> Fit:
    """With an intercept as coefficient 0; `blocks` gives the block of each column of x.

    The first `untangled` columns are made uncorrelated before the priors are put on them, so that
    what two signals say differently is not shrunk for their being alike.
    """
    turn = np.eye(x.shape[1] + 1)
    turn[1 : untangled + 1, 1 : untangled + 1] = _untangle(x[:, :untangled])
    found = _fit(x @ turn[1:, 1:] if untangled else x, y, blocks, objective)
    if not untangled:
        return found
    root = turn @ found.root
    return Fit(turn @ found.beta, _root(root @ root.T), found.variance)


def _untangle(x: np.ndarray) -> np.ndarray:
    """An upper triangle t such that the columns of x @ t are uncorrelated and of size 1."""
    spread = x.T @ x / len(x)
    return np.linalg.inv(np.linalg.cholesky(spread + ALIKE * np.eye(len(spread)))).T


def _root(covariance: np.ndarray) -> np.ndarray:
    return np.linalg.cholesky((covariance + covariance.T) / 2)


def _fit(x: np.ndarray, y: np.ndarray, blocks: Sequence[int], objective: str) -> Fit:
    block = np.asarray(blocks, dtype=int)
    table = np.column_stack([np.ones(len(y)), x])
    share = (y.sum() + 0.5) / (y.size + 1)
    beta = np.zeros(table.shape[1])
    beta[0] = np.log(share / (1 - share))
    beta, variance = _priors(table, y, beta, block)
    precision = np.concatenate([[FLAT], 1 / variance[block]])
    beta = descend(table, y, precision, beta)
    covariance = np.linalg.inv(_hessian(table, y, precision, beta))
    if objective == "brier":
        beta = descend(table, y, precision, beta, "brier")
    return Fit(beta, _root(covariance), variance)


def _priors(
    table: np.ndarray, y: np.ndarray, beta: np.ndarray, block: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Prior variance per block at the (hyperprior-weighted) maximum of the evidence."""
    size = np.bincount(block)
    variance = 0.1 / size
    for _ in range(30):
        precision = np.concatenate([[FLAT], 1 / variance[block]])
        beta, hessian, _ = _step(table, y, precision, beta, "nll")
        spread = np.diag(np.linalg.inv(hessian))[1:]
        known = size - np.bincount(block, weights=spread) / variance
        found = (np.bincount(block, weights=beta[1:] ** 2) + 2 * B / size) / (known + 2 * A)
        found = np.minimum(found, WIDEST)
        moved = np.abs(np.log(found / variance)).max(initial=0.0)
        variance = found
        if moved < 0.1:
            break
    return beta, variance


def descend(
    table: np.ndarray,
    y: np.ndarray,
    precision: np.ndarray,
    beta: np.ndarray,
    objective: str = "nll",
) -> np.ndarray:
    """Newton steps to the bottom (Gauss-Newton for the Brier score)."""
    for _ in range(50):
        beta, _, moved = _step(table, y, precision, beta, objective)
        if moved < 1e-8:
            break
    return beta


def _step(
    table: np.ndarray, y: np.ndarray, precision: np.ndarray, beta: np.ndarray, objective: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """One step, halved while it overshoots; the Hessian before it; how far it went."""
    slope, _ = _slopes(sigmoid(table @ beta), y, objective)
    hessian = _hessian(table, y, precision, beta, objective)
    step = np.linalg.solve(hessian, table.T @ slope + precision * beta)
    before = _loss(table, y, precision, beta, objective)
    for _ in range(20):
        if _loss(table, y, precision, beta - step, objective) <= before:
            return beta - step, hessian, float(np.abs(step).max())
        step = step / 2
    return beta, hessian, 0.0


def _loss(
    table: np.ndarray, y: np.ndarray, precision: np.ndarray, beta: np.ndarray, objective: str
) -> float:
    t = table @ beta
    if objective == "brier":  # twice the score curves like the NLL at p = .5
        fit = 2 * np.sum((sigmoid(t) - y) ** 2)
    else:
        fit = np.sum(np.logaddexp(0, t) - y * t)
    return float(fit + precision @ beta**2 / 2)


def _slopes(p: np.ndarray, y: np.ndarray, objective: str) -> tuple[np.ndarray, np.ndarray]:
    curve = p * (1 - p)
    if objective == "brier":
        return 4 * (p - y) * curve, 4 * curve**2
    return p - y, curve


def _hessian(
    table: np.ndarray,
    y: np.ndarray,
    precision: np.ndarray,
    beta: np.ndarray,
    objective: str = "nll",
) -> np.ndarray:
    _, curve = _slopes(sigmoid(table @ beta), y, objective)
    weighted = table * np.sqrt(curve)[:, None]
    hessian: np.ndarray = weighted.T @ weighted
    hessian[np.diag_indices_from(hessian)] += precision
    return hessian


def params_of(found: Fit) -> dict[str, Any]:
    """A fit as plain JSON: the root's lower triangle row by row, to six digits."""
    return {
        "beta": found.beta.tolist(),
        "root": [float(f"{v:.6g}") for v in found.root[np.tril_indices_from(found.root)]],
        "prior_sd": np.sqrt(found.variance).tolist(),
    }


def predict(params: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    return sigmoid(params["beta"][0] + x @ np.asarray(params["beta"][1:]))


def interval(params: Mapping[str, Any], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1.96 standard deviations to either side on the logit."""
    beta = np.asarray(params["beta"])
    root = np.zeros((beta.size, beta.size))
    root[np.tril_indices(beta.size)] = params["root"]
    middle = beta[0] + x @ beta[1:]
    half = Z95 * np.sqrt(((root[0] + x @ root[1:]) ** 2).sum(axis=1))
    return sigmoid(middle - half), sigmoid(middle + half)
