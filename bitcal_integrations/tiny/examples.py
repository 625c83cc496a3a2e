"""Turns questions into token ids with a flag on every token that is to be learned.

Knows the shapes of a training text: a chat, a chat of two turns, or a raw completion.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from transformers import PreTrainedTokenizerFast

from bitcal_integrations.tiny.tasks import Question, stream
from bitcal_integrations.tiny.tokenizer import BOS, END

RAW_SHARE, TWO_TURN_SHARE = 0.08, 0.05


@dataclass(frozen=True)
class Example:
    """Token ids; `learn` is 1 where the token belongs to an answer."""

    ids: list[int]
    learn: list[int]


def example(tokenizer: PreTrainedTokenizerFast, turns: list[Question], raw: bool) -> Example:
    """One or more questions in one conversation, or one as a raw completion."""
    if raw:
        return encode(tokenizer, [(BOS + turns[0].prompt, 0), (turns[0].answer + END, 1)])
    pieces = [(BOS, 0)]
    for number, turn in enumerate(turns):
        messages = turn.messages if number == 0 else turn.messages[-1:]
        text = "".join(f"<|{m['role']}|>{m['content']}{END}" for m in messages)
        pieces += [(text + "<|assistant|>", 0), (turn.answer + END, 1)]
    return encode(tokenizer, pieces)


def encode(tokenizer: PreTrainedTokenizerFast, pieces: list[tuple[str, int]]) -> Example:
    """Tokens of every piece by itself, with the piece's flag."""
    texts = [text for text, _ in pieces]
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    ids: list[int] = []
    learn: list[int] = []
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
