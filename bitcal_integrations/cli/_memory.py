"""A model's memory report as rows: what each part takes, and took before it was quantized.

Reads the dict of `memory_report()`; knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

FLOAT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Row(NamedTuple):
    """One part of a model: bytes as plain floats, bytes now, and bits per weight where counted."""

    part: str
    before: int
    after: int
    bits: float | None = None


def rows(memory: Mapping[str, Any], dtype: str) -> list[Row]:
    """A row per part and weight type, the total last; parts without bytes are left out.

    >>> linears = {"qint8": {"bytes": 110, "weights": 100, "bits_per_weight": 8.8}}
    >>> report = {"linears": linears, "head": {}, "embeddings": 40, "other": 2, "total": 152}
    >>> for row in rows(report, "bfloat16"):
    ...     print(*row)
    linears (qint8) 200 110 8.8
    embeddings 40 40 None
    other 2 2 None
    total 242 152 None
    """
    found = []
    for part in ("linears", "head"):
        for kind, entry in memory[part].items():
            before = entry["weights"] * FLOAT_BYTES.get(dtype, 4)
            found.append(Row(f"{part} ({kind})", before, entry["bytes"], entry["bits_per_weight"]))
    for part in ("embeddings", "other"):
        if memory[part]:
            found.append(Row(part, memory[part], memory[part]))
    return [*found, Row("total", sum(row.before for row in found), memory["total"])]


def draw_memory(screen: Any, found: list[Row], dtype: str) -> None:
    """The rows as a table."""
    from rich import box
    from rich.table import Table

    from bitcal_integrations.cli._show import size

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("memory")
    for heading in (f"in {dtype}", "now", "bits per weight"):
        table.add_column(heading, justify="right")
    for row in found:
        bits = "" if row.bits is None else f"{row.bits:.2f}"
        last = row.part == "total"
        table.add_row(
            row.part, size(row.before), size(row.after), bits, style="bold" if last else ""
        )
    screen.print(table)
