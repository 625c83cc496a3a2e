"""An answer of a server while it comes: its text, its tokens, and everything that can end it.

The checks are those of the local decode loop in the same order: stop string, end of the text,
complete answer, loop, length. It is fed pieces and knows nothing about HTTP.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bitcal_integrations.decode.loops import EVERY, WINDOW, repeated_tail
from bitcal_integrations.decode.reasoning import Reasoning
from bitcal_integrations.decode.shown import Shown
from bitcal_integrations.engines._remote_scored import UNKNOWN_ID, Scored, spread
from bitcal_integrations.engines._remote_spelling import ranges
from bitcal_integrations.errors import EngineError
from bitcal_integrations.grading import as_parser
from bitcal_integrations.types import Answer, Finish, Generation, Request, Step

# How servers say that a text was withheld; every other word of theirs but "length" is a stop.
_ENDS: dict[str, Finish] = {"length": "length", "content_filter": "error"}


@dataclass(frozen=True)
class Token:
    """A token's spelling and log-probability, and the best alternatives, the likeliest first."""

    text: str
    logprob: float
    top: tuple[Scored, ...] = ()


@dataclass(frozen=True)
class Piece:
    """What one event of a stream brings.

    `finish` is the server's word for the end, `usage` the tokens of prompt and answer so far,
    `calls` the parts of tool calls, `reasoning` a text that the server keeps apart itself.
    """

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: str | None = None
    usage: tuple[int, int] | None = None
    reasoning: str = ""
    calls: tuple[dict[str, Any], ...] = ()


