"""The released GSM8K runs of 4-bit Qwen models, and Qwen's token counts, where both are present.

The runs lie beside the checkout, not in it; tests that need them are skipped without them.
"""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

RELEASED = Path(__file__).parents[2] / "shared" / "data" / "bitcal_tts" / "records.jsonl.gz"

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def released_records() -> list[dict[str, Any]]:
    with gzip.open(RELEASED, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@lru_cache(maxsize=1)
def _qwen() -> Any:
    import tiktoken

    spec = importlib.util.find_spec("dashscope")
    assert spec is not None
    assert spec.origin is not None
    lines = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)}
    return tiktoken.Encoding("qwen", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={})


@cache
def qwen_encode(text: str) -> list[int]:
    """Token ids as the released counts have them."""
    return list(_qwen().encode(text, disallowed_special=()))


def qwen_pieces(text: str) -> list[bytes]:
    return [_qwen().decode_single_token_bytes(token) for token in qwen_encode(text)]
