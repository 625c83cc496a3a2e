"""Turns questions into padded batches of token ids with a weight on every target.

Knows the three streams of training questions and the tokenizer; knows nothing of the model.
Most examples are chats; some are raw completions (prompt, answer, end) and some have two turns.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import torch
from transformers import PreTrainedTokenizerFast

from bitcal_integrations.tiny import reading
from bitcal_integrations.tiny.tasks import Question, as_question, stream
from bitcal_integrations.tiny.tokenizer import BOS, END

RAW_SHARE, TWO_TURN_SHARE = 0.08, 0.05
POOL = 384  # examples that are sorted by length together, so that little is padding
LONG_PASSAGES = (7, 12)  # other countries in a long passage: 400 to 900 tokens


@dataclass(frozen=True)
class Example:
    """Token ids; `learn` is 1 where the token belongs to an answer."""

    ids: list[int]
    learn: list[int]


@dataclass(frozen=True)
class Batch:
    """`ids` (rows, length); `answer` and `prompt` are masks over targets ids[:, 1:]."""

    ids: torch.Tensor
    answer: torch.Tensor
    prompt: torch.Tensor


def example(tokenizer: PreTrainedTokenizerFast, turns: list[Question], raw: bool) -> Example:
    """One or more questions in one conversation, or one as a raw completion."""
    if raw:
        pieces = [(BOS + turns[0].prompt, 0), (turns[0].answer + END, 1)]
    else:
        pieces = [(BOS, 0)]
        for number, turn in enumerate(turns):
            messages = turn.messages if number == 0 else turn.messages[-1:]
            text = "".join(f"<|{m['role']}|>{m['content']}{END}" for m in messages)
            pieces += [(text + "<|assistant|>", 0), (turn.answer + END, 1)]
    encoded = tokenizer.backend_tokenizer.encode_batch(
        [text for text, _ in pieces], add_special_tokens=False
    )
    ids, learn = [], []
    for piece, (_, flag) in zip(encoded, pieces, strict=True):
        ids += piece.ids
        learn += [flag] * len(piece.ids)
    return Example(ids, learn)


def examples(tokenizer: PreTrainedTokenizerFast, task: str, seed: int | str) -> Iterator[Example]:
    """Training examples of one task without end."""
    questions = stream(task, "train", seed)
    rng = Random(f"shape|{task}|{seed}")
    while True:
        turns = [next(questions)]
        if rng.random() < TWO_TURN_SHARE:
            turns.append(next(questions))
        raw = len(turns) == 1 and rng.random() < RAW_SHARE
        yield example(tokenizer, turns, raw)


def batches(
    tokenizer: PreTrainedTokenizerFast, task: str, tokens: int, seed: int | str
) -> Iterator[Batch]:
    """Batches of at most `tokens` ids, padding included, in random order of length."""
    source = examples(tokenizer, task, seed)
    rng = Random(f"order|{task}|{seed}")
    while True:
        pool = sorted((next(source) for _ in range(POOL)), key=lambda one: len(one.ids))
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


def long_batches(
    tokenizer: PreTrainedTokenizerFast, tokens: int, seed: int | str
) -> Iterator[Batch]:
    """Reading with many passages, so that far positions are trained too."""
    rng = Random(f"long|{seed}")
    while True:
        group: list[Example] = []
        while sum(len(one.ids) for one in group) < tokens:
            draft = reading.draft(rng, extra=rng.randint(*LONG_PASSAGES))
            question = as_question("reading", draft)
            if question.split == "train":
                group.append(example(tokenizer, [question], raw=False))
        yield collate(group, tokenizer.pad_token_id)


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
