"""Who may join a batch: rows, bytes of keys and values, tokens of a prefill, and past failures.

A batch is as wide as its longest row may become, so its cells are rows x width. When memory runs
out, half of the cells that failed are allowed, and twice as many again after a while of good turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitcal_integrations.engines._job import Job

_GOOD_TURNS = 256


class Room:
    """Limits of a batch; `fits` is asked for each job that wants to join."""

    def __init__(self, rows: int, kv_bytes: int, kv_bytes_per_token: int, prefill: int) -> None:
        self._rows, self._prefill = rows, prefill
        self._kv_bytes, self._kv_per_token = kv_bytes, kv_bytes_per_token
        self._cells: int | None = None  # what memory has taught, if it ran out
        self._failed_cells = self._good = self._halved = 0

    def bytes_needed(self, job_cells: int) -> int:
        return job_cells * self._kv_per_token

    @property
    def kv_bytes(self) -> int:
        return self._kv_bytes

    def fits(self, inside: Sequence[Job], joining: Sequence[Job], job: Job) -> bool:
        """Whether `job` may join `inside` (all that run or join) with `joining`, its prefill."""
        if not inside:
            return True
        if job.alone or any(other.alone for other in inside):
            return False
        rows = len(inside) + 1
        cells = rows * max(job.cells, *(other.cells for other in inside))
        prefill = (len(joining) + 1) * max(len(j.row.ids) for j in (*joining, job))
        return (
            rows <= self._rows
            and cells * self._kv_per_token <= self._kv_bytes
            and (self._cells is None or cells <= self._cells)
            and (not joining or prefill <= self._prefill)
        )

    def shrink(self, jobs: Sequence[Job]) -> int:
        """Memory ran out with these jobs: allow half of their cells; the number allowed."""
        self._failed_cells = len(jobs) * max(job.cells for job in jobs)
        self._cells = self._failed_cells // 2
        self._good, self._halved = 0, self._halved + 1
        return self._cells

    def good_turn(self) -> None:
        """A step went well: after enough of them, allow more again."""
        if self._cells is None:
            return
        self._good += 1
        if self._good >= _GOOD_TURNS:
            self._good, wider = 0, self._cells * 2
            self._cells = wider if wider < 2 * self._failed_cells else None

    def report(self) -> dict[str, Any]:
        return {
            "max_batch": self._rows,
            "kv_bytes_budget": self._kv_bytes,
            "kv_bytes_per_token": self._kv_per_token,
            "cells_allowed": self._cells,
            "halved_for_memory": self._halved,
        }
