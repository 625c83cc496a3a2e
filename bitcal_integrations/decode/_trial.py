"""A trial answer: what a run would say if it were asked for its answer now.

It is spoken in the row's own place in the batch, token by token: the closing text, then the
likeliest tokens until the answer is complete. It knows one row's text so far and the numbers of the
tokens, no model and no rules; whether the run ends with it is decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bitcal_integrations.decide.logged import Trial
from bitcal_integrations.decode.detokenize import Detokenizer
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.grading import Parser


class Word(NamedTuple):
    """A token with its log-probability, entropy, margin and logsumexp, and its alternatives."""

    token: int
    numbers: tuple[float, float, float, float]
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Closing:
    """The text that asks for the answer at one place, and its tokens.

    `opens` is what of the text belongs to the content: what closes the reasoning does not.
    """

    ids: tuple[int, ...]
    opens: str


@dataclass(frozen=True)
class Ending:
    """What ends a trial answer: the row's parser, its stop strings, end of sequence, a length."""

    parse: Parser | None
    stops: tuple[str, ...]
    eos: Collection[int]
    most: int


class Telling:
    """A trial answer under way; `forced` is the next token while the closing text is said."""

    def __init__(self, closing: Closing, content: str, pieces: Detokenizer, ending: Ending) -> None:
        self.words: list[Word] = []
        self.closing = len(closing.ids)
        self._ids, self._ending, self._pieces = closing.ids, ending, pieces
        self._asked = len(content) + len(closing.opens)
        self._text = content + closing.opens
        self._starts: list[int] = []  # of the answer's tokens, in the text
        self._whole = False

    @property
    def forced(self) -> int | None:
        said = len(self.words)
        return self._ids[said] if said < self.closing else None

    def take(self, word: Word) -> bool:
        """Go on by a token; whether the answer has ended."""
        self.words.append(word)
        if len(self.words) <= self.closing:
            self._pieces.push(word.token)
            return False
        ended = word.token in self._ending.eos
        self._starts.append(len(self._text))
        self._text += self._pieces.flush() if ended else self._pieces.push(word.token)
        self._whole = ended or self._complete()
        return self._whole or len(self.words) - self.closing >= self._ending.most

    def _complete(self) -> bool:
        said = self._text[self._asked :]
        cuts = [at for stop in self._ending.stops if (at := said.find(stop)) >= 0]
        if cuts:
            self._text = self._text[: self._asked + min(cuts)]
            return True
        parse, grown = self._ending.parse, len(self._text) > self._starts[-1]
        if parse is not None and grown and parse(self._text, ended=False) is not None:
            return True
        return "\n" in said.lstrip()

    def trial(self) -> Trial:
        """The answer, how sure the model is of its tokens, and what it all took."""
        span = self._span() if self._whole else None
        answer = self._text[slice(*span)] if span else None
        spoken = self.words[self.closing :]
        inside = [w for w, s in zip(spoken, self._ranges(), strict=True) if _touch(s, span)]
        told = [word.numbers for word in inside or spoken]
        scores = {
            "trial_probability": math.exp(sum(numbers[0] for numbers in told)),
            "trial_entropy": -spoken[0].numbers[1],
            "trial_margin": min(numbers[2] for numbers in told),
        }
        return Trial(answer, scores, len(self.words))

    def _span(self) -> tuple[int, int] | None:
        """Where the answer stands in the text; without a parser it is all that was said."""
        if self._ending.parse is None:
            return said_after(self._text, self._asked)
        found = self._ending.parse(self._text, ended=True)
        return (found.start, found.end) if found and found.text.strip() else None

    def _ranges(self) -> list[tuple[int, int]]:
        """Characters of each token; those that began a character share it with its last."""
        ends: list[int] = []
        before, end = -1, len(self._text)
        for start in reversed(self._starts):
            ends.append(ends[-1] if start == before else end)
            before = end = start
        return list(zip(self._starts, reversed(ends), strict=True))


def said_after(text: str, start: int) -> tuple[int, int] | None:
    """The range of what stands behind a place, without blanks; None for nothing.

    >>> said_after("Answer: 42 \\n", 7)
    (8, 10)
    """
    said = text[start:]
    begin = start + len(said) - len(said.lstrip())
    end = start + len(said.rstrip())
    return (begin, end) if begin < end else None


def _touch(place: tuple[int, int], span: tuple[int, int] | None) -> bool:
    return span is not None and place[0] < span[1] and place[1] > span[0]


class Spelling:
    """How closing texts are spelt by one tokenizer: encoded once each, behind other text."""

    def __init__(
        self, encode: Callable[[str], Sequence[int]], decode: Callable[[Sequence[int]], str]
    ) -> None:
        self._encode, self._decode = encode, decode
        self._kept: dict[str, tuple[int, ...]] = {}

    def __call__(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that follows another one."""
        if text not in self._kept:
            self._kept[text] = self._behind(text)
        return self._kept[text]

    def check(self, closing: str) -> None:
        """Refuse a closing text that does not come out of the tokenizer as it went in."""
        said = self._decode(self("\n" + closing))
        if said.strip() != closing.strip():
            raise BadRequest(
                f"closing={closing!r} is not allowed: this model's tokenizer makes {said!r} of it"
            )

    def _behind(self, text: str) -> tuple[int, ...]:
        """A tokenizer may begin every text with a space, so it is not encoded alone."""
        ahead = "a" if text.startswith("\n") else "a\n"
        first, both = self._encode(ahead), self._encode(ahead + text)
        if list(both[: len(first)]) == list(first) and len(both) > len(first):
            return tuple(both[len(first) :])
        return tuple(self._encode(text))
