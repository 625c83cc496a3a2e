"""Rows that decode together: each step feeds all of them once; rows leave and join in between.

Ids, mask and cache are left-padded to the longest row. The last column of `ids` is the newest
token, which the cache does not hold yet. Where a model's cache cannot be cut (see `cache.py`),
the batch keeps its first rows to the end and takes no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import torch

from bitcal_integrations.decode import cache as kv
from bitcal_integrations.decode import hidden
from bitcal_integrations.decode._trial import Word
from bitcal_integrations.decode.checkpoints import Watcher
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.decode.soft import soft_of
from bitcal_integrations.decode.tap import Tap, Tapped
from bitcal_integrations.errors import EngineError
from bitcal_integrations.types import Step

Measure = Callable[..., Tapped]


class Batch:
    """`admit` rows, then `step` until `rows` is empty; each gives the new (row, step) pairs."""

    def __init__(self, net: Net, tap: Measure | None = None) -> None:
        self.net = net
        self.rows: list[Row] = []
        self._seats: list[Row] = []  # one per cache row; equal to rows unless the cache is fixed
        self._tap = tap or Tap()
        self._clear()

    def _clear(self) -> None:
        self.rows, self._seats = [], []
        self._ids: torch.Tensor = torch.empty(0)
        self._mask: torch.Tensor = torch.empty(0)
        self._cache: Any = None
        self._carry: dict[str, Any] = {}
        self._loose = False  # a row was put back, so that there may be columns of padding alone

    @property
    def open(self) -> bool:
        """Whether more rows can join now."""
        return self.net.joinable or not self.rows

    def admit(self, rows: Sequence[Row]) -> list[tuple[Row, Step]]:
        """Prefill these rows together (a row that has begun goes on where it was)."""
        if not rows:
            return []
        for row in rows:
            if row.watch is not None:
                row.watch.drop_trial()
        ids, mask = self._pad([row.ids for row in rows])
        with hidden.reading(self.net, rows) as last:
            logits, cache, carry = self.net.prefill(ids, mask, [soft_of(r.request) for r in rows])
        if self.net.encoder_decoder:
            ids = self.net.decoder_start().expand(len(rows), 1)
            mask = torch.ones_like(ids)
        new = Batch(self.net, self._tap)
        new.rows, new._seats = list(rows), list(rows)
        new._ids, new._mask, new._cache, new._carry = ids, mask, cache, carry
        events = new._take(logits, last)
        self._merge(new)
        return events

    def step(self) -> list[tuple[Row, Step]]:
        """One token for every row."""
        with hidden.reading(self.net, self._seats) as last:
            logits, self._cache = self.net.step(self._ids, self._mask, self._cache, self._carry)
        return self._take(logits, last)

    def remove(self, rows: Iterable[Row]) -> None:
        """Drop rows that are cancelled or have finished."""
        gone = {id(row) for row in rows}
        if gone:
            self._keep([id(row) not in gone for row in self._seats])

    def evict(self) -> list[Row]:
        """Give all rows back and forget the cache; they can be admitted again."""
        rows = self.rows
        self._clear()
        return rows

    # ---- one step --------------------------------------------------------------------------

    def _take(self, logits: torch.Tensor, last: hidden.Last) -> list[tuple[Row, Step]]:
        """Choose, measure and push one token per row; let the finished rows go."""
        hidden.show(self._seats, last)
        events, asides = self._watch(logits) if any(_is_watched(r) for r in self.rows) else ([], {})
        best = logits.argmax(-1)
        chosen = self._choose(logits, best, asides)
        wanted = max((row.request.top_logprobs for row in self.rows), default=0)
        words = _words(self._tap(logits, chosen, best, wanted), chosen.tolist())
        for seat, (row, word) in enumerate(zip(self._seats, words, strict=True)):
            if row.finish is None and seat not in asides:
                with row.guard():
                    _check_finite(word.numbers, row.new_tokens)
                    top = word.top[: row.request.top_logprobs]
                    events.append((row, row.push(word.token, word.numbers, top)))
        for seat, token in asides.items():
            chosen[seat] = token
        self._ids = torch.cat([self._ids, chosen.unsqueeze(-1)], dim=-1)
        self._mask = torch.cat([self._mask, torch.ones_like(chosen).unsqueeze(-1)], dim=-1)
        self._keep([row.finish is None for row in self._seats])
        return events

    # ---- trial answers ---------------------------------------------------------------------

    def _watch(self, logits: torch.Tensor) -> tuple[list[tuple[Row, Step]], dict[int, int]]:
        """Turn to the rows at a checkpoint and in a trial answer, which takes its row's place.

        Gives the steps of rows that end with theirs, and the next token of every other one, by
        seat. A row that takes its answer back goes on from the logits of its checkpoint.
        """
        for row, mine in zip(self._seats, logits, strict=True):
            if row.finish is None and row.watch is not None and row.watch.due:
                with row.guard():
                    if row.watch.look(row, mine) == "hopeless":
                        row.give_up()
        events: list[tuple[Row, Step]] = []
        asides: dict[int, int] = {}
        for seat, watch, word in self._tell(logits):
            row = self._seats[seat]
            with row.guard():
                _check_finite(word.numbers, row.new_tokens)
                verdict = watch.take(word)
                if verdict == "trial":
                    asides[seat] = word.token
                elif verdict == "settled":
                    events += ((row, step) for step in row.settle(watch.end_trial()))
                else:
                    self._take_back(seat, watch, logits)
                    if verdict == "hopeless":
                        row.give_up()
        return events, asides

    def _tell(self, logits: torch.Tensor) -> list[tuple[int, Watcher, Word]]:
        """The next token of every trial answer, with the seat of its row."""
        told = [
            (seat, row.watch, row.watch.telling)
            for seat, row in enumerate(self._seats)
            if row.finish is None and row.watch is not None and row.watch.telling is not None
        ]
        if not told:
            return []
        seats = [seat for seat, _, _ in told]
        mine = logits[seats]
        best = mine.argmax(-1)
        forced = [telling.forced for _, _, telling in told]
        tokens = [b if f is None else f for f, b in zip(forced, best.tolist(), strict=True)]
        wanted = max(self._seats[seat].request.top_logprobs for seat in seats)
        chosen = torch.tensor(tokens, device=logits.device)
        words = _words(self._tap(mine, chosen, best, wanted), tokens)
        return [(seat, watch, word) for (seat, watch, _), word in zip(told, words, strict=True)]

    def _take_back(self, seat: int, watch: Watcher, logits: torch.Tensor) -> None:
        """Put a row back to its checkpoint: it goes on as if nothing had been asked."""
        assert watch.kept is not None
        logits[seat] = watch.kept
        told = watch.end_trial()
        kv.drop_last(self._cache, seat, len(told.words) - 1)  # the last one was not fed
        ids, mask = self._pad([self._seats[seat].ids])
        width = self._ids.shape[1]
        self._ids[seat] = _widen(ids, width, self.net.pad)[0]
        self._mask[seat] = _widen(mask, width, 0)[0]
        self._loose = True

    def _choose(
        self, logits: torch.Tensor, best: torch.Tensor, asides: Collection[int]
    ) -> torch.Tensor:
        chosen = best
        for i, row in enumerate(self._seats):
            if row.finish is None and not row.choose.plain and i not in asides:
                chosen = best.clone() if chosen is best else chosen
                seen = self._ids if self.net.encoder_decoder else self._ids[:, -len(row.ids) :]
                with row.guard():
                    chosen[i] = row.choose(seen[i], logits[i])
        return chosen

    # ---- rows come and go ------------------------------------------------------------------

    def _keep(self, stay: list[bool]) -> None:
        if all(stay):
            if self._loose:
                self._trim()
            return
        if not any(stay):
            self._clear()
            return
        if not self.net.joinable:
            kept = {id(r) for r, s in zip(self._seats, stay, strict=True) if s}
            self.rows = [row for row in self.rows if id(row) in kept]
            if not self.rows:
                self._clear()
            return
        order = _order(stay)
        self.rows = self._seats = [self._seats[i] for i in order]
        kv.keep_rows(self._cache, order)
        self._ids, self._mask = self._ids[order], self._mask[order]
        self._trim()

    def _trim(self) -> None:
        """Forget columns that are padding in every row."""
        self._loose = False
        spare = self._mask.shape[1] - int(self._mask.sum(-1).max())
        kv.trim_left(self._cache, spare)
        self._ids, self._mask = self._ids[:, spare:], self._mask[:, spare:]

    def _merge(self, new: Batch) -> None:
        if not new.rows:
            return
        if not self.rows:
            self.rows, self._seats = new.rows, new._seats
            self._ids, self._mask = new._ids, new._mask
            self._cache, self._carry = new._cache, new._carry
            return
        width = max(self._ids.shape[1], new._ids.shape[1])
        kv.join(self._cache, new._cache)
        self._ids = torch.cat([_widen(b._ids, width, self.net.pad) for b in (self, new)])
        self._mask = torch.cat([_widen(b._mask, width, 0) for b in (self, new)])
        self.rows = self._seats = [*self.rows, *new.rows]

    def _pad(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, rows))
        ids = [[self.net.pad] * (width - len(r)) + r for r in rows]
        mask = [[0] * (width - len(r)) + [1] * len(r) for r in rows]
        device = self.net.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _order(stay: Sequence[bool]) -> list[int]:
    """The seats that stay, in the order in which the fewest rows move: the last fill the gaps.

    >>> _order([True, False, True, False, True])
    [0, 4, 2]
    """
    count = sum(stay)
    last = iter([i for i in range(len(stay) - 1, count - 1, -1) if stay[i]])
    return [i if stay[i] else next(last) for i in range(count)]


def _is_watched(row: Row) -> bool:
    """Whether a row is at a checkpoint or in a trial answer."""
    return row.watch is not None and (row.watch.due or row.watch.telling is not None)


def _words(tapped: Tapped, tokens: Sequence[int]) -> list[Word]:
    numbers = zip(tapped.logprob, tapped.entropy, tapped.margin, tapped.logsumexp, strict=True)
    return [Word(*word) for word in zip(tokens, numbers, tapped.top, strict=True)]


def _check_finite(numbers: Sequence[float], token: int) -> None:
    """Refuse logits that are no numbers: no choice and no signal made from them means anything."""
    if not math.isfinite(numbers[-1]):
        raise EngineError(
            f"the model gave logits that are not finite at new token {token}",
            "Load it with dtype='float32', or with weights of more bits.",
        )


def _widen(table: torch.Tensor, width: int, fill: int) -> torch.Tensor:
    return torch.nn.functional.pad(table, (width - table.shape[1], 0), value=fill)
