"""The self-test of `bitcal doctor`: a tiny random model is quantized, run, saved and run again.

Needs no network and no built-in model. Knows the public functions only, so that it fails where a
user's program would fail.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROMPT, TOKENS = "one two three", 8
WORDS = ("one", "two", "three", "four", "five", "six", "seven")


def self_test(kinds: tuple[str, ...] = ("qint8", "qint4")) -> Iterator[tuple[str, str]]:
    """(what was checked, what went wrong or "") for each weight type."""
    with tempfile.TemporaryDirectory() as place:
        plain = Path(place, "plain")
        _, problem = _tried(make_model, plain)
        if problem:
            yield "make a tiny model", problem
            return
        for kind in kinds:
            saved = Path(place, kind)
            first, problem = _tried(answer, plain, kind, saved)
            yield f"{kind}: quantized, answers", problem
            if not problem:
                again, problem = _tried(answer, saved, "auto")
                differs = "" if first == again else f"{first} became {again}"
                yield f"{kind}: saved and loaded, answers the same", problem or differs


def _tried(step: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """What a step returned, and what it raised in one line; "" when it went well."""
    try:
        return step(*arguments), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"


def make_model(folder: Path) -> None:
    """A two-layer Llama with seeded random weights and a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed
    from transformers.utils.logging import disable_progress_bar

    vocabulary = {word: i for i, word in enumerate(("<unk>", "<s>", "</s>", *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=256,  # int4 groups of 128 apply above 128
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    set_seed(0)
    disable_progress_bar()  # of save_pretrained, between our own lines
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def answer(folder: Path, weights: str, save: Path | None = None) -> list[tuple[int, float]]:
    """The tokens that a model answers with and their log-probabilities; saves it if asked."""
    from bitcal_integrations.model import load

    with load(str(folder), weights=weights) as model:
        record = model.ask(PROMPT, max_new_tokens=TOKENS)
        if save is not None:
            model.save(save)
    if not record.generation.steps:
        raise RuntimeError("the model gave no token")
    return [(step.token_id, step.logprob) for step in record.generation.steps]
