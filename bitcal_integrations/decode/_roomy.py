"""One layer's keys and values with room to spare, so that a step copies only what is new.

transformers' own layer copies all that it holds at every token, and whenever a row leaves or joins.
Here keys and values are windows on larger tables: a token fills spare columns on the right, a row
that joins takes the seat of one that has left, and the last row that of one that leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

_SPARE, _COLUMNS = 16, 16  # a new table is a sixteenth wider than it must be, or so many columns
_MOSTLY_EMPTY = 2  # times what is held: such a table is given back


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A DynamicLayer; keys or values that others have replaced cost new tables at the next step."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._tables: tuple[torch.Tensor, torch.Tensor] | None = None
        self._left = 0  # the tables' column where the window begins
        self._shown: tuple[torch.Tensor, torch.Tensor] | None = None

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
        for mine, theirs in zip(self._windows(), (other.keys, other.values), strict=True):
            mine[:rows, :, :wider] = 0  # padding is masked, and must be numbers for that
            mine[rows:, :, : self.width - width] = 0
            mine[rows:, :, self.width - width :] = theirs

    def keep(self, order: Sequence[int]) -> None:
        """Let only these rows stay; one that changes its seat comes from behind all that stay."""
        for seat, row in enumerate(order):
            if seat != row:
                for states in self._windows():
                    states[seat] = states[row]
        self._narrow(len(order), 0)

    def trim_left(self, columns: int) -> None:
        """Forget the first columns."""
        self._narrow(self.rows, columns)

    def _narrow(self, rows: int, columns: int) -> None:
        """Hold the first rows, without the first columns, and no table that is mostly empty."""
        if self._housed():
            self._left += columns
            self._show(rows, self.width - columns)
        else:
            self.keys, self.values = (x[:rows, :, columns:] for x in self._windows())
        column = self.keys[:, :, :1].nbytes
        held = self.keys.untyped_storage().nbytes()
        if held > _MOSTLY_EMPTY * (self.keys.nbytes + _COLUMNS * column):
            self.keys, self.values = (x.clone() for x in self._windows())
            self._tables = self._shown = None

    def _housed(self) -> bool:
        """Whether keys and values still are the windows that were shown last."""
        shown = self._shown
        return shown is not None and self.keys is shown[0] and self.values is shown[1]

    def _show(self, rows: int, width: int) -> None:
        assert self._tables is not None
        keys, values = self._tables
        part = (slice(rows), slice(None), slice(self._left, self._left + width))
        self.keys, self.values = self._shown = keys[part], values[part]

    def _reserve(self, rows: int, left: int, right: int) -> None:
        """Have tables with room for so many rows, and for so many columns beside mine."""
        need = self.width + right
        if self._housed() and self._tables is not None:
            there, _, columns, _ = self._tables[0].shape
            if rows <= there and left <= self._left and self._left + need <= columns:
                return
        columns = left + need + max(_COLUMNS, need // _SPARE)
        keys, values = (
            x.new_empty((rows, x.shape[1], columns, x.shape[3])) for x in self._windows()
        )
        mine, old = (self.rows, self.width), self._windows()
        self._tables, self._left = (keys, values), left
        self._show(*mine)
        self.keys[:], self.values[:] = old

    def _windows(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys, self.values
