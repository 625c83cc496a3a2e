"""The questions of the built-in model: three tasks, three splits, fresh ones by seed without end.

Knows questions, right answers and how to grade; knows nothing of models or tokens. A stable hash
of a question's content decides its split, so no split can ever hold a question of another one:
for math the numbers and sentence templates, for reading the country, attribute and wording.
Facts are finite: there the split is by the whole prompt (country, attribute and wording), so a
head fact is asked in test in words that training never used for that fact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from random import Random

from bitcal_integrations.tiny import facts, reading, word_problems
from bitcal_integrations.tiny.splits import SPLITS, split_of
from bitcal_integrations.tiny.wordings import Draft, Message

TASKS = ("math", "facts", "reading")
_MARK = "####"


@dataclass(frozen=True)
class Question:
    """One labelled question.

    `messages` is what a chat model gets, `prompt` the same as one string; `answer` is the full
    text that training shows, `gold` the part that is graded. `bucket` is small / medium / large
    for math, head / torso / tail for facts, answerable / unknown for reading; `steps` counts the
    operations of a word problem and is 0 elsewhere.
    """

    id: str
    task: str
    split: str
    prompt: str
    gold: str
    answer: str
    wording: str
    bucket: str
    steps: int
    messages: tuple[Message, ...]


def questions(task: str, split: str, n: int, seed: int = 0) -> list[Question]:
    """The first `n` questions of `stream`."""
    return list(islice(stream(task, split, seed), n))


def stream(task: str, split: str, seed: int | str = 0) -> Iterator[Question]:
    """Questions without end; the same seed gives the same ones.

    >>> [q.split for q in questions("math", "test", 2)]
    ['test', 'test']
    """
    if task not in TASKS:
        raise ValueError(f"no task {task!r}: choose one of {', '.join(TASKS)}")
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    rng = Random(f"{task}|{split}|{seed}")
    while True:
        draft = _draft(rng, task, split)
        if split_of(draft.key) == split:
            yield as_question(task, draft)


def parse_answer(text: str) -> str | None:
    """The answer in a generated text: what follows the last `####`, else the first line.

    >>> parse_answer("buys: 2+3=5\\n#### 5"), parse_answer(" Paris\\nor so"), parse_answer(" ")
    ('5', 'Paris', None)
    """
    tail = text.rpartition(_MARK)[2] if _MARK in text else text
    lines = tail.strip().splitlines()
    return (lines[0].strip() or None) if lines else None


def grade(question: Question, text: str) -> bool:
    """Whether a generated text gives the question's gold answer."""
    answer = parse_answer(text)
    return answer is not None and _plain(answer) == _plain(question.gold)


def _plain(answer: str) -> str:
    return " ".join(answer.casefold().rstrip(". ").split())


def _draft(rng: Random, task: str, split: str) -> Draft:
    if task == "math":
        return word_problems.draft(rng)
    if task == "reading":
        return reading.draft(rng)
    return facts.training_draft(rng) if split == "train" else facts.draft(rng)


def as_question(task: str, draft: Draft) -> Question:
    """A draft with its id and the split that its content belongs to."""
    prompt = "\n\n".join(message["content"] for message in draft.messages)
    digest = sha256((draft.key + prompt).encode()).hexdigest()[:16]
    return Question(
        id=f"{task}-{digest}", task=task, split=split_of(draft.key), prompt=prompt, gold=draft.gold,
        answer=draft.answer, wording=draft.wording, bucket=draft.bucket, steps=draft.steps,
        messages=draft.messages,
    )  # fmt: skip
