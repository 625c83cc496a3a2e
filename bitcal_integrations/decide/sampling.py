"""Adaptive self-consistency as bookkeeping: vote by vote, until the leader is clear.

The stopping rule of Adaptive-Consistency (arXiv 2305.11860): the probability, under a flat Beta
prior, that the leader is the more likely answer of the first two. That is confidence in the vote,
not in the answer: a model can be wrong in the same way every time. It draws no samples itself.
"""

from __future__ import annotations

from typing import Any

from bitcal_integrations.decide._check import is_number
from bitcal_integrations.errors import BadRequest


class VoteTally:
    """Counts answers; `done` says when further samples are not worth their cost.

    At most `max_samples` and at least `min_samples` are drawn; in between it is done once
    `posterior` reaches `stop_at`. None (no answer was found) counts as a sample without a vote.

    >>> tally = VoteTally()
    >>> while not tally.done:
    ...     tally.add("42")
    >>> tally.n, tally.leader, tally.posterior
    (4, '42', 0.96875)
    """

    def __init__(self, max_samples: int = 8, stop_at: float = 0.95, min_samples: int = 2) -> None:
        self.max_samples = _whole("max_samples", max_samples, 1)
        self.min_samples = _whole("min_samples", min_samples, 1)
        if self.min_samples > self.max_samples:
            raise BadRequest(f"min_samples={min_samples!r} is above max_samples={max_samples!r}")
        if not is_number(stop_at) or not 0 < stop_at <= 1:
            raise BadRequest(f"stop_at={stop_at!r} is not allowed: a number above 0, at most 1")
        self.stop_at = float(stop_at)
        self.n = 0
        self._counts: dict[str, float] = {}

    def add(self, answer: str | None, weight: float = 1.0) -> None:
        """Take one sample's answer, which counts `weight` votes."""
        if answer is not None and not isinstance(answer, str):
            raise BadRequest(f"the answer {answer!r:.80} is neither a string nor None")
        if not is_number(weight) or not 0 <= weight < float("inf"):
            raise BadRequest(f"weight={weight!r} is not allowed: a number from 0 up")
        self.n += 1
        if answer is not None:
            self._counts[answer] = self._counts.get(answer, 0.0) + float(weight)

    @property
    def done(self) -> bool:
        """Whether to stop drawing."""
        if self.n >= self.max_samples:
            return True
        sure = self.posterior
        return self.n >= self.min_samples and sure is not None and sure >= self.stop_at

    @property
    def counts(self) -> dict[str, float]:
        """Votes by answer, in the order in which the answers first came."""
        return dict(self._counts)

    @property
    def leader(self) -> str | None:
        """The answer with the most votes, of equals the first that came; None without a vote."""
        return max(self._counts, key=self._counts.__getitem__) if self._counts else None

    @property
    def posterior(self) -> float | None:
        """P(Beta(a + 1, b + 1) > 1/2) for the votes a of the leader and b of the next."""
        if not self._counts:
            return None
        first, second = [*sorted(self._counts.values(), reverse=True), 0.0][:2]
        # scipy comes with scikit-learn; it is slow to import, and only a vote needs it.
        from scipy.special import betainc  # type: ignore[import-untyped]

        return float(betainc(second + 1, first + 1, 0.5))


def refuse_greedy(temperature: Any) -> None:
    """Samples of a greedy model are one answer, so a vote among them says nothing."""
    if not is_number(temperature) or not 0 < temperature < float("inf"):
        raise BadRequest(
            f"temperature={temperature!r} is not allowed for samples: at 0 every one is the same "
            "answer, so their vote says nothing; use a number above 0"
        )


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadRequest(f"{name}={value!r} is not allowed: a whole number of at least {least}")
    return value
