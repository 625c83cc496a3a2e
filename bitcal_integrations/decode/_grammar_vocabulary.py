"""A tokenizer's tokens as bytes: how a text is spelt in the fewest tokens, and the mask library.

Knows tokenizers and llguidance, which the extra `tools` installs; it is imported when a grammar
is first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcal_integrations.errors import BadRequest, EngineError, MissingExtra

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_SAMPLE = '{"a": [1, -2.5, true], "b": "é"}'
NEVER = float("inf")


class Vocabulary:
    """The tokens of one tokenizer for a model whose logits are `size` wide."""

    def __init__(self, tokenizer: Any, size: int, eos: Iterable[int]) -> None:
        self.size = size
        self._tokenizer = tokenizer
        read = _read(tokenizer, size)
        self._bytes = [read.decode_bytes([i]) for i in range(size)]
        self.special = {i for i in range(size) if read.is_special_token(i)}
        self._ids: dict[bytes, int] = {}
        for token in reversed(range(size)):
            if token not in self.special and self._bytes[token]:
                self._ids[self._bytes[token]] = token
        self._longest = max(map(len, self._ids), default=0)
        self.strips_space = self._check()
        self._ll = self._with_own_spelling(sorted(eos))

    def bytes_of(self, token: int) -> bytes:
        return self._bytes[token]

    def spell(self, data: bytes) -> list[int] | None:
        """The ids of the fewest tokens that spell these bytes; None if none do."""
        best: list[tuple[float, int]] = [(0, -1)]  # per length: tokens, the last one
        for end in range(1, len(data) + 1):
            options = [(NEVER, -1)]
            for begin in range(max(0, end - self._longest), end):
                token = self._ids.get(data[begin:end])
                if token is not None:
                    options.append((best[begin][0] + 1, token))
            best.append(min(options, key=lambda option: option[0]))
        if best[-1][0] == NEVER:
            return None
        ids: list[int] = []
        end = len(data)
        while end:
            ids.append(best[end][1])
            end -= len(self._bytes[ids[-1]])
        return ids[::-1]

    def count(self, data: bytes) -> float:
        ids = self.spell(data)
        return NEVER if ids is None else len(ids)

    def mark(self, text: str) -> int | None:
        """The id of the special token that is this text."""
        return next((token for token in self.alone(text) if token in self.special), None)

    def alone(self, text: str) -> list[int]:
        """The token that is this text, special or not; empty if there is none."""
        token = self._tokenizer.get_vocab().get(text)
        return [] if token is None else [token]

    def single(self, allowed: Iterable[int]) -> list[int]:
        """The tokens that are one of these bytes."""
        found = (self._ids.get(bytes((byte,))) for byte in allowed)
        return [token for token in found if token is not None]

    def matcher(self, lark: str) -> LLMatcher:
        """A matcher at the start of a grammar."""
        from llguidance import LLMatcher

        made = LLMatcher(self._ll, LLMatcher.grammar_from_lark(lark), log_level=0)
        if made.is_error():
            raise BadRequest(f"the grammar is more than can be served: {made.get_error():.300}")
        return made

    def allowed(self, matcher: LLMatcher) -> np.ndarray:
        """Which tokens may come next, one bool each."""
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise EngineError(f"the grammar cannot go on: {matcher.get_error():.300}")
        return np.unpackbits(bits, bitorder="little", count=self.size).astype(bool)

    def _with_own_spelling(self, eos: list[int]) -> LLTokenizer:
        """The library's tokenizer, which spells what is forced as this vocabulary does."""
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(
            TokenizerWrapper(_Spelling(self, eos[0] if eos else 0)),
            n_vocab=self.size,
            eos_token=eos or None,
        )

    def canonical(self, data: bytes) -> list[int]:
        """The ids that the model is used to see for these bytes, as far as that can be known.

        Some tokenizers begin every text with a space, and read marks in it: such ids are not used.
        """
        text = data.decode(errors="ignore")
        # Not through the tokenizer itself, which sets its truncation: the worker calls this.
        ids = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if b"".join(self._bytes[i] for i in ids) == data and self.special.isdisjoint(ids):
            return list(ids)
        return self.spell(data) or []

    def _check(self) -> bool:
        """Whether decoding drops a first space; an error if it does not give the bytes back."""
        ids, behind = self.spell(_SAMPLE.encode()), self.spell(f" {_SAMPLE}".encode())
        plain, shown = self._shown(ids), self._shown(behind)
        if plain != _SAMPLE or shown not in (_SAMPLE, f" {_SAMPLE}"):
            raise BadRequest(
                f"this model's tokenizer cannot write JSON exactly: {_SAMPLE} comes out as {plain}",
                "Use a model with a byte-level or SentencePiece tokenizer for tools and schemas.",
            )
        return shown == _SAMPLE

    def _shown(self, ids: list[int] | None) -> str | None:
        if ids is None:
            return None
        decode = self._tokenizer.decode
        return str(decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class _Spelling:
    """A vocabulary in the shape that the library's TokenizerWrapper reads."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, eos: int) -> None:
        self.eos_token_id = eos
        self.tokens = vocabulary._bytes
        self.special_token_ids = sorted(vocabulary.special)
        self._canonical = vocabulary.canonical

    def __call__(self, data: bytes) -> list[int]:
        return self._canonical(data)


def _read(tokenizer: Any, size: int) -> LLTokenizer:
    """The library's own reading of a tokenizer, for the bytes of its tokens."""
    try:
        from llguidance.hf import from_tokenizer
    except ImportError:
        raise MissingExtra("llguidance", "tools") from None
    try:
        return from_tokenizer(tokenizer, n_vocab=size, slices=[])
    except Exception as err:
        raise BadRequest(
            f"tools and schemas cannot be served with this tokenizer: {err!s:.200}",
            "Use a model with a fast tokenizer.",
        ) from err
