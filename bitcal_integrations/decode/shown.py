"""How much of a growing text may be shown, and where a stop string cuts it.

Local rows and answers of servers share it. It works on text only, and knows no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitcal_integrations.decode.reasoning import Reasoning


class Shown:
    """Follows one text: `upto` is the number of its characters that are out."""

    def __init__(self, stops: Sequence[str], reasoning: Reasoning) -> None:
        self.upto = 0
        self._stops, self._reasoning = stops, reasoning

    def stop_in(self, raw: str, start: int) -> tuple[int, str] | None:
        """The first stop string that the text from `start` on completes, and where it begins."""
        hits = []
        for stop in self._stops:
            at = raw.find(stop, max(self.upto, start - len(stop) + 1))
            if at >= 0:
                hits.append((at, stop))
        return min(hits, key=lambda hit: (hit[0], -len(hit[1]))) if hits else None

    def release(self, raw: str, ended: bool) -> tuple[str, bool]:
        """The text that may be shown now, and whether it is reasoning.

        What could begin a stop string or a reasoning mark waits, and so does content that came
        in one piece with the end of the reasoning: a step shows the one or the other.
        """
        end, content = len(raw), self._reasoning.start
        if not ended:
            end -= held_back(raw, self.upto, self._stops)
            end = self.upto if self._reasoning.undecided else end
        reasoning = content is None or self.upto < content
        if reasoning and content is not None:
            if ended and end > content:
                reasoning, self.upto = False, content
            else:
                end = min(end, content)
        text = raw[self.upto : end]
        self.upto = max(self.upto, end)
        return text, reasoning


def held_back(raw: str, shown: int, stops: Sequence[str]) -> int:
    """How many last characters could be the beginning of a stop string.

    >>> held_back("Answer: 4\\n", 0, ("\\n\\n",))
    1
    """
    longest = max((len(s) for s in stops), default=1) - 1
    for size in range(min(longest, len(raw) - shown), 0, -1):
        if any(stop.startswith(raw[-size:]) for stop in stops):
            return size
    return 0
