"""Short practice for training only: bare sums, name lists to recall, many questions on one passage.

A word problem teaches one sum per twenty tokens and a passage one copy per hundred; these teach
both skills several times as densely. Knows tokens, nothing of the model. None of it is a question
of any split: passages whose questions belong to calibration or test are skipped.
"""

from collections.abc import Iterator
from random import Random

from transformers import PreTrainedTokenizerFast

from bitcal_integrations.tiny import reading, word_problems
from bitcal_integrations.tiny.examples import Example, encode
from bitcal_integrations.tiny.tokenizer import BOS, END

SUMS, PAIRS = 12, (3, 6)


def sums(tokenizer: PreTrainedTokenizerFast, seed: str) -> Iterator[Example]:
    """Lines such as `buys: 12+30=42`; only the results are learned."""
    rng = Random(f"sums|{seed}")
    while True:
        pieces = [(BOS, 0)]
        for _ in range(SUMS):
            word, line, result = word_problems.bare_sum(rng)
            pieces += [(f"{word}: {line}=", 0), (f"{result}\n", 1)]
        yield encode_joined(tokenizer, pieces)


def recall(tokenizer: PreTrainedTokenizerFast, seed: str) -> Iterator[Example]:
    """Pairs of names, then the same pairs in the same or another order, to be learned there."""
    rng = Random(f"recall|{seed}")
    while True:
        kind = rng.random()
        if kind < 0.7:
            yield interview(tokenizer, rng)
            continue
        pairs = [(reading.invent(rng), reading.invent(rng)) for _ in range(rng.randint(*PAIRS))]
        again = pairs if kind < 0.85 else rng.sample(pairs, len(pairs))
        first = "\n".join(f"{key} is {value}" for key, value in pairs)
        second = "\n".join(f"{key} is {value}" for key, value in again)
        yield encode(tokenizer, [(f"{BOS}{first}\n\n", 0), (second + END, 1)])


def interview(tokenizer: PreTrainedTokenizerFast, rng: Random) -> Example:
    """One passage and a question on each thing it tells, in one conversation."""
    passage, asked = reading.interview(rng)
    pieces: list[tuple[str, int]] = []
    for number, (question, answer) in enumerate(asked):
        opening = "<|user|>" if number else f"{BOS}<|user|>{passage}\n\n"
        pieces += [(f"{opening}{question}{END}<|assistant|>", 0), (answer + END, 1)]
    return encode(tokenizer, pieces)


def encode_joined(tokenizer: PreTrainedTokenizerFast, pieces: list[tuple[str, int]]) -> Example:
    """Tokens of the joined text; a token is learned if its first character is."""
    text = "".join(piece for piece, _ in pieces)
    flags = [flag for piece, flag in pieces for _ in piece]
    encoded = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    learn = [flags[min(start, len(flags) - 1)] for start, _ in encoded.offsets]
    return Example(encoded.ids, learn)
