"""Words with which a text begins to doubt or to check what it has: a sign that its answer stands.

DEER (arXiv 2504.15895) takes trial answers where such a word comes; quantized models are known to
use more of them. Knows the tokens of one tokenizer, English words only, and no model.
"""

from __future__ import annotations

from typing import Any

WORDS = (
    "actually", "alternatively", "but", "check", "checking", "double", "hmm", "hold", "however",
    "let", "recheck", "verify", "verifying", "verification", "wait",
)  # fmt: skip
SHORTEST = 4  # characters of a word's beginning that a token may be
_SPACES = " \t\nĠ▁Ċ"  # the last three are how vocabularies write a space and a new line


def cue_ids(tokenizer: Any) -> list[int]:
    """The tokens that are such a word, or enough of its beginning."""
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return [i for i, name in enumerate(names) if isinstance(name, str) and _is_cue(name)]


def _is_cue(name: str) -> bool:
    """
    >>> _is_cue("ĠWait"), _is_cue("Altern"), _is_cue("al"), _is_cue("Checkers")
    (True, True, False, False)
    """
    text = name.strip(_SPACES).lower()
    return text in WORDS or (len(text) >= SHORTEST and any(w.startswith(text) for w in WORDS))
