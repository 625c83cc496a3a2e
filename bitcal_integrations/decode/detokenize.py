"""Text of a growing token list, piece by piece; valid UTF-8 comes out as when decoded whole.

A token may end inside a character, and some tokenizers drop the first space of what they decode;
so each piece is the difference between decoding a short window with and without the new token.
It knows nothing about stops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\ufffd"


class Detokenizer:
    """`push(token)` gives the new text, `flush()` what was held back as an unfinished character.

    `literal` names special tokens whose text must stay visible, as {id: text}.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], literal: dict[int, str] | None = None
    ) -> None:
        self._decode = decode
        self._literal = literal or {}
        self._ids: list[int] = []
        self._anchor = 0  # where the window begins
        self._shown = 0  # tokens whose text is out

    def push(self, token: int) -> str:
        if token in self._literal:
            piece = self.flush() + self._literal[token]
            self._ids, self._anchor, self._shown = [], 0, 0
            return piece
        self._ids.append(token)
        return self._emit(final=False)

    def flush(self) -> str:
        return self._emit(final=True)

    def _emit(self, final: bool) -> str:
        before = self._decode(self._ids[self._anchor : self._shown])
        after = self._decode(self._ids[self._anchor :])
        if after.endswith(_BROKEN) and not final and len(self._ids) - self._shown < 8:
            return ""
        if len(after) <= len(before) and not final:
            return ""
        self._anchor = self._shown
        self._shown = len(self._ids)
        return after[len(before) :]
