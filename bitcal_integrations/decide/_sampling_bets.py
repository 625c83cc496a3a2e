"""An e-process for the mode of what is sampled: evidence that may be looked at after any vote.

Take any answer b, and bet at each draw that the leader among the *other* answers so far comes and
not b. The capital is multiplied by 2t where that leader comes, by 2(1 - t) where b comes, and stays
as it is otherwise. If b is a most likely answer, the leader is no likelier than b, so for every t
from 1/2 to 1 the capital does not grow on average: it is a supermartingale, and so is its mean over
t. By Ville's inequality it ever reaches 1/delta with probability at most delta. A leader is
certified where the capital against every other answer, seen or not, has reached 1/delta. For a
leader that is not a most likely answer, one of these others is: so whatever leads, the error is
at most delta, with no sum over rivals. t is 1 with probability 1/2 (for unanimous votes), else
uniform.

It knows votes of weight one, in the order of the draws. The mode is not the right answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Bet:
    """The bets against one answer: how often the leader of the others came, and how often it."""

    won: int = 0
    lost: int = 0

    @property
    def capital(self) -> float:
        """What a stake of 1 has become: the mean over t of (2t)^won (2(1 - t))^lost.

        >>> Bet(0, 0).capital, Bet(1, 0).capital, Bet(0, 1).capital
        (1.0, 1.75, 0.25)
        """
        # scipy comes with scikit-learn; it is slow to import, and only a vote needs it.
        from scipy.special import betainc, betaln  # type: ignore[import-untyped]

        votes = self.won + self.lost
        share = betainc(self.lost + 1, self.won + 1, 0.5)  # of the uniform part above 1/2
        # So little that it has no logarithm: then the capital is almost gone, and none is claimed.
        known = math.log(share) if share > 1e-300 else -math.inf
        grown = (votes + 1) * math.log(2) + betaln(self.won + 1, self.lost + 1) + known
        sure = votes * math.log(2) if not self.lost else -math.inf
        return math.exp(min(grown, 700.0)) / 2 + math.exp(min(sure, 700.0)) / 2


class Bets:
    """A bet against every answer, and one against all that have not come yet."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._seen: dict[str, Bet] = {}
        self._unseen = Bet()

    def add(self, answer: str) -> None:
        """Take a vote: the bets were made before it came."""
        first, second = self._leaders()
        new = answer not in self._seen
        if new:  # until now it was one of those that had not come
            self._seen[answer] = Bet(self._unseen.won, self._unseen.lost)
        for rival, bet in self._seen.items():
            backed = second if rival == first else first
            if backed is not None:
                bet.won += answer == backed
                bet.lost += answer == rival
        self._unseen.won += first is not None and answer == first
        self._counts[answer] = self._counts.get(answer, 0) + 1

    def _leaders(self) -> tuple[str | None, str | None]:
        """The two answers with the most votes, of equals the first that came."""
        ranked = sorted(self._counts, key=self._counts.__getitem__, reverse=True)
        first, second, *_ = [*ranked, None, None]
        return first, second

    def against(self, leader: str) -> float:
        """The least evidence that there is against any other answer being the mode."""
        others = [bet for rival, bet in self._seen.items() if rival != leader]
        return min(bet.capital for bet in (self._unseen, *others))
