"""One budget of new tokens for a list of prompts, spent where it gains most.

It goes to the rows that need the fewest further tokens to come to their end, since a text without
an end is seldom right: in rounds, in which rows go on from where they were, and of which each knows
better how long texts are for their prompts. A closing text, where there is one, asks rows that the
budget cuts for their answer with what is left. All choices follow from the rows' own tokens, so
equal calls give equal answers. Early stops are refused beside it, since their promises are about
texts that nobody cuts. It says which requests to make next and takes what came of them; it asks no
engine itself and knows no confidence.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any, TypeAlias

from bitcal_integrations.decode.onward import Onward
from bitcal_integrations.engines._ticket import Outcome
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.features import PROBE
from bitcal_integrations.types import Confidence, Generation, Request, Timing

Result: TypeAlias = "Outcome | Exception"
Rounds: TypeAlias = Generator[list[Request], list[Result], list[Result]]

# The least that a row gets to go on with, and how much more than it is expected to need.
LEAST, SLACK = 8, 1.25
# While too few rows have ended to tell how long texts are, this share of the others goes on.
PILOT = 0.25
OPTIONS = ("total_tokens", "closing")
# The longest answer behind a closing text.
ANSWER_TOKENS = 8
CUT = "cut before its end by the shared budget"
PIECES = "the shared budget let the text come in pieces, of which no hidden state is kept"


@dataclass(frozen=True)
class Budget:
    """At most `total` new tokens for all of `requests`; `closing` asks a cut row for its answer."""

    requests: tuple[Request, ...]
    total: int
    closing: str | None
    tokenizer: Any

    def __post_init__(self) -> None:
        whole = isinstance(self.total, int) and not isinstance(self.total, bool)
        if not whole or self.total < 1:
            raise BadRequest(
                f"total_tokens={self.total!r} is not allowed: a whole number of at least 1"
            )
        if self.closing is not None and not (isinstance(self.closing, str) and self.closing):
            raise BadRequest(f"closing={self.closing!r} must be a text that asks for the answer")
        if self.tokenizer is None:
            raise BadRequest(
                "total_tokens is not allowed: only a model in this process can go on with a text"
            )
        for request in self.requests:
            if request.constrained:
                raise BadRequest(
                    "total_tokens cannot be combined with tools or response_schema: a text that is "
                    "cut could not go on as it began"
                )
            if request.early_stop is not None:
                asked = f"{request.early_stop!r:.60}"
                raise BadRequest(
                    f"total_tokens cannot be combined with early_stop ({asked}): a budget "
                    "cuts texts and takes them up again, and an early stop was certified on texts "
                    "that nobody cuts, so its promise would not hold",
                    "Use early_stop where texts should end when they are settled, and total_tokens "
                    "where a list must not take more.",
                )

    def collect(self, ask: Callable[[Sequence[Request]], list[Result]]) -> list[Result]:
        """Spend it: `ask` gives what came of each request, in order."""
        rounds = self.rounds()
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send(ask(requests))
        except StopIteration as end:
            return list(end.value)

    async def acollect(
        self, ask: Callable[[Sequence[Request]], Awaitable[list[Result]]]
    ) -> list[Result]:
        """`collect` for an event loop."""
        rounds = self.rounds()
        try:
            requests = next(rounds)
            while True:
                requests = rounds.send(await ask(requests))
        except StopIteration as end:
            return list(end.value)

    def rounds(self) -> Rounds:
        """Yields requests to make, is sent what came of them, and returns what came of each row."""
        rows = [_Row(request, self.tokenizer, self.closing) for request in self.requests]
        while given := _next(rows, self._left(rows), self.closing is not None):
            results = yield [row.text.further(tokens) for row, tokens in given]
            for (row, tokens), result in zip(given, results, strict=True):
                row.take(result, tokens)
        stopped = {"level": "budget", "reason": f"{CUT} of {self.total} tokens"}
        while asked := self._closed_next(rows):
            results = yield [row.text.closing_request(tokens) for row, tokens in asked]
            for (row, _), result in zip(asked, results, strict=True):
                row.close(result, stopped)
        for row in rows:
            if row.open:
                row.text.cut(stopped)
        return [row.result() for row in rows]

    def _left(self, rows: Sequence[_Row]) -> int:
        return self.total - sum(row.text.used for row in rows)

    def _closed_next(self, rows: Sequence[_Row]) -> list[tuple[_Row, int]]:
        """Which rows to ask for their answers now, those that are nearest to it first."""
        if self.closing is None:
            return []
        left = self._left(rows)
        asked: list[tuple[_Row, int]] = []
        for row in _nearest(rows):
            cost = row.text.closing_cost()
            if cost + ANSWER_TOKENS > left and (asked or cost >= left):
                break
            asked.append((row, min(ANSWER_TOKENS, left - cost)))
            left -= cost + ANSWER_TOKENS
        return asked


class _Row:
    """One prompt: its text so far, and its time."""

    def __init__(self, request: Request, tokenizer: Any, closing: str | None) -> None:
        self.text = Onward(request, tokenizer, closing)
        self._error: Exception | None = None
        self._timing: Timing | None = None

    @property
    def open(self) -> bool:
        return self.text.open and self._error is None

    def take(self, result: Result, tokens: int) -> None:
        if (outcome := self._timed(result)) is not None:
            self.text.take(outcome.generation, tokens)

    def close(self, result: Result, stopped: dict[str, Any]) -> None:
        if (outcome := self._timed(result)) is not None:
            self.text.close(outcome.generation, stopped)

    def _timed(self, result: Result) -> Outcome | None:
        """The outcome, with its time added to that of the pieces before it; None for an error."""
        if isinstance(result, Exception):
            self._error = result
            return None
        before = self._timing
        self._timing = (
            replace(before, total=before.total + result.timing.total) if before else result.timing
        )
        return result

    def result(self) -> Result:
        return self._error or Outcome(self.text.generation(), self._timing or Timing())


def as_budget(
    requests: tuple[Request, ...],
    tokenizer: Any,
    total_tokens: int | None = None,
    closing: str | None = None,
) -> Budget | None:
    """The budget that `ask` was given; None where it was given none."""
    if total_tokens is not None:
        return Budget(requests, total_tokens, closing, tokenizer)
    if closing is not None:
        raise BadRequest(f"closing={closing!r} is not allowed without total_tokens")
    return None


def _next(rows: Sequence[_Row], free: int, closes: bool) -> list[tuple[_Row, int]]:
    """Who goes on, and for how many tokens: the fewest still to come first, as far as it goes.

    Where rows can be closed, what brings none to its end is left for that.
    """
    ratio, nearest = _tokens_per_prompt_token(rows), _nearest(rows)
    if free < 1 or (closes and ratio and nearest and _expected(nearest[0].text, ratio) > free):
        return []
    some = math.ceil(PILOT * len(nearest))
    given: list[tuple[_Row, int]] = []
    for row in nearest if ratio else nearest[:some]:
        expected = SLACK * _expected(row.text, ratio) if ratio else free / some
        tokens = min(max(int(expected), 1), row.text.limit - row.text.used)
        if given and tokens > free:
            break
        given.append((row, min(tokens, free)))
        free -= min(tokens, free)
        if free < 1:
            break
    return given


def _nearest(rows: Sequence[_Row]) -> list[_Row]:
    """The rows that go on, that with the fewest tokens still to come first."""
    ratio = _tokens_per_prompt_token(rows) or 1.0
    return sorted((r for r in rows if r.open), key=lambda r: _expected(r.text, ratio))


def _tokens_per_prompt_token(rows: Sequence[_Row]) -> float | None:
    """How long a text is for its prompt, as most of those that have ended; None for too few."""
    ended = [row.text for row in rows if not row.open and row.text.prompt_tokens]
    ratios = [text.used / text.prompt_tokens for text in ended]
    return quantiles(ratios, n=10)[-1] if len(ratios) > 1 else None


def _expected(text: Onward, ratio: float) -> float:
    """How many tokens a text is expected to need to its end."""
    return max(ratio * text.prompt_tokens - text.used, text.used / 4, LEAST)


def as_told(generation: Generation, confidence: Confidence) -> Confidence:
    """The confidence of an answer; unknown where the budget asked for it before its time.

    Of a text that came in pieces no hidden state is kept: a confidence that needs it is not known.
    """
    stopped = generation.stopped or {}
    if stopped.get("level") != "budget":
        if confidence.reason.startswith("not measured") and PROBE in confidence.reason:
            return replace(confidence, reason=f"{confidence.reason} ({PIECES})")
        return confidence
    return replace(
        confidence, value=None, calibrated=False, low=None, high=None, interval=None,
        reason=str(stopped["reason"]),
    )  # fmt: skip
