"""A small random model whose hidden states tell what its probabilities do not.

It says letters to each prompt. An answer is right where its first letter is of the first half of
the alphabet: the state that it was chosen from tells that, and how sure the model was does not.
"""

from __future__ import annotations

from random import Random
from typing import Any

from families import tiny_model, tiny_tokenizer

from bitcal_integrations import load
from bitcal_integrations.features import DEFAULT_FEATURES, PROBE
from bitcal_integrations.model import CalibratedModel

WITH_PROBE = (*DEFAULT_FEATURES, PROBE)
HOW: dict[str, Any] = {"grader": lambda answer, gold: answer.casefold() < gold}
ASKED: dict[str, Any] = {"max_new_tokens": 4, "parser": "regex:[A-Za-z]"}


def prompts(n: int, seed: int = 0) -> list[str]:
    rng = Random(seed)
    return ["".join(rng.choice("abcdefgh ") for _ in range(12)) for _ in range(n)]


EXAMPLES = [{"prompt": p, "gold": "n", "id": str(i)} for i, p in enumerate(prompts(400))]
FRESH = prompts(40, seed=1)


def made(seed: int = 0) -> CalibratedModel:
    """Says letters only, and other ones for another seed."""
    model, tokenizer = tiny_model("llama", layers=2, hidden=64, seed=seed), tiny_tokenizer()
    spelt = {i: tokenizer.decode([i]) for i in range(272)}
    quiet = [i for i, s in spelt.items() if not (s.isascii() and s.isalpha())]
    model.generation_config.suppress_tokens = quiet
    return load(
        model, tokenizer=tokenizer, weights=None, dtype="float32", profile=None, max_batch=64
    )
