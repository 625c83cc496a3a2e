"""steps -> stream -> generate: the loop without a queue, in the caller's own thread.

Each is a fold of the one before. All rows start as one batch; for requests that arrive over time
use an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitcal_integrations.decode.batch import Batch, Measure
from bitcal_integrations.decode.net import Net
from bitcal_integrations.decode.row import Row
from bitcal_integrations.types import Generation, Request, Step


def steps(net: Net, rows: Sequence[Row], tap: Measure | None = None) -> Iterator[tuple[Row, Step]]:
    """Every token of every row, as it comes. A row's own error is raised when the rest is done."""
    batch = Batch(net, tap)
    yield from batch.admit(rows)
    while batch.rows:
        yield from batch.step()
    for row in rows:
        if row.error is not None:
            raise row.error


def stream(net: Net, request: Request) -> Iterator[Step | Generation]:
    """The tokens of one request, then its Generation."""
    row = Row(net, request)
    for _, step in steps(net, [row]):
        yield step
    yield row.generation()


def generate(net: Net, requests: Sequence[Request]) -> list[Generation]:
    """The finished texts of a batch, in order."""
    rows = [Row(net, request) for request in requests]
    for _ in steps(net, rows):
        pass
    return [row.generation() for row in rows]
