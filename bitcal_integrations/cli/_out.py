"""The folder that a command writes after long work: looked at before, and claimed till then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def claimed(out: str) -> Iterator[None]:
    """Refuse now what could not be written at the end, and a second command for the same folder."""
    from bitcal_integrations.errors import SaveError
    from bitcal_integrations.kept import lock
    from bitcal_integrations.quantize._store import check_target

    target = Path(out).expanduser().absolute()
    check_target(target)
    path = target.with_name(target.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as err:
        raise SaveError(f"cannot write beside {out!r}: {err.strerror}") from None
    with file:
        lock(file, target, "a model")
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no file that is open
                path.unlink()
