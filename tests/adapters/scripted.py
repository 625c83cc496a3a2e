"""A tiny PreTrainedModel that says planned texts: an instruction-following model for tests.

It is a real two-layer Llama with a byte-level tokenizer, a cache and all; only, where its prompt
ends with a turn that the script knows, its logits favour the next byte of the planned reply. The
decode loop, the grammar and the confidence see an ordinary model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from families import CHAT_TEMPLATE, tiny_config, tiny_tokenizer
from transformers import LlamaForCausalLM

from bitcal_integrations import CalibratedModel, load

MARK = "<s>assistant: "  # where the template of families.py begins the answer
FAVOUR = 12.0  # nats above the others: a probability of .998 among 272 tokens


class ScriptedModel(LlamaForCausalLM):
    """Says `script[part]` to a last turn that holds `part`, the first such; else `default`."""

    _rows: Any = ()  # the ids of every row, whole: a step itself sees only the newest

    def say(self, script: Mapping[str, str], default: str, tokenizer: Any) -> None:
        self._script, self._default, self._tokenizer = dict(script), default, tokenizer
        self._mark = self._ids_of(MARK)
        self._plans: dict[tuple[int, ...], list[int]] = {}

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        self._rows = [
            row[mask.bool()].tolist()
            for row, mask in zip(input_ids, kwargs["attention_mask"], strict=True)
        ]
        return super().prepare_inputs_for_generation(input_ids, **kwargs)

    @functools.wraps(LlamaForCausalLM.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        for index, ids in enumerate(self._rows):
            token = self._next(ids)
            if token is not None:
                out.logits[index, -1] = 0.0
                out.logits[index, -1, token] = FAVOUR
        return out

    def _next(self, ids: list[int]) -> int | None:
        """The token that goes on with the planned reply; None outside of a conversation."""
        mark = self._mark
        start = len(ids) - 1 - ids[::-1].index(mark[0]) if mark[0] in ids else len(ids)
        begun = ids[start + len(mark) :]
        if ids[start : start + len(mark)] != mark:
            return None
        plan = self._plan(tuple(ids[:start]))
        if begun != plan[: len(begun)] or len(begun) == len(plan):
            return int(self._tokenizer.eos_token_id)
        return plan[len(begun)]

    def _plan(self, prompt: tuple[int, ...]) -> list[int]:
        if prompt not in self._plans:
            self._plans[prompt] = self._ids_of(self._reply(self._tokenizer.decode(prompt)))
        return self._plans[prompt]

    def _ids_of(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _reply(self, prompt: str) -> str:
        last = prompt.rpartition("<s>")[2]
        return next((text for part, text in self._script.items() if part in last), self._default)


def scripted_model(
    script: Mapping[str, str], default: str = "Hello there, how are you?", **options: Any
) -> CalibratedModel:
    """A loaded model that follows the script."""
    torch.manual_seed(0)
    config = tiny_config("llama", hidden=128, layers=2)
    config.max_position_embeddings = 8192  # one byte is one token: prompts are long
    config.architectures = ["LlamaForCausalLM"]
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    model = ScriptedModel(config).eval()
    model.say(script, default, tokenizer)
    return load(model, tokenizer=tokenizer, weights=None, dtype="float32", **options)
