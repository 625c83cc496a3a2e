"""Word problems with written steps: one running count, 1 to 6 operations, distractors.

Knows arithmetic and English sentences, nothing of splits or models. The steps end in a line
`#### <number>`; a question that asks for a check gets its steps repeated before that line.
"""

from dataclasses import dataclass
from random import Random

from bitcal_integrations.tiny.wordings import CLOSED, Draft, choose, closed

PEOPLE = (
    "Ana Ben Cleo Dan Eva Finn Gia Hugo Ida Jon Kim Leo Mia Nora Omar Pia Quinn Rosa Sam Tom "
    "Uma Vera Will Yara Zoe"
).split()
ITEMS = (
    "apples eggs books coins stamps cards shells stones pens seeds beads cups nuts plums boxes "
    "tickets stickers marbles cakes candles buttons flowers bricks photos keys"
).split()
# operation -> (sentence, the word that opens its line in the answer)
EVENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "+": (
        ("{p} buys {n} more.", "buys"),
        ("{p} finds {n}.", "finds"),
        ("{f} gives {p} {n}.", "gets"),
        ("{p} makes {n} more.", "makes"),
    ),
    "-": (
        ("{p} loses {n}.", "loses"),
        ("{p} sells {n}.", "sells"),
        ("{p} gives {n} to {f}.", "gives"),
        ("{p} throws away {n}.", "throws"),
    ),
    "*": (
        ("Then the number grows to {n} times as many.", "grows"),
        ("{f} brings {p} up to {n} times as many.", "times"),
    ),
    "/": (
        ("{p} splits them into {n} equal parts and keeps one.", "splits"),
        ("{p} shares them equally among {n} people and keeps one share.", "shares"),
    ),
}
DISTRACTORS = (
    "{f} has {n} {j}.",
    "{p} is {n} years old.",
    "The bus ride takes {n} minutes.",
    "{p} also has {n} {j}.",
    "The shop is {n} steps away.",
)
ENDINGS = (
    "How many {i} does {p} have now?",
    "How many {i} does {p} have in the end?",
    "Find the number of {i} that {p} has.",
)
CHECK = "Check your steps."


@dataclass(frozen=True)
class Size:
    """How large the numbers get: no running count above `top`, no added number above `operand`."""

    top: int
    operand: int
    factor: int


SIZES = {"small": Size(50, 30, 4), "medium": Size(99, 60, 5), "large": Size(299, 120, 6)}
SIZE_WEIGHTS = {"small": 4, "medium": 4, "large": 2}
MAX_STEPS = 6


def draft(rng: Random, steps: int | None = None, size: str | None = None) -> Draft:
    """One problem; `steps` and `size` are drawn when not given."""
    steps = steps or rng.randint(1, MAX_STEPS)
    size = size or _size(rng)
    person, friend = rng.sample(PEOPLE, 2)
    item, other = rng.sample(ITEMS, 2)
    start = rng.randint(2, max(10, SIZES[size].top // 3))
    sentences, lines, key = [f"{person} has {start} {item}."], [], [str(start)]
    count = start
    for _ in range(steps):
        op, number, result = _operation(rng, count, SIZES[size])
        event = rng.randrange(len(EVENTS[op]))
        sentence, word = EVENTS[op][event]
        sentences.append(sentence.format(p=person, f=friend, n=number))
        lines.append(f"{word}: {count}{op}{number}={result}")
        key.append(f"{op}{event}:{number}")
        count = result
    _distract(rng, sentences, {"p": person, "f": friend, "j": other}, SIZES[size])
    ending = rng.choice(ENDINGS).format(i=item, p=person)
    check = rng.random() < 1 / 3
    question = " ".join([*sentences, ending, *([CHECK] if check else [])])
    wording = choose(rng, CLOSED)
    repeated = ["Check:", *(line.split(": ")[1] for line in lines)] if check else []
    answer = "\n".join([*lines, *repeated, f"#### {count}"])
    return Draft(
        key=f"math|{' '.join(key)}",
        messages=closed(wording, question),
        answer=answer,
        gold=str(count),
        wording=f"{wording}+check" if check else wording,
        bucket=size,
        steps=steps,
    )


def bare_sum(rng: Random) -> tuple[str, str, int]:
    """One operation without a story: its opening word, `12+30` and the result."""
    size = SIZES[_size(rng)]
    count = rng.randint(1, size.top)
    op, number, result = _operation(rng, count, size)
    return rng.choice(EVENTS[op])[1], f"{count}{op}{number}", result


def _size(rng: Random) -> str:
    return rng.choices(list(SIZE_WEIGHTS), list(SIZE_WEIGHTS.values()))[0]


def _operation(rng: Random, count: int, size: Size) -> tuple[str, int, int]:
    """An operation that keeps the count a whole number between 1 and the size's top."""
    while True:
        op = rng.choices("+-*/", (4, 4, 2, 2))[0]
        number = rng.randint(2, size.operand if op in "+-" else size.factor)
        if op == "/" and count % number:
            continue
        result = {
            "+": count + number,
            "-": count - number,
            "*": count * number,
            "/": count // number,
        }[op]
        if 1 <= result <= size.top:
            return op, number, result


def _distract(rng: Random, sentences: list[str], names: dict[str, str], size: Size) -> None:
    """Put none, one or two sentences with useless numbers anywhere after the first."""
    for _ in range(rng.choices((0, 1, 2), (5, 3, 2))[0]):
        sentence = rng.choice(DISTRACTORS).format(n=rng.randint(2, size.operand), **names)
        sentences.insert(rng.randint(1, len(sentences)), sentence)
