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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np

from bitcal_integrations.decide import _binomial
from bitcal_integrations.decide._certificate import Certificate, Risk
from bitcal_integrations.decide._check import as_labels, as_share, one_per_group
from bitcal_integrations.errors import BadRequest, CalibrationError

Array: TypeAlias = np.ndarray
RISKS = ("selective", "joint", "system")
STEPS = 40  # of the path: finer ones add chances to fail, coarser ones lose coverage
ROUGH = 5_000  # accepted answers above which `labels_needed` need not be exact
CHANCE = 0.8  # that as many labels as `labels_needed` says will do
START = 0.2  # share accepted at the first step, where the labels are enough for that


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
        raise BadRequest("simultaneous=True needs a list of max_error; else give the number")
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
        for threshold in self.thresholds(max_error, delta, fewest):
            step = self.step(threshold)
            if step.tested >= fewest and (step.accepted or self.risk == "system"):
                yield step

    def thresholds(self, max_error: float, delta: float, fewest: int) -> list[float]:
        """A grid for "system"; else what lies strictly above the rows of some ranks, then all."""
        if self.risk == "system":
            return [t / 100 for t in range(100, -1, -1)]
        # The joint risk only grows along the path, so that any path will do: begin at the top.
        first = 1 if self.risk == "joint" else self.first(max_error, delta, fewest)
        ranks = np.unique(np.linspace(first, self.known, STEPS).round().astype(int))
        ranks = ranks[(ranks > 0) & (ranks <= self.known)]
        edges = np.unique(self.ordered[ranks - 1])[::-1]
        return [float(np.nextafter(edge, 2.0)) for edge in edges] + [0.0]

    def first(self, max_error: float, delta: float, fewest: int) -> int:
        """Where to begin: where one error is borne, if half of the labels are enough for that.

        At the fewest rows that can certify, a single error among the best would end the path.
        """
        borne = _binomial.rows_for(1, max_error, delta)
        least = borne if borne <= self.known / 2 else fewest
        return max(math.ceil(START * self.known), least + 1)

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
        """Labels that make the certificate likely, if the errors stay as frequent as here."""
        if not path:
            return labels_needed(max_error, delta, coverage=max(self.known, 1) / self.n)
        likely = [
            (step.errors + 0.5, step.tested + 1, step.tested / self.n)
            for step in path
            if step.errors + 0.5 < max_error * (step.tested + 1)
        ]
        if not likely:
            return None

        def roughly(found: tuple[float, int, float]) -> float:
            errors, rows, share = found
            return _binomial.rough_rows(max_error, delta, errors / rows, CHANCE) / share

        errors, rows, share = min(likely, key=roughly)
        exact = labels_needed(max_error, delta, expected_error=errors / rows, coverage=share)
        return max(exact, self.n + 1)

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
    p = np.asarray(p, dtype=np.float64)
    bad = np.isinf(p) | (p < 0) | (p > 1)
    if bad.any():
        row = int(np.argmax(bad))
        raise CalibrationError(f"p[{row}] is {float(p[row])}; it must lie in [0, 1] or be NaN")
    return p


def labels_needed(
    max_error: float,
    delta: float,
    *,
    expected_error: float | None = None,
    coverage: float = 1.0,
    chance: float = CHANCE,
) -> int:
    """The fewest labels for which a certificate is to be expected, with probability `chance`.

    `expected_error` is the error rate among the accepted (half of max_error if not given) and
    `coverage` the share accepted. Above 5,000 accepted answers it is a normal approximation.

    >>> labels_needed(0.1, 0.1, expected_error=0.0), labels_needed(0.1, 0.1)
    (22, 128)
    """
    max_error, delta = as_share("max_error", max_error), as_share("delta", delta)
    chance = as_share("chance", chance)
    error = max_error / 2 if expected_error is None else float(expected_error)
    if not 0 <= error < max_error:
        raise BadRequest(f"expected_error={error!r} must lie in [0, max_error={max_error!r})")
    if not 0 < coverage <= 1:
        raise BadRequest(f"coverage={coverage!r} must lie in (0, 1]")

    if error == 0:
        return math.ceil(_binomial.error_free(max_error, delta) / coverage)
    rough = _binomial.rough_rows(max_error, delta, error, chance)
    if rough > ROUGH:
        return math.ceil(rough / coverage)

    def likely(errors: int) -> bool:
        rows = _binomial.rows_for(errors, max_error, delta)
        return _binomial.cdf(errors, rows, error) >= chance

    return math.ceil(_binomial.rows_for(_first(likely), max_error, delta) / coverage)


def _first(holds: Callable[[int], bool]) -> int:
    """The first number from 0 on for which it holds and goes on to hold."""
    low, high = -1, 0
    while not holds(high):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
