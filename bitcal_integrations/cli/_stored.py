"""Whether kept answers lie in a database of records or in a plain file. Opens no database."""

from __future__ import annotations

SQLITE = b"SQLite format 3\0"


def is_store(path: str) -> bool:
    """Whether it is a database: a URL, or a file that begins as SQLite's do.

    >>> is_store("postgresql://host/records"), is_store("answers.jsonl")
    (True, False)
    """
    if "://" in path:
        return True
    try:
        with open(path, "rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError:
        return False