class RemoteText:
    """State of one answer; `push` takes a piece, gives its Steps, and may set `finish`."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.raw = ""
        self.finish: Finish | None = None
        self.usage: tuple[int, int] | None = None
        self.tokens = 0  # that came with a log-probability
        self._steps: list[Step] = []
        self._unfinished: list[int] = []  # steps whose token is part of a character still to come
        self._stop_string: str | None = None
        self._told_end = False  # the server ended it, so that its count of tokens is final
        self._ids: dict[str, int] = {}  # a number for every spelling, to find loops with
        self._order: list[int] = []
        self._apart: list[str] = []
        self._reasoning = Reasoning(None)
        self._shown = Shown(request.stop, self._reasoning)
        self._parse = as_parser(request.parser)

    def push(self, piece: Piece) -> Iterator[Step]:
        """Take a piece token by token; what comes after the end is left out."""
        self.usage = piece.usage or self.usage
        if self.finish is not None:
            return
        if piece.reasoning:
            yield from self._aside(piece)
        if piece.text or not piece.reasoning:
            yield from self._grow(piece)
        if piece.finish is not None and self.finish is None:
            self._end(piece.finish)
            yield from self._rest()

    def _aside(self, piece: Piece) -> Iterator[Step]:
        """Reasoning that the server keeps apart: it has no place in the text."""
        self._apart.append(piece.reasoning)
        at = len(self.raw)
        tokens: Sequence[Token | None] = () if piece.text else piece.tokens
        for index, token in enumerate(tokens or (None,)):
            last = index >= len(tokens) - 1
            yield self._step(token, at, piece.reasoning if last else "", True)

    def _grow(self, piece: Piece) -> Iterator[Step]:
        base, tokens = self.raw, piece.tokens
        for index, (token, start, end) in enumerate(_places(piece)):
            self.raw = max(self.raw, base + piece.text[:end], key=len)
            spelt = token.text if token else piece.text
            self._order.append(self._ids.setdefault(spelt, len(self._ids)))
            final = index >= len(tokens) - 1
            self._judge(len(base) + start, piece.finish if final else None)
            text, reasoning = self._shown.release(self.raw, self.finish is not None)
            yield self._step(token, min(len(base) + start, len(self.raw)), text, reasoning)
            if self.finish is not None:
                return

    def _step(self, token: Token | None, start: int, text: str, reasoning: bool) -> Step:
        end, numbers = len(self.raw), (math.nan, math.nan, math.nan)
        top: tuple[Scored, ...] = ()
        if token is not None:
            self.tokens += 1
            numbers = (token.logprob, *spread(token.text, token.logprob, token.top))
            top = token.top[: self.request.top_logprobs]
        if end > start:  # tokens that began a character share the range of the one that ends it
            for index in self._unfinished:
                self._steps[index] = replace(self._steps[index], start=start, end=end)
            self._unfinished.clear()
        elif self.finish is None and not reasoning:
            self._unfinished.append(len(self._steps))
        ids, names = tuple((UNKNOWN_ID, value) for _, value in top), tuple(n for n, _ in top)
        step = Step(UNKNOWN_ID, text, start, end, *numbers, math.nan, ids, names, reasoning)
        self._steps.append(step)
        return step

    def _judge(self, start: int, ended: str | None) -> None:
        content = self._reasoning.update(self.raw)
        if self._cut_at_stop(start):
            self.finish = "stop"
        elif ended is not None and ended != "length":
            self._end(ended)
        elif content is not None and self._answered(content, start):
            self.finish = "answer"
        elif self.request.loop_stop and self._loops():
            self.finish = "loop"
        elif ended is not None:
            self._end(ended)

    def _end(self, word: str) -> None:
        self.finish, self._told_end = _ENDS.get(word, "stop"), True

    def _loops(self) -> bool:
        if len(self._order) % EVERY != EVERY - 1:
            return False
        return bool(repeated_tail(self._order[-WINDOW:]))

    def _cut_at_stop(self, start: int) -> bool:
        found = self._shown.stop_in(self.raw, start)
        if found is None:
            return False
        at, self._stop_string = found
        self.raw = self.raw[:at]
        return True

    def _answered(self, content: int, start: int) -> bool:
        if self._parse is None or start == len(self.raw):
            return False
        return _guarded(self._parse, self.raw[content:], ended=False) is not None

    def _rest(self) -> Iterator[Step]:
        """A step for what still waited when the end came without a token."""
        text, reasoning = self._shown.release(self.raw, self.finish is not None)
        if text:
            end = len(self.raw)
            if self._steps:
                last = self._steps[-1]
                self._steps[-1] = replace(last, text=last.text + text)
            yield _unscored(text, end - len(text), end, reasoning)

    def add_calls(self, text: str) -> Step:
        """Tool calls that the server gives apart from the text, as the text they stand for."""
        start = len(self.raw)
        self.raw += text
        self._shown.upto = len(self.raw)
        return _unscored(text, start, len(self.raw))

    def generation(self) -> Generation:
        """What has come, as a Generation; without log-probabilities it has no steps."""
        end, found = len(self.raw), self._reasoning.start
        content = end if found is None else min(found, end)
        steps = [s for s in self._steps if not math.isnan(s.logprob)]
        inner = self._reasoning.text(self.raw)
        return Generation(
            raw=self.raw,
            finish=self.finish or "cancelled",
            steps=tuple(
                s if s.end <= end else replace(s, start=min(s.start, end), end=end) for s in steps
            ),
            prompt_tokens=self.usage[0] if self.usage else 0,
            n_tokens=self._count(),
            content_start=content,
            reasoning="".join(self._apart).strip() if self._apart else inner,
            answer=self._answer(content),
            stop_string=self._stop_string,
        )

    @property
    def total(self) -> int:
        """Tokens of prompt and answer, as far as the server has told."""
        return self._count() + (self.usage[0] if self.usage else 0)

    def _count(self) -> int:
        told = self.usage[1] if self.usage and (self._told_end or not self.tokens) else 0
        return told or self.tokens or len(self._steps)

    def _answer(self, content: int) -> Answer | None:
        """The parsed answer; a text cut at its limit may hold half of one, which is none."""
        if self._parse is None:
            return None
        whole = self.finish not in ("length", "cancelled", None)
        found = _guarded(self._parse, self.raw[content:], ended=whole)
        return found and Answer(found.text, found.start + content, found.end + content)


def _places(piece: Piece) -> Iterator[tuple[Token | None, int, int]]:
    """The tokens of a piece, each with the characters of the piece's text that it stands for.

    A token that only begins a character ends where it starts. A piece without tokens is one.
    """
    if len(piece.tokens) <= 1:
        if piece.tokens or piece.text:
            yield (piece.tokens or (None,))[0], 0, len(piece.text)
        return
    found = ranges(piece.text, [t.text for t in piece.tokens])
    for token, place in zip(piece.tokens, found, strict=True):
        start, end, last = place or (0, 0, True)
        yield token, start, end if last else start


def _unscored(text: str, start: int, end: int, reasoning: bool = False) -> Step:
    nan = math.nan
    return Step(UNKNOWN_ID, text, start, end, nan, nan, nan, nan, reasoning=reasoning)


def _guarded(parse: Callable[..., Answer | None], text: str, ended: bool) -> Answer | None:
    """What a parser finds; an exit in there ends its request, not the process."""
    try:
        return parse(text, ended=ended)
    except Exception:
        raise
    except BaseException as err:
        raise EngineError(f"the parser of the request raised {err!r}") from err
