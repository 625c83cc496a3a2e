"""Learned scores: from the scores at a checkpoint to the log-odds that ending there loses nothing.

One logistic regression over standardised scores, as plain numbers that a rule holds. It sees the
runs of the fit part alone. scikit-learn is loaded when something is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitcal_integrations.decide._stop_rule import (
    AGREEMENT,
    CLAMP,
    LOGIT,
    Level,
    StopRule,
    needs_trial,
)
from bitcal_integrations.decide._stop_table import Array, Table
from bitcal_integrations.errors import UnknownName

KNOWN = 0.9  # share of the checkpoints where a score must be there to be a term
RARE = 10  # checkpoints of the rarer kind below which nothing is learned
MOST = 20_000  # checkpoints that a fit reads
MOST_ODDS = 30.0  # log-odds beyond which a probability is 0 or 1


def learned(table: Table, level: Level, names: Sequence[str], seed: int) -> dict[str, Any]:
    """The weights of "learned_free" and "learned" for a level, as far as they can be fitted."""
    free = [name for name in names if not needs_trial(name)]
    target = _target(table, level)
    out = {}
    for label, terms in (("learned_free", free), ("learned", list(names))):
        if label == "learned" and len(terms) == len(free):
            continue
        fit = _fit(table, terms, target, seed)
        if fit is not None:
            out[label] = fit
    return out


def _target(table: Table, level: Level) -> Array:
    """1 where ending here loses nothing, or the run comes right; NaN where nothing ends."""
    if level == "settled":
        return np.where(table.answers >= 0, ~table.loses, np.nan)
    return np.where(table.there, table.quit_loses[:, None], np.nan)


def _fit(table: Table, names: Sequence[str], target: Array, seed: int) -> dict[str, Any] | None:
    plain = StopRule("settled", "any", 0.0)
    counted = np.isfinite(target)
    named = [_spelled(table, name) for name in names]
    columns = {name: table.value(plain, name, table.there)[counted] for name in named}
    kept = {k: v for k, v in columns.items() if v.size and np.isfinite(v).mean() >= KNOWN}
    if not kept:
        return None
    x, y = np.column_stack(list(kept.values())), target[counted]
    whole = np.flatnonzero(np.isfinite(x).all(1))
    if whole.size > MOST:
        whole = np.random.default_rng(seed).choice(whole, MOST, replace=False)
    x, y = x[whole], y[whole]
    mean, scale = x.mean(0), x.std(0)
    varied = scale > 1e-9 * (1 + np.abs(mean))
    if min((y == 0).sum(), (y == 1).sum()) < RARE or not varied.any():
        return None
    x, mean, scale = x[:, varied], mean[varied], scale[varied]
    weights, bias = _logistic(np.clip((x - mean) / scale, -CLAMP, CLAMP), y)
    used = [name for name, varies in zip(kept, varied, strict=True) if varies]
    terms = zip(used, mean.tolist(), scale.tolist(), weights, strict=True)
    return {"bias": bias, "terms": {name: (m, s, w) for name, m, s, w in terms}}


def _spelled(table: Table, name: str) -> str:
    """A score that lies in [0, 1] enters by its log-odds, which do not crowd at 1."""
    value = table.scores.get(name, np.zeros(0))
    value = value[np.isfinite(value)]
    inside = value.size and value.min() >= 0 and value.max() <= 1
    return LOGIT + name if inside else name


def _logistic(z: Array, y: Array) -> tuple[list[float], float]:
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(max_iter=2000).fit(z, y.astype(int))
    return fit.coef_[0].tolist(), float(fit.intercept_[0])


def risk_of(table: Table, level: Level, weights: dict[str, Any]) -> Array | None:
    """P(ending here loses something) by the learned score; None without one.

    Of many rules that lost nothing on the fit part, it tells the lucky from the careful.
    """
    name = "learned" if "learned" in weights else "learned_free"
    if name not in weights:
        return None
    rule = StopRule(level, name, 0.0, weights=weights)
    odds = table.value(rule, name, table.there)
    keeps = 1 / (1 + np.exp(-np.clip(odds, -MOST_ODDS, MOST_ODDS)))
    loses = 1 - keeps if level == "settled" else keeps
    return np.where(np.isfinite(loses), loses, np.nanmean(loses))


def candidates(table: Table, names: Sequence[str] | None) -> list[str]:
    """The scores that rules may use: those named, or all, the agreement of trials among them."""
    found = [*table.scores, *([AGREEMENT] if (table.answers >= 0).any() else [])]
    for name in names or ():
        if name not in found:
            raise UnknownName(
                f"scores: {name!r} was not measured in these runs, which have {', '.join(found)}"
            )
    return found if names is None else [name for name in found if name in names]
