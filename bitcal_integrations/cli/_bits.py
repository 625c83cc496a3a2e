"""What `bitcal quantize --budget` does more: chooses a weight type per layer, and shows which.

Knows how a plan reads, not how it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitcal_integrations.bits import BitPlan

TITLES = {"kl": "nats per token from the unquantized answers", "brier": "Brier score"}
GIVEN = ("data", "objective", "parser", "grader")
COLUMNS = ("qint2", "qint4", "qint8", "float")


def kept_beside(out: str) -> Path:
    """Where a run that is cut finds again what it measured."""
    path = Path(out).expanduser().absolute()
    return path.with_name(path.name + ".bits.json")


def check(budget: str | None, weights: str, given: Mapping[str, Any]) -> None:
    """Refuse what would be passed over."""
    from bitcal_integrations.errors import BadRequest

    if budget is None:
        for name, value in given.items():
            if value is not None:
                raise BadRequest(f"--{name} belongs to --budget")
    elif weights != "qint4":
        raise BadRequest(f"--weights {weights} and --budget exclude each other: it chooses types")
    elif given.get("grader") is not None and given["objective"] != "brier":
        raise BadRequest("--grader belongs to --objective brier: kl needs no right answers")


def chosen(
    model: str, budget: str, out: str, given: Mapping[str, Any], loading: Mapping[str, Any]
) -> BitPlan:
    """The types of a model's layers under a budget, from data or from its own texts."""
    from bitcal_integrations.bits import choose_bits
    from bitcal_integrations.model import load

    options = {name: given[name] for name in GIVEN if given[name] is not None}
    how = {name: loading[name] for name in ("dtype", "device", "progress")}
    with load(model, weights=None, profile=None, **how) as floats:
        return choose_bits(
            floats, options.pop("data", None), budget=budget, exclude=loading["exclude"],
            repair=loading["repair"], keep=kept_beside(out), progress=loading["progress"],
            **options,
        )  # fmt: skip


def draw(screen: Any, found: BitPlan, objective: str) -> None:
    """Which layers have which type, and what they would cost in the smallest."""
    from rich import box
    from rich.table import Table

    from bitcal_integrations.bits import by_kind
    from bitcal_integrations.cli._show import size

    rows = by_kind(found)
    used = [name for name in COLUMNS if any(name in row.numbers for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("layers", overflow="fold")
    for name in used:
        table.add_column(name)
    for name in ("cost", "in the smallest"):
        table.add_column(name, justify="right")
    for row in rows:
        numbers = [ranges(row.numbers.get(name, ())) for name in used]
        table.add_row(row.kind, *numbers, f"{row.cost:.5f}", f"{row.lowest:.5f}")
    screen.print(table)
    for line in (
        f"cost: {TITLES[objective]}, of each layer alone; the dearest stay high",
        f"linear layers: {size(found.bytes)} of {size(found.float_bytes)}, "
        f"{found.bytes / found.float_bytes:.3f} of them, budget {size(found.budget)}",
        f"together: {found.unquantized:.5f} unquantized, {found.measured:.5f} so "
        f"({found.predicted:.5f} if costs added up; {len(found.swaps)} exchanges kept)",
    ):
        screen.print(line, soft_wrap=True)


def ranges(numbers: Sequence[str]) -> str:
    """Layer numbers as people write them; a dash for none, a count where they are no numbers.

    >>> ranges(["0", "1", "2", "5"]), ranges([]), ranges(["0.1", "0.2"])
    ('0-2, 5', '-', '2 layers')
    """
    if not numbers:
        return "-"
    if not all(number.isdecimal() for number in numbers):
        return f"{len(numbers)} layers" if len(numbers) > 1 else "yes"
    runs: list[list[int]] = []
    for number in sorted(map(int, numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
