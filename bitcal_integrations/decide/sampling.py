"""Adaptive self-consistency as bookkeeping: vote by vote, until the leader is clear.

Two rules say when. "posterior" is that of Adaptive-Consistency (arXiv 2305.11860): the probability,
under a flat Beta prior, that the leader is the more likely answer of the first two; it promises
nothing. "certified" is an e-process (_sampling_bets.py): it stops at a leader that is not a most
likely answer of the model with probability at most 1 - `stop_at`, however often it is looked at.
Both are about the vote, not about the answer: a model can be wrong in the same way every time.
It draws no samples itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from bitcal_integrations.decide._check import is_number
from bitcal_integrations.decide._sampling_bets import Bets
from bitcal_integrations.errors import BadRequest

Rule: TypeAlias = Literal["posterior", "certified"]
RULES = ("posterior", "certified")
WEIGHTS = ("none", "confidence")

FEWEST = 2  # samples before a vote can be clear, where the caller names no number

# DeepConf's group: the mean of so many token log-probabilities in a row.
GROUP = 16


class VoteTally:
    """Counts answers; `done` says when further samples are not worth their cost.

    At most `max_samples` and at least `min_samples` (2, or as many as are allowed) are drawn; in
    between it is done once `posterior` reaches `stop_at` or, with `rule="certified"`, once
    `e_value` reaches 1 / (1 - stop_at). Then the leader is a most likely answer of the model (no
    other is likelier) but for a probability of 1 - stop_at; of answers that are exactly as likely
    any may be certified, and in a limit of `max_samples` few votes may certify none. None (no
    answer was found) counts as a sample without a vote; the certificate is about the answers that
    are found.

    `weight` makes a vote count less or more, such as the sample's calibrated confidence. The
    certificate counts each sample as one, so the rule "certified" refuses other weights.

    >>> tally = VoteTally()
    >>> while not tally.done:
    ...     tally.add("42")
    >>> tally.n, tally.leader, tally.posterior
    (4, '42', 0.96875)
    """

    def __init__(
        self,
        max_samples: int = 8,
        stop_at: float = 0.95,
        min_samples: int | None = None,
        rule: Rule = "posterior",
    ) -> None:
        self.max_samples = whole("max_samples", max_samples, 1)
        fewest = min(FEWEST, self.max_samples) if min_samples is None else min_samples
        self.min_samples = whole("min_samples", fewest, 1)
        if self.min_samples > self.max_samples:
            raise BadRequest(f"min_samples={min_samples!r} is above max_samples={max_samples!r}")
        if not is_number(stop_at) or not 0 < stop_at <= 1:
            raise BadRequest(f"stop_at={stop_at!r} is not allowed: a number above 0, at most 1")
        self.rule: Rule = one_of("rule", rule, RULES)
        self.stop_at = float(stop_at)
        self.n = 0
        self._counts: dict[str, float] = {}
        self._bets: Bets | None = Bets()

    def add(self, answer: str | None, weight: float = 1.0) -> None:
        """Take one sample's answer, which counts `weight` votes; in the order of the draws."""
        if answer is not None and not isinstance(answer, str):
            raise BadRequest(f"the answer {answer!r:.80} is neither a string nor None")
        if not is_number(weight) or not 0 <= weight < float("inf"):
            raise BadRequest(f"weight={weight!r} is not allowed: a number from 0 up")
        if weight != 1 and self.rule == "certified":
            raise BadRequest(
                f"weight={weight!r} is not allowed with rule='certified': its certificate is "
                "about votes that count one each"
            )
        self.n += 1
        if answer is None:
            return
        self._counts[answer] = self._counts.get(answer, 0.0) + float(weight)
        if weight != 1:
            self._bets = None
        if self._bets is not None:
            self._bets.add(answer)

    @property
    def done(self) -> bool:
        """Whether to stop drawing."""
        return self.n >= self.max_samples or self.clear

    @property
    def clear(self) -> bool:
        """Whether its rule is satisfied: the leader is clear enough."""
        if self.n < self.min_samples or not self._counts:
            return False
        if self.rule == "certified":
            return self.stop_at < 1 and (self.e_value or 0.0) * (1 - self.stop_at) >= 1 - 1e-12
        return (self.posterior or 0.0) >= self.stop_at

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

    @property
    def e_value(self) -> float | None:
        """The evidence that no answer is likelier than the leader; None without votes of one each.

        At least 1/delta is a certificate at the level delta, after whichever vote it comes.
        """
        leader = self.leader
        return None if leader is None or self._bets is None else self._bets.against(leader)


def lowest_group(logprobs: Sequence[float], size: int = GROUP) -> float | None:
    """The lowest mean of `size` log-probabilities in a row; None where there are fewer.

    >>> lowest_group([-1.0, -3.0, 0.0], 2), lowest_group([-1.0], 2)
    (-2.0, None)
    """
    sums = [sum(logprobs[at : at + size]) for at in range(len(logprobs) - size + 1)]
    return min(sums) / size if sums else None


def weak_below(lowest: Sequence[float | None], share: float) -> float | None:
    """Below which lowest group a sample is weak: the quantile `share` of those seen so far.

    Samples too short to have one say nothing; None where all are.

    >>> weak_below([-1.0, None, -2.0, -3.0], 0.5)
    -2.0
    """
    known = sorted(value for value in lowest if value is not None)
    if not known:
        return None
    place = share * (len(known) - 1)
    under, part = math.floor(place), place % 1
    above = known[min(under + 1, len(known) - 1)]
    return known[under] + part * (above - known[under])


def refuse_greedy(temperature: Any) -> None:
    """Samples of a greedy model are one answer, so a vote among them says nothing."""
    if not is_number(temperature) or not 0 < temperature < float("inf"):
        raise BadRequest(
            f"temperature={temperature!r} is not allowed for samples: at 0 every one is the same "
            "answer, so their vote says nothing; use a number above 0"
        )


def refuse_weights(rule: str, weights: str) -> None:
    """The certificate is about votes that count one each."""
    one_of("weights", weights, WEIGHTS)
    if rule == "certified" and weights != "none":
        raise BadRequest(
            f"weights={weights!r} is not allowed with rule='certified': its certificate is about "
            "votes that count one each; use rule='posterior' or weights='none'"
        )


def one_of(name: str, value: Any, allowed: Sequence[str]) -> Any:
    """The value, if it is one of the allowed ones."""
    if not isinstance(value, str) or value not in allowed:
        raise BadRequest(f"{name}={value!r} is not allowed: it is one of {', '.join(allowed)}")
    return value


def whole(name: str, value: Any, least: int) -> int:
    """The value, if it is a whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadRequest(f"{name}={value!r} is not allowed: a whole number of at least {least}")
    return value
