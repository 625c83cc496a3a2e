"""One layer's keys and values with room to spare, so that a step copies only what is new.

transformers' own layer copies all that it holds at every token, and whenever a row leaves or joins.
Here keys and values are windows on larger tables: a token fills spare columns on the right, a row
that joins fills spare rows, and the last row takes the seat of one that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

_SPARE = 8  # a new table has an eighth more than it must hold
_COLUMNS = 16  # and at least this many columns more


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A DynamicLayer; to change it in another way than by these methods costs one copy."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None
        self._left = 0  # the tables' column where the window begins
        self._shown: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        return int(self.keys.shape[0])

    @property
    def width(self) -> int:
        return int(self.keys.shape[-2])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *given: Any, **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized or torch.is_grad_enabled():  # gradients need what was there
            super().update(key_states, value_states, *given, **options)
        else:
            old, new = self.width, int(key_states.shape[-2])
            self._reserve(self.rows, 0, new)
            self._show(self.rows, old + new)
            self.keys[:, :, old:], self.values[:, :, old:] = key_states, value_states
        return self.keys, self.values

    def seat(self, other: DynamicLayer) -> None:
        """Take the rows of another layer in behind mine; the shorter are padded on the left."""
        rows, more, width = self.rows, len(other.keys), int(other.keys.shape[-2])
        wider = max(0, width - self.width)
        self._reserve(rows + more, wider, 0)
        self._left -= wider
        self._show(rows + more, self.width + wider)
        for mine, theirs in zip(self._held(), (other.keys, other.values), strict=True):
            mine[:rows, :, :wider] = 0  # padding is masked, and must be numbers for that
            mine[rows:, :, : self.width - width] = 0
            mine[rows:, :, self.width - width :] = theirs

    def keep(self, order: Sequence[int]) -> None:
        """Let only these rows stay; a row moves only where `order` puts it elsewhere."""
        moved = [(seat, row) for seat, row in enumerate(order) if seat != row]
        if not self._housed() or not _swaps(moved, len(order)):
            self.batch_select_indices(torch.tensor(order, device=self.keys.device))
            return
        if moved:
            seats, rows = (list(x) for x in zip(*moved, strict=True))
            for states in self._held():
                states[seats] = states[rows]
        self._show(len(order), self.width)

    def trim_left(self, columns: int) -> None:
        """Forget the first columns."""
        if self._housed():
            self._left += columns
            self._show(self.rows, self.width - columns)
        else:
            self.keys, self.values = self.keys[:, :, columns:], self.values[:, :, columns:]

    def _housed(self) -> bool:
        """Whether keys and values still are the windows that were shown last."""
        return self._tables is not None and self.keys is self._shown

    def _show(self, rows: int, width: int) -> None:
        assert self._tables is not None
        keys, values = self._tables
        part = (slice(rows), slice(None), slice(self._left, self._left + width))
        self.keys = self._shown = keys[part]
        self.values = values[part]

    def _reserve(self, rows: int, left: int, right: int) -> None:
        """Have tables with room for so many rows, and for so many columns beside mine."""
        need = self.width + right
        if self._housed() and self._tables is not None:
            there, _, columns, _ = self._tables[0].shape
            if rows <= there and left <= self._left and self._left + need <= columns:
                return
        seats = rows + rows // _SPARE if rows > self.rows else rows
        columns = left + need + max(_COLUMNS, need // _SPARE)
        keys, values = (x.new_empty((seats, x.shape[1], columns, x.shape[3])) for x in self._held())
        mine, old = (self.rows, self.width), self._held()
        self._tables, self._left = (keys, values), left
        self._show(*mine)
        self.keys[:], self.values[:] = old

    def _held(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys, self.values


def _swaps(moved: Sequence[tuple[int, int]], count: int) -> bool:
    """Whether each row that moves comes from behind the seats that stay."""
    return all(row >= count for _, row in moved)
