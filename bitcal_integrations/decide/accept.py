"""Which answers to accept, with a promise: labels -> the laxest threshold that can be certified.

Learn-then-Test: thresholds go from strict to lax along one path that no label has touched, each
is tested by an exact binomial test at delta, and the first failure ends it. It knows no model and
no calibrator: p is any number in [0, 1] that is higher for answers more likely right, found
without these labels.

Rows must be independent draws of what will be asked; of rows that share a group one is drawn.
The path is laid by the ranks of p. A row on the boundary is not a fair draw of the rows above it,
so that a step accepts what lies strictly above it, with all ties. For risk "selective" the promise
is exact where the error rate does not rise with p; for "joint" and "system" it always is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np

from bitcal_integrations.decide import _binomial, _path
from bitcal_integrations.decide._certificate import Certificate, Risk
from bitcal_integrations.decide._check import as_labels, as_numbers, as_share, one_per_group
from bitcal_integrations.errors import BadRequest, CalibrationError

Array: TypeAlias = np.ndarray
RISKS = ("selective", "joint", "system")


class Step(NamedTuple):
    """One threshold of the path: what it accepts, and the errors among the rows that it tests."""

    threshold: float
    accepted: int
    errors: int
    tested: int

    def passes(self, max_error: float, delta: float) -> bool:
        return _binomial.cdf(self.errors, self.tested, max_error) <= delta


@overload
def certify_threshold(
    p: Any, y: Any, max_error: float = 0.1, delta: float = 0.1, *, groups: Any = None,
    label_source: str = "labels", risk: Risk = "selective", fallback_correct: Any = None,
    simultaneous: int | bool = 1, seed: int = 0,
) -> Certificate: ...  # fmt: skip


@overload
def certify_threshold(
    p: Any, y: Any, max_error: Sequence[float], delta: float = 0.1, *, groups: Any = None,
    label_source: str = "labels", risk: Risk = "selective", fallback_correct: Any = None,
    simultaneous: int | bool = 1, seed: int = 0,
) -> tuple[Certificate, ...]: ...  # fmt: skip


def certify_threshold(
    p: Any,
    y: Any,
    max_error: float | Sequence[float] = 0.1,
    delta: float = 0.1,
    *,
    groups: Any = None,
    label_source: str = "labels",
    risk: Risk = "selective",
    fallback_correct: Any = None,
    simultaneous: int | bool = 1,
    seed: int = 0,
) -> Certificate | tuple[Certificate, ...]:
    """The laxest threshold on p whose risk is at most `max_error`, promised at 1 - `delta`.

    `risk`: "selective" is the error rate among the accepted; "joint" the share of all answers
    that are accepted and wrong; "system" the share of final answers that are wrong when what is
    not accepted goes to a fallback that is right where `fallback_correct` is 1. A NaN in p is
    never accepted. A list of max_error gives one certificate each. `simultaneous` counts the
    certificates that are compared (presets, weight types) and must hold together: each is tested
    at delta / simultaneous; True counts the list. `seed` draws the row that stands for its group.

    >>> y = [1] * 50
    >>> certify_threshold(np.linspace(0.5, 0.9, 50), y, max_error=0.1, delta=0.1).coverage
    1.0
    >>> certify_threshold(np.linspace(0.5, 0.9, 20), y[:20], max_error=0.1, delta=0.1).reason
    '20 labels with a p are too few: an error rate of 0.1 needs 22 without an error'
    """
    targets: Any = max_error if _is_list(max_error) else (max_error,)
    levels = [as_share("max_error", target) for target in targets]
    if not levels:
        raise BadRequest("max_error=[] is not allowed: name at least one error rate")
    if label_source != "labels" and not str(label_source).startswith("teacher"):
        raise BadRequest(
            f"label_source={label_source!r} is not 'labels', 'teacher' or 'teacher: NAME'"
        )
    many = _simultaneous(simultaneous, len(levels) if _is_list(max_error) else None)
    data = _Data(p, y, groups, fallback_correct, risk, seed)
    made = tuple(
        data.certify(level, as_share("delta", delta), many, label_source) for level in levels
    )
    return made if _is_list(max_error) else made[0]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value) == 1


def _simultaneous(value: Any, listed: int | None) -> int:
    if value is True and listed is None:
        raise BadRequest("simultaneous=True needs a list of targets; else give the number")
    if isinstance(value, bool):
        return listed or 1 if value else 1
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise BadRequest(f"simultaneous={value!r} is not allowed: a number above 0, or True")
    return int(value)


class _Data:
    """Checked rows, one per group, and the path of one kind of risk over them."""

    def __init__(self, p: Any, y: Any, groups: Any, fallback: Any, risk: str, seed: int) -> None:
        if risk not in RISKS:
            raise BadRequest(f"risk={risk!r} is not one of {', '.join(RISKS)}")
        if (risk == "system") != (fallback is not None):
            raise BadRequest("fallback_correct belongs to risk='system', which needs it")
        p, wrong = _scores(p), 1 - as_labels("y", y)
        other = wrong if fallback is None else 1 - as_labels("fallback_correct", fallback)
        if not p.shape == wrong.shape == other.shape or p.size == 0:
            raise CalibrationError(
                f"p and the labels must be lists of one length above 0, not {p.shape}, "
                f"{wrong.shape}" + ("" if fallback is None else f" and {other.shape}")
            )
        rows = one_per_group(groups, p.size, seed)
        self.p, self.wrong, self.fallback_wrong = p[rows], wrong[rows], other[rows]
        self.risk, self.n = risk, rows.size
        self.ordered = np.sort(self.p[np.isfinite(self.p)])[::-1]
        self.known = self.ordered.size

    def certify(self, max_error: float, delta: float, many: int, source: str) -> Certificate:
        level, last = delta / many, None
        for step in self.path(max_error, level):
            if not step.passes(max_error, level):
                break
            last = step
        common: dict[str, Any] = {"risk": self.risk, "simultaneous": many}
        common |= {"label_source": source, "n": self.n, "unknown": self.n - self.known}
        if last is not None:
            return Certificate(
                last.threshold, last.accepted / self.n, max_error, delta, errors=last.errors,
                accepted=last.accepted, nearest=max_error, **common,
            )  # fmt: skip
        path = list(self.path(max_error, level))
        nearest, needed = self.nearest(max_error, level), self.needed(path, max_error, level)
        reason = self.why(path, max_error, level)
        return Certificate(
            None, 0.0, max_error, delta, errors=0, accepted=0, nearest=nearest,
            labels_needed=needed, reason=reason, **common,
        )  # fmt: skip

    def path(self, max_error: float, delta: float) -> Iterator[Step]:
        """From strict to lax; thresholds depend on p and n, never on labels."""
        fewest = _binomial.error_free(max_error, delta)
        for threshold in self.thresholds(max_error, delta):
            step = self.step(threshold)
            if step.tested >= fewest and (step.accepted or self.risk == "system"):
                yield step

    def thresholds(self, max_error: float, delta: float) -> list[float]:
        """A grid for "system"; else what lies strictly above the rows of some ranks, then all."""
        if self.risk == "system":
            return [t / 100 for t in range(100, -1, -1)]
        # The joint risk only grows along the path, so that any path will do: begin at the top.
        joint = self.risk == "joint"
        first = 1 if joint else _path.first_rank(self.known, max_error, delta)
        edges = np.unique(self.ordered[_path.ranks(first, self.known) - 1])[::-1]
        return [float(np.nextafter(edge, 2.0)) for edge in edges] + [0.0]

    def step(self, threshold: float) -> Step:
        accepted = self.p >= threshold  # NaN is not
        wrong = self.wrong[accepted].sum()
        if self.risk == "system":
            wrong += self.fallback_wrong[~accepted].sum()
        tested = accepted.sum() if self.risk == "selective" else self.n
        return Step(threshold, int(accepted.sum()), int(wrong), int(tested))

    def nearest(self, max_error: float, delta: float) -> float | None:
        """The smallest error rate, in hundredths, whose path passes at its first step."""
        for target in (t / 100 for t in range(1, 100)):
            first = next(self.path(target, delta), None) if target > max_error else None
            if first and first.passes(target, delta):
                return target
        return None

    def needed(self, path: list[Step], max_error: float, delta: float) -> int | None:
        """Labels that likely certify some threshold, if the errors stay as frequent as here."""
        share = max(self.known, 1) / self.n
        if not path:
            return math.ceil(_path.labels_needed(max_error, delta) / share)
        selective = self.risk == "selective"
        # Where errors do not get rarer along the path, the least of its rates is the best estimate
        # of the first one, which failed, and looks worse than it is for that.
        steps = path if selective else path[:1]
        error = min((step.errors + 0.5) / (step.tested + 1) for step in steps)
        if error >= max_error:
            return None
        rows = _path.labels_to_begin(max_error, delta, error, not selective)
        return max(math.ceil(rows / share if selective else rows), self.n + 1)

    def why(self, path: list[Step], max_error: float, delta: float) -> str:
        if not path:
            fewest = _binomial.error_free(max_error, delta)
            return (
                f"{self.known} labels with a p are too few: an error rate of {max_error:g} needs "
                f"{fewest} without an error"
            )
        first = path[0]
        return (
            f"{first.errors} of {first.tested} rows count against it already at the strictest "
            f"threshold tested, too many to rule out a rate above {max_error:g}"
        )


def _scores(p: Any) -> Array:
    p = as_numbers("p", p)
    bad = np.isinf(p) | (p < 0) | (p > 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(f"p[{row}] is {float(p[row])}; it must lie in [0, 1] or be NaN")
    return p
