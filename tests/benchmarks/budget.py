"""One shared budget against an equal split of it, on word problems of bitcal-tiny.

    python tests/benchmarks/budget.py [N] [--list 48] [--weights qint8] [--seed 0]

N fresh questions in lists; a list's budget is a share of what its full answers take. Beside
`ask(list, total_tokens=...)` every question gets an equal part of the same budget, closed in the
same way. Differences of accuracy are paired, with a 95% bootstrap interval over the questions. The
model runs in float32, where a text that goes on is most like one that was never cut.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from bitcal_integrations import load
from bitcal_integrations.budget import ANSWER_TOKENS
from bitcal_integrations.decode.onward import Onward
from bitcal_integrations.tiny.tasks import Question, grade, questions
from bitcal_integrations.types import Generation

SHARES = (0.25, 0.5, 0.75, 1.0)
CLOSING = "#### "
OPTIONS = {"parser": "tiny", "max_new_tokens": 160}


def answers(model: Any, asked: Sequence[Question], **options: Any) -> list[Generation]:
    records = model.ask([q.messages for q in asked], **OPTIONS, **options)
    return [record.generation for record in records]


def equal_split(
    model: Any, asked: Sequence[Question], total: int, closing: str | None
) -> list[Generation]:
    """Every question with an equal part; with a closing text, enough of it is left for that."""
    each, over = divmod(total, len(asked))
    texts = [
        Onward(model.request_of(q.messages, **OPTIONS), model.tokenizer, closing) for q in asked
    ]
    room = texts[0].closing_cost() + 1 + ANSWER_TOKENS if closing else 0
    keep = room if each > room else 0
    shares = [each + (i < over) - keep for i in range(len(asked))]
    for index, record in model.ask_requests(
        [text.further(share) for text, share in zip(texts, shares, strict=True)]
    ):
        texts[index].take(record.generation, shares[index])
    cut = [text for text in texts if text.open] if keep else []
    for index, record in model.ask_requests([t.closing_request(ANSWER_TOKENS) for t in cut]):
        cut[index].close(record.generation, {"level": "budget", "reason": "an equal split"})
    return [text.generation() for text in texts]


def right(asked: Sequence[Question], found: Sequence[Generation]) -> np.ndarray:
    return np.asarray([grade(q, g.text) for q, g in zip(asked, found, strict=True)], float)


def spent(found: Sequence[Generation]) -> int:
    return sum(g.n_tokens + g.probe_tokens for g in found)


def one_list(model: Any, asked: Sequence[Question]) -> dict[Any, Any]:
    """{(share, closing, arm): (right, tokens)} and the full answers under "full"."""
    full = answers(model, asked)
    out: dict[Any, Any] = {"full": (right(asked, full), spent(full))}
    for share in SHARES:
        total = int(share * spent(full))
        for closing in (None, CLOSING):
            shared = answers(model, asked, total_tokens=total, closing=closing)
            equal = equal_split(model, asked, total, closing)
            assert spent(shared) <= total
            assert spent(equal) <= total
            for arm, found in (("shared", shared), ("equal", equal)):
                out[share, closing, arm] = (right(asked, found), spent(found))
    return out


def row(share: float, closing: str | None, lists: Sequence[dict[Any, Any]]) -> str:
    arms = {
        arm: np.concatenate([found[share, closing, arm][0] for found in lists])
        for arm in ("shared", "equal")
    }
    tokens = {arm: sum(found[share, closing, arm][1] for found in lists) for arm in arms}
    gain = arms["shared"] - arms["equal"]
    draws = np.random.default_rng(0).choice(gain, (2000, gain.size)).mean(1)
    low, high = 100 * np.quantile(draws, (0.025, 0.975))
    return (
        f"| {100 * share:.0f}% | {'yes' if closing else 'no'} | {arms['equal'].mean():.3f} "
        f"({tokens['equal']}) | {arms['shared'].mean():.3f} ({tokens['shared']}) "
        f"| {100 * gain.mean():+.1f} [{low:+.1f}, {high:+.1f}] |"
    )


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("n", nargs="?", type=int, default=192)
    options.add_argument("--list", type=int, default=48, help="questions that share a budget")
    options.add_argument("--weights", default="qint8")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    asked = questions("math", "test", given.n, seed=given.seed)
    weights = None if given.weights == "none" else given.weights
    with load("bitcal-tiny", weights=weights, dtype="float32", profile=None) as model:
        cuts = range(0, given.n, given.list)
        lists = [one_list(model, asked[at : at + given.list]) for at in cuts]
    full = np.concatenate([found["full"][0] for found in lists])
    print(
        f"bitcal-tiny {given.weights}, {given.n} questions in lists of {given.list}; full answers: "
        f"{full.mean():.3f} right with {sum(found['full'][1] for found in lists)} tokens\n"
    )
    print("| budget | closing | equal split (tokens) | shared (tokens) | shared - equal, points |")
    print("|---:|---|---|---|---|")
    for share in SHARES:
        for closing in (None, CLOSING):
            print(row(share, closing, lists))


if __name__ == "__main__":
    main()
