"""What the benchmarks run on: random Llamas, a word tokenizer, requests that never end early.

Nothing ends a text but its length: the models have no end-of-sequence token. A model's random
weights are made once per vocabulary and copied for each use, so a copy can be quantized in place.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from bitcal_integrations.bench._scale import Shape, scale_of
from bitcal_integrations.decode.net import Net
from bitcal_integrations.quantize._dtype import pick_device, pick_dtype
from bitcal_integrations.quantize.weights import load_weights
from bitcal_integrations.types import Request

EXCLUDE = "*lm_head"


class Bed:
    """The sizes, the device and the models of one run."""

    def __init__(self, size: str = "default", device: str = "auto") -> None:
        self.device = pick_device(device)
        self.scale = scale_of(size, self.device)
        self.dtype, _ = pick_dtype("auto", self.device, None)
        self._made: tuple[int, Any] | None = None

    def model(self, vocabulary: int, dtype: torch.dtype) -> Any:
        """A fresh copy of the plain model of this vocabulary."""
        if self._made is None or self._made[0] != vocabulary:
            self._made = None  # the last one goes before the next one comes
            self._made = (vocabulary, llama(self.scale.model, vocabulary, self.device))
        return copy.deepcopy(self._made[1]).to(dtype)

    def plain(self, vocabulary: int, dtype: torch.dtype) -> Net:
        """The model without quantization, for our loop and for `generate`."""
        return Net(self.model(vocabulary, dtype), tokenizer(vocabulary))

    def quantized(self, vocabulary: int, dtype: torch.dtype, weights: str) -> Net:
        """The model as our loader quantizes it."""
        words = tokenizer(vocabulary)
        model = self.model(vocabulary, dtype)
        loaded = load_weights(model, weights=weights, tokenizer=words, exclude=EXCLUDE)
        return Net(loaded.model, words)

    def quanto(self, vocabulary: int, dtype: torch.dtype, weights: str) -> Net:
        """The model as quanto's own functions quantize it, the same layers as ours."""
        from optimum.quanto import freeze, qtypes, quantize

        model = self.model(vocabulary, dtype)
        quantize(model, weights=qtypes[weights], exclude=EXCLUDE)
        freeze(model)
        return Net(model, tokenizer(vocabulary))

    def prompts(self, vocabulary: int, count: int) -> list[str]:
        """Random words, of a length between the two of the scale; the same ones every time."""
        dice = random.Random(vocabulary)
        lengths = [dice.randint(*self.scale.prompt) for _ in range(count)]
        return [" ".join(f"w{dice.randrange(2, vocabulary)}" for _ in range(n)) for n in lengths]

    def requests(self, vocabulary: int, lengths: Sequence[int]) -> list[Request]:
        """One greedy request per length, in tokens, that stops for nothing else."""
        prompts = self.prompts(vocabulary, len(lengths))
        return [
            Request(prompt, max_new_tokens=length, loop_stop=False)
            for prompt, length in zip(prompts, lengths, strict=True)
        ]

    def release(self) -> None:
        """Forget the kept model."""
        self._made = None


def llama(shape: Shape, vocabulary: int, device: torch.device) -> Any:
    """A float32 Llama with seeded random weights; its head is its embedding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@cache
def tokenizer(vocabulary: int) -> Any:
    """One word per id, so that every token that a random model gives has a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<unk>": 1, **{f"w{i}": i for i in range(2, vocabulary)}}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")
