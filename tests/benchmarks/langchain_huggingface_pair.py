"""ChatBitCal beside langchain-huggingface's pipeline, on the same quantized bitcal-tiny.

    python tests/benchmarks/langchain_huggingface_pair.py [ROUNDS [AT_ONCE [TASK]]]

It needs an environment of its own, since langchain-huggingface pins huggingface-hub below 2:
pip install langchain-huggingface[full] bitcal-integrations. Both classes get the very same module
in memory (qint4 weights, the dtype that `load` picks), the same questions and the same limit, and
decode greedily; the texts are compared (the stock class repeats the prompt, and begins it with two
BOS tokens). Alone: one `invoke`. At once: `batch` of 16. TASK is math
(some forty tokens) or facts (some four). They are timed in turn. Medians and the middle half; run
it on a quiet machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median, quantiles
from typing import Any

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.bench._machine import machine
from bitcal_integrations.langchain import ChatBitCal
from bitcal_integrations.tiny.tasks import questions

ROUNDS, AT_ONCE, TOKENS = 5, 16, 160
PACKAGES = ("langchain-huggingface", "langchain-core", "huggingface-hub")


def theirs(model: CalibratedModel) -> Any:
    """The stock chat model round the module that ours runs."""
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import GenerationConfig, pipeline

    loaded = model._weights("compared")
    tokenizer = loaded.tokenizer
    settings = GenerationConfig(
        max_new_tokens=TOKENS, do_sample=False, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    loaded.model.generation_config = settings
    pipe = pipeline("text-generation", model=loaded.model, tokenizer=tokenizer)
    options = {"return_full_text": False, "max_new_tokens": TOKENS, "do_sample": False}
    return ChatHuggingFace(
        llm=HuggingFacePipeline(pipeline=pipe, pipeline_kwargs=options), tokenizer=tokenizer
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def compare(rounds: int, at_once: int, task: str) -> tuple[dict[str, list[float]], float]:
    """Seconds by way of asking, and the share of answers with equal text."""
    asked = [question.prompt for question in questions(task, "test", at_once * rounds)]
    seconds: dict[str, list[float]] = {}
    equal = []
    with load("bitcal-tiny", weights="qint4") as model:
        chats = {"ChatBitCal": ChatBitCal(model=model, max_tokens=TOKENS)}
        chats["HuggingFacePipeline"] = theirs(model)
        for chat in chats.values():
            chat.invoke(asked[0])
        for index in range(rounds):
            group = asked[index * at_once : (index + 1) * at_once]
            texts = []
            for name, chat in chats.items():
                taken, message = timed(lambda chat=chat, group=group: chat.invoke(group[0]))
                seconds.setdefault(f"{name}, alone", []).append(taken)
                taken, _ = timed(lambda chat=chat, group=group: chat.batch(group))
                seconds.setdefault(f"{name}, {at_once} at once", []).append(taken)
                texts.append(message.text.strip())
            equal.append(texts[1].endswith(texts[0]))  # theirs repeats the prompt
    return seconds, sum(equal) / len(equal)


def main() -> None:
    """Print the table."""
    given = [*sys.argv[1:], *(str(ROUNDS), str(AT_ONCE), "math")[len(sys.argv) - 1 :]]
    rounds, at_once, task = int(given[0]), int(given[1]), given[2]
    seconds, equal = compare(rounds, at_once, task)
    print(machine() + "; " + "; ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"\n{equal:.0%} of the single answers have equal text\n")
    print("| seconds | median [middle half] |\n|---|---|")
    for name, values in seconds.items():
        low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
        print(f"| {name} | {median(values):.3f} [{low:.3f}, {high:.3f}] |")
    for setting in ("alone", f"{at_once} at once"):
        pairs = zip(
            seconds[f"HuggingFacePipeline, {setting}"], seconds[f"ChatBitCal, {setting}"],
            strict=True,
        )  # fmt: skip
        print(f"| times faster, {setting} | {median(a / b for a, b in pairs):.2f} |")


if __name__ == "__main__":
    main()
