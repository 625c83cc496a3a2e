"""What a report shows, as plain numbers: the hand-over from prepare to draw.

Shares, probabilities and errors lie in [0, 1]; NLL is in nats; what is undefined or was not
measured is None. Knows neither how the numbers come about nor how they look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bitcal_integrations.metrics import Bin

BASE, RAW, CALIBRATED = "base rate", "raw score", "calibrated"  # the names of the scores


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval, None where there are too few groups for one."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Counts:
    """How many rows there are of each kind; none is dropped without being counted here.

    `left_out` counts rows by the part that calibration or certificates were made on; all others
    are evaluated. `scored` are the judged rows that have every score: the metrics are over these.
    """

    rows: int
    left_out: Mapping[str, int]
    judged: int
    unjudged: int
    right: int
    wrong: int
    unknown: int
    scored: int
    groups: int


@dataclass(frozen=True)
class Scores:
    """The metrics of one score over the scored rows; `ece_floor_p95` is its 95th percentile."""

    name: str
    n: int
    brier: Estimate
    nll: Estimate
    ece: Estimate
    ece_floor: float | None
    ece_floor_p95: float | None
    auroc: Estimate
    aurc: Estimate


@dataclass(frozen=True)
class HistogramBin:
    """Right and wrong answers whose score lies in [low, high)."""

    low: float
    high: float
    right: int
    wrong: int


@dataclass(frozen=True)
class Curve:
    """A score's curve: (threshold, x, y) from strict to lax.

    Risk-coverage: x is the share of scored rows accepted, y the share wrong among them.
    Deferral: x is the share of judged rows sent on, unknown ones first, y the share right of
    what is kept.
    """

    name: str
    points: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class ScoreView:
    """What is drawn of one score, "raw score" or "calibrated"."""

    name: str
    bins: tuple[Bin, ...]
    histogram: tuple[HistogramBin, ...]
    risk: Curve
    deferral: Curve


@dataclass(frozen=True)
class Promise:
    """A certificate as it came, and what its threshold does on the scored rows.

    `task` and `weights` name the rows it was made for, None for all. `share` of these rows is
    `accepted`; `error`, with a Wilson interval, is what its `risk` speaks of: of the accepted
    ("selective") or of all ("joint") the share accepted and wrong; "system" cannot be seen here.
    """

    certificate: Mapping[str, Any]
    claim: str
    risk: str
    task: str | None
    weights: str | None
    n: int
    accepted: int
    share: float | None
    error: Estimate


@dataclass(frozen=True)
class Slice:
    """The rows with one label; `accuracy` has a Wilson interval and is over the judged.

    `confidence`, its mean, `came_true`, the share right, and the scores are over the `scored`.
    """

    label: str
    rows: int
    judged: int
    unknown: int
    scored: int
    accuracy: Estimate
    confidence: float | None
    came_true: float | None
    brier_raw: float | None
    brier: float | None
    ece: float | None
    ece_floor: float | None
    auroc: float | None


@dataclass(frozen=True)
class Breakdown:
    """One table: by task, by weight type, or by a label of the user's."""

    by: str
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class WrongAnswer:
    """One of the wrong answers with the highest score; texts are shortened, not escaped."""

    id: str
    prompt: str
    answer: str
    gold: str
    confidence: float | None
    raw: float | None
    task: str
    weights: str


@dataclass(frozen=True)
class Tally:
    """The rows with one finish, or with one reason for an unknown confidence, by verdict."""

    name: str
    rows: int
    right: int
    wrong: int
    unjudged: int
    unknown: int


@dataclass(frozen=True)
class Ended:
    """The rows that an early stop ended at one level, or that came to their own end under one.

    `tokens` is their mean, trial answers included.
    """

    name: str
    rows: int
    right: int
    wrong: int
    unjudged: int
    tokens: float


@dataclass(frozen=True)
class Stops:
    """What ending early did, over the rows that a stop was in force for.

    `tokens` were spent on them, of which `probe_tokens` on trial answers and whatever else was
    asked beside the answer. `saved` tokens, the `share` of what the full runs would have taken,
    are expected by the promises of the `promised` rows that have one; None without any. `promises`
    are the different ones that were in force: max_loss, delta, n, kind, label_source.
    """

    ended: tuple[Ended, ...]
    tokens: int
    probe_tokens: int
    promised: int
    saved: int | None
    share: float | None
    promises: tuple[Mapping[str, Any], ...] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.ended)


@dataclass(frozen=True)
class Evaluation:
    """All numbers of one report.

    `claim` is what a confidence is the probability of: "is right", or "agrees with NAME" where a
    teacher's answers stood in for labels. `change` is the Brier score of the calibrated minus that
    of the raw score, row by row on the same rows, and `gain` the calibrated minus the base rate's.
    `width` is the mean width of the stated intervals; `reasons` counts why confidence is unknown;
    `stops` is None where nothing could end early.
    """

    title: str
    claim: str
    counts: Counts
    accuracy: Estimate
    scores: tuple[Scores, ...]
    bins: int
    change: Estimate
    gain: Estimate
    width: float | None
    views: tuple[ScoreView, ...]
    promises: tuple[Promise, ...]
    breakdowns: tuple[Breakdown, ...]
    wrong: tuple[WrongAnswer, ...]
    finishes: tuple[Tally, ...]
    reasons: tuple[Tally, ...]
    shifted: int
    seed: int
    profile: Mapping[str, str] = field(default_factory=dict)
    stops: Stops | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Bin):
        return value._asdict()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
