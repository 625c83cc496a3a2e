"""Collects examples of similar length into padded batches with masks on the targets.

Knows the sources of examples by name; knows nothing of the model.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from bitcal_integrations.tiny import drills, reading
from bitcal_integrations.tiny.examples import Example, example, examples
from bitcal_integrations.tiny.tasks import as_question

POOL = 384  # examples that are sorted by length together, so that little is padding
LONG_PASSAGES = (7, 12)  # other countries in a long passage: 400 to 900 tokens


@dataclass(frozen=True)
class Batch:
    """`ids` (rows, length); `answer` and `prompt` are masks over targets ids[:, 1:]."""

    ids: torch.Tensor
    answer: torch.Tensor
    prompt: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids.to(device), self.answer.to(device), self.prompt.to(device))


def source(tokenizer: PreTrainedTokenizerFast, name: str, seed: int | str) -> Iterator[Example]:
    """Examples of a task, of a drill, or `long` passages."""
    if name == "sums":
        return drills.sums(tokenizer, str(seed))
    if name == "recall":
        return drills.recall(tokenizer, str(seed))
    return long_passages(tokenizer, seed) if name == "long" else examples(tokenizer, name, seed)


def batches(
    tokenizer: PreTrainedTokenizerFast, name: str, tokens: int, seed: int | str
) -> Iterator[Batch]:
    """Batches of at most `tokens` ids, padding included, in random order of length."""
    drawn = source(tokenizer, name, seed)
    rng = Random(f"order|{name}|{seed}")
    while True:
        size = POOL if name != "long" else 16
        pool = sorted((next(drawn) for _ in range(size)), key=lambda one: len(one.ids))
        groups: list[list[Example]] = []
        group: list[Example] = []
        for one in pool:
            if group and (len(group) + 1) * len(one.ids) > tokens:
                groups.append(group)
                group = []
            group.append(one)
        groups.append(group)
        rng.shuffle(groups)
        yield from (collate(group, tokenizer.pad_token_id) for group in groups)


def long_passages(tokenizer: PreTrainedTokenizerFast, seed: int | str) -> Iterator[Example]:
    """Reading with many passages, so that far positions are trained too."""
    rng = Random(f"long|{seed}")
    while True:
        draft = reading.draft(rng, extra=rng.randint(*LONG_PASSAGES))
        question = as_question("reading", draft)
        if question.split == "train":
            yield example(tokenizer, [question], raw=False)


def collate(group: list[Example], pad: int) -> Batch:
    """Pad on the right: with causal attention no real token ever sees padding."""
    width = max(len(one.ids) for one in group)
    ids = torch.full((len(group), width), pad)
    answer = torch.zeros((len(group), width), dtype=torch.bool)
    real = torch.zeros((len(group), width), dtype=torch.bool)
    for row, one in enumerate(group):
        ids[row, : len(one.ids)] = torch.tensor(one.ids)
        answer[row, : len(one.ids)] = torch.tensor(one.learn, dtype=torch.bool)
        real[row, : len(one.ids)] = True
    return Batch(ids, answer[:, 1:], (real & ~answer)[:, 1:])
