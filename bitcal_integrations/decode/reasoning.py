"""Where the content of a text begins, after a block of reasoning.

Works on text only; which marks exist is in `prompt.THINK`.
"""

from __future__ import annotations

from bitcal_integrations.decode.prompt import THINK

_LONGEST = max(len(start) for start, _ in THINK)


class Reasoning:
    """Follows a growing text: `start` is where content begins, None while reasoning is open.

    >>> r = Reasoning(None)
    >>> r.update("<think>2 + 2"), r.update("<think>2 + 2</think>\\n\\n4")
    (None, 22)
    """

    def __init__(self, open_mark: str | None) -> None:
        self._opened_by_prompt = open_mark
        self._seen = 0  # up to where no closing mark begins
        self._close_end = 0
        self._settled = False  # the start of the content cannot move any more
        self.start: int | None = 0
        self.undecided = False  # the text so far could be the beginning of a mark
        self.inner: tuple[int, int] | None = None  # the reasoning's own characters

    def update(self, raw: str) -> int | None:
        """Where content begins in `raw`, which has grown since the last call."""
        if self._settled:
            return self.start
        if self.inner is not None:
            return self._skip_blank(raw)
        marks = self._marks(raw)
        head = raw.lstrip()[:_LONGEST]
        self.undecided = marks is None and any(start.startswith(head) for start, _ in THINK)
        if marks is None:
            self._settled = len(raw.lstrip()) >= _LONGEST
            return self.start
        begin, close = marks
        at = raw.find(close, max(begin, self._seen))
        if at < 0:
            self._seen = max(0, len(raw) - len(close))
            self.start = None
            return None
        self.inner = (begin, at)
        self._close_end = at + len(close)
        return self._skip_blank(raw)

    def _skip_blank(self, raw: str) -> int | None:
        rest = raw[self._close_end :].lstrip()
        self._settled = bool(rest)
        self.start = len(raw) - len(rest)
        return self.start

    def _marks(self, raw: str) -> tuple[int, str] | None:
        """Where reasoning begins, and the mark that closes it; None if the text has none."""
        for start, close in THINK:
            if self._opened_by_prompt == start:
                return 0, close
        head = raw.lstrip()[:_LONGEST]
        for start, close in THINK:
            if head.startswith(start):
                return raw.index(start) + len(start), close
        return None

    def closes(self, raw: str) -> str | None:
        """The mark that would close the reasoning that is open; None where none is.

        >>> r = Reasoning(None)
        >>> r.update("<think>2 + 2"), r.closes("<think>2 + 2")
        (None, '</think>')
        """
        marks = self._marks(raw) if self.start is None else None
        return marks[1] if marks else None

    def text(self, raw: str) -> str | None:
        """The reasoning so far, or None if the text has none."""
        if self.inner is not None:
            return raw[slice(*self.inner)].strip()
        marks = self._marks(raw)
        return raw[marks[0] :].strip() if marks else None
