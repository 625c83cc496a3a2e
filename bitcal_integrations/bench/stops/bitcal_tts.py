"""The controller of BitCal-TTS as a baseline: what it would have done to a run logged to its end.

It is the algorithm of the released code, constants included. Greedy decoding in chunks of 16
tokens; at the end of a chunk it reads the entropy of its last token, whether chunks repeat, and
whether "####" has been written. The cosine of hidden states, its third signal, is taken as 1, its
largest value, which makes it stop as often as it ever could.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitcal_integrations.types import Step

CHUNK = 16
MARK = "####"
SHORTEST = 8  # characters of a chunk below which a pair is not compared
SCALES = ((4, 0.85), (8, 1.0))  # the confidence's factor up to so many bits
DELAYS = ((4, 32), (8, 16))  # tokens from the mark to the stop
WIDE_SCALE, WIDE_DELAY = 1.05, 0


@dataclass(frozen=True)
class Chunk:
    """A chunk's end: tokens so far, entropy (nats) of its last token, and what the text shows.

    `alike` says whether it is the same text as the chunk before, None where one of them is too
    short or there is none; `marked` whether "####" has been written. `answer` is what the text so
    far answers, and `right` whether that is right.
    """

    tokens: int
    entropy: float
    alike: bool | None
    marked: bool
    answer: str | None = None
    right: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Chunk:
        return cls(**data)


@dataclass(frozen=True)
class Controller:
    """The constants of the headline runs: token budget, `floor` before which nothing stops,
    `least` tokens that must remain, and entropies (nats) that stop or break off.
    """

    bits: int
    budget: int
    floor: int = 128
    least: int = 16
    breaks: float = 5.0
    calm: float = 2.0
    sure: float = 0.75

    def stop(self, chunks: Sequence[Chunk]) -> int | None:
        """The chunk at whose end it stops; None where the run comes to its own end.

        >>> marked = [Chunk(16 * n, 0.1, False, n >= 2) for n in range(1, 6)]
        >>> Controller(4, 512, floor=0).stop(marked)       # 32 tokens after the mark
        3
        >>> Controller(16, 512, floor=0).stop(marked), Controller(4, 512).stop(marked)
        (1, None)
        """
        seen_at: int | None = None
        pairs: list[bool] = []
        for at, chunk in enumerate(chunks):
            pairs += [] if chunk.alike is None else [chunk.alike]
            if chunk.marked and seen_at is None:
                seen_at = chunk.tokens
            if self.budget - chunk.tokens < self.least or chunk.entropy >= self.breaks:
                return at
            if chunk.tokens < self.floor:
                continue
            waited = seen_at is not None and chunk.tokens - seen_at >= self._delay
            if waited or (
                chunk.entropy <= self.calm and self.confidence(chunk, pairs) >= self.sure
            ):
                return at
        return None

    def confidence(self, chunk: Chunk, pairs: Sequence[bool]) -> float:
        """Its confidence at a chunk's end; `pairs` says of all pairs so far whether they repeat.

        >>> round(Controller(4, 512).confidence(Chunk(64, 0.0, False, False), [False] * 3), 4)
        0.5525
        """
        repeats = sum(pairs) / len(pairs) if pairs else 1.0
        calm = 1 - min(1.0, chunk.entropy / 10)
        value = self._scale * (0.40 * calm + 0.35 * repeats + 0.25 * 1.0)
        return min(max(value, 0.0), 1.0)

    @property
    def _scale(self) -> float:
        return next((scale for most, scale in SCALES if self.bits <= most), WIDE_SCALE)

    @property
    def _delay(self) -> int:
        return next((delay for most, delay in DELAYS if self.bits <= most), WIDE_DELAY)


def chunks_of(raw: str, steps: Sequence[Step], judge: Any = None) -> tuple[Chunk, ...]:
    """The whole chunks of a run from its tokens; `judge(text)` gives (answer, right) of a text."""
    found: list[Chunk] = []
    before: str | None = None
    for end in range(CHUNK, len(steps) + 1, CHUNK):
        last = steps[end - 1]
        text, so_far = raw[steps[end - CHUNK].start : last.end], raw[: last.end]
        short = before is None or min(len(text), len(before)) < SHORTEST
        answer, right = judge(so_far) if judge else (None, None)
        found.append(
            Chunk(
                end, last.entropy, None if short else text == before, MARK in so_far, answer, right
            )
        )
        before = text
    return tuple(found)
