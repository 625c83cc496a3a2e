"""What the commands share in showing things: consoles, progress, sizes. Knows no model."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int, str], None]


def console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console that writes plain text into a pipe and never colours words by itself."""
    from rich.console import Console

    return Console(stderr=stderr, quiet=quiet, highlight=False, emoji=False, markup=False)


def dim(line: str) -> None:
    """One quiet line on stderr."""
    console(stderr=True).print(line, style="dim", soft_wrap=True)


def print_json(data: Any) -> None:
    """Strict JSON on stdout: a number that JSON does not have becomes null."""
    print(json.dumps(finite(data), indent=2, ensure_ascii=False, allow_nan=False, default=str))


def finite(data: Any) -> Any:
    """The same data with None for every float that is not finite.

    >>> finite({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, (list, tuple)) else data


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar on stderr that is gone when it is done; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total, label: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def report(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label[:40])

        yield report


def size(n_bytes: float) -> str:
    """Bytes as people read them.

    >>> size(512), size(1536), size(3 * 2**30)
    ('512 B', '1.5 KiB', '3.0 GiB')
    """
    value, units = float(n_bytes), ("B", "KiB", "MiB", "GiB", "TiB")
    step = 0
    while value >= 1024 and step < len(units) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.0f} B" if step == 0 else f"{value:.1f} {units[step]}"


def bar(share: float, width: int) -> str:
    """A share in [0, 1] as a bar of this many characters.

    >>> bar(0.5, 4), bar(1.0, 4), bar(0.0, 4)
    ('━━──', '━━━━', '────')
    """
    full = round(min(max(share, 0.0), 1.0) * width)
    return "━" * full + "─" * (width - full)


def score(value: float | None) -> str:
    """Two digits, rounded down, so that nothing reads as having reached a threshold it missed.

    >>> score(0.699), score(0.7), score(None)
    ('0.69', '0.70', 'none')
    """
    return "none" if value is None else f"{math.floor(value * 100 + 1e-9) / 100:.2f}"


def shorten(text: str, width: int) -> str:
    """One line of at most this many characters.

    >>> shorten("a long  line", 8)
    'a long …'
    """
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
