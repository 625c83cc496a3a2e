"""uqlm's white-box scorers on ChatBitCal: what they read from our log-probabilities.

    python tests/benchmarks/uqlm_white_box.py [QUESTIONS]

uqlm (0.6.7) asks for transformers below 5, which this package does not run on, though its
white-box part needs none of it. So it wants an environment of its own, its pin left out:
pip install bitcal-integrations matplotlib pandas datasets optuna bert-score, and then
pip install --no-deps uqlm. Its scorers ask the chat model themselves. The first two scores are
made again by hand from the Steps of `ask`; all stand beside our confidence for the same answers.
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from langchain_core.messages import convert_to_messages
from uqlm.scorers import WhiteBoxUQ

from bitcal_integrations import load
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.metrics import auroc, brier, ece
from bitcal_integrations.tiny.tasks import grade, questions

N, TOKENS = 400, 64
BY_HAND = ("sequence_probability", "min_probability")  # the first normalised by length
FROM_TOP = ("mean_token_negentropy", "probability_margin")
PACKAGES = ("uqlm", "langchain-core", "transformers", "torch")


def by_hand(record: Any) -> dict[str, float]:
    logprobs = [step.logprob for step in record.generation.steps]
    mean = sum(logprobs) / len(logprobs)
    return {"sequence_probability": math.exp(mean), "min_probability": math.exp(min(logprobs))}


def scored(chat: ChatBitCal, prompts: Sequence[Any]) -> dict[str, Sequence[Any]]:
    judge = WhiteBoxUQ(llm=chat, scorers=[*BY_HAND, *FROM_TOP])
    asking = judge.generate_and_score(prompts=list(prompts), show_progress_bars=False)
    return dict(asyncio.run(asking).to_dict()["data"])


def main(n: int) -> None:
    asked = questions("facts", "test", n, seed=5)
    with load("bitcal-tiny", weights="qint4", dtype="float32") as model:
        chat = ChatBitCal(model=model, max_tokens=TOKENS, logprobs=True)
        data = scored(chat, [convert_to_messages(list(q.messages)) for q in asked])
        records = model.ask([q.messages for q in asked], task="facts", max_new_tokens=TOKENS)
    texts = data["responses"]
    right = [grade(q, text) for q, text in zip(asked, texts, strict=True)]
    same = sum(r.text == text for r, text in zip(records, texts, strict=True))
    print("; ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"\n{n} questions about facts, {sum(right)} right; {same} texts equal those of `ask`\n")
    hand = [by_hand(record) for record in records]
    ours = [record.confidence.value for record in records]
    known = [i for i, value in enumerate(ours) if value is not None]
    columns = {name: data[name] for name in (*BY_HAND, *FROM_TOP)} | {"confidence of `ask`": ours}
    print(f"Over the {len(known)} answers whose confidence is known:\n")
    print("| score | largest difference to ours by hand | AUROC | Brier | ECE |")
    print("|---|---|---|---|---|")
    for name, column in columns.items():
        gaps = [abs(a - b.get(name, a)) for a, b in zip(column, hand, strict=True) if a is not None]
        p, y = [column[i] for i in known], [right[i] for i in known]
        gap = f"{max(gaps):.1e}" if name in BY_HAND else "-"
        print(f"| {name} | {gap} | {auroc(p, y):.3f} | {brier(p, y):.4f} | {ece(p, y):.3f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N)
