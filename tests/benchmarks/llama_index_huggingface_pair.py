"""BitCalLLM beside the stock HuggingFaceLLM, on one quantized model: conformance and speed.

It needs an environment with `llama-index-llms-huggingface` beside this package:
python tests/benchmarks/llama_index_huggingface_pair.py [--skip-suite] [--prompts 16]
It prints both columns of the public conformance suite with the versions, then seconds per answer
at batch 1 and with 16 at once, for the same prompts, tokens and weights.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from llama_index.llms.huggingface import HuggingFaceLLM

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.bench._loops import rounds
from bitcal_integrations.bench._machine import machine
from bitcal_integrations.llama_index import BitCalLLM
from bitcal_integrations.testing.llama_index_conformance import LLMConformance
from bitcal_integrations.tiny import tasks

PACKAGES = (
    "llama-index-core",
    "llama-index-llms-huggingface",
    "transformers",
    "torch",
    "optimum-quanto",
)
TOKENS, AT_ONCE = 32, 16


@cache
def model() -> CalibratedModel:
    """The model both have; without a profile, so that no parser ends an answer earlier."""
    return load("bitcal-tiny", weights="qint4", profile=None, loop_stop=False)


@cache
def ours() -> BitCalLLM:
    return BitCalLLM(model=model(), max_tokens=TOKENS)


@cache
def ours_by_name() -> BitCalLLM:
    return BitCalLLM(model="bitcal-tiny", weights="qint4", max_tokens=TOKENS)


@cache
def stock() -> HuggingFaceLLM:
    loaded = model()._loaded
    assert loaded is not None
    return HuggingFaceLLM(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        context_window=2048,
        max_new_tokens=TOKENS,
        generate_kwargs={"do_sample": False, "pad_token_id": loaded.tokenizer.pad_token_id},
        is_chat_model=True,
    )


class TestBitCalLLM(LLMConformance):
    """Made by name, as the round trip needs."""

    @pytest.fixture
    def llm(self) -> Any:
        return ours_by_name()

    def torch_model(self, llm: Any) -> Any:
        return llm.calibrated._loaded.model


class TestHuggingFaceLLM(LLMConformance):
    """The stock class, as its documentation makes it round a model object."""

    @pytest.fixture
    def llm(self) -> Any:
        return stock()

    def torch_model(self, llm: Any) -> Any:
        return llm._model


class Verdicts:
    """A pytest plugin that keeps what each test of each class gave."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            if report.when == "teardown" and report.outcome == "passed":
                return
            kind, test = report.nodeid.split("::")[1:3]
            self.found[test.partition("[")[0]][kind][report.outcome] += 1


def conformance() -> None:
    """Both columns, a line per test: how many of its cases passed."""
    verdicts, here = Verdicts(), Path(__file__)
    arguments = [str(here), "-q", "-W", "ignore", "-p", "no:cacheprovider", "--tb=no", "-s"]
    pytest.main(
        [*arguments, "-c", os.devnull, "--rootdir", str(here.parent), "--import-mode=importlib"],
        plugins=[verdicts],
    )
    columns = ("TestBitCalLLM", "TestHuggingFaceLLM")
    print(f"\n| test | {' | '.join(c.removeprefix('Test') for c in columns)} |\n|---|---|---|")
    for test, by_class in verdicts.found.items():
        name = test.removeprefix("test_").replace("_", " ")
        print(f"| {name} | {' | '.join(cell(by_class[c]) for c in columns)} |")
    totals = [sum((by[c] for by in verdicts.found.values()), Counter()) for c in columns]
    print(f"| all | {' | '.join(cell(total) for total in totals)} |")


def cell(counts: Counter[str]) -> str:
    judged = counts["passed"] + counts["failed"]
    return f"{counts['passed']} of {judged}" if judged else "not applicable"


def prompts_of(count: int) -> tuple[list[str], list[str]]:
    """Questions, and the same written out in the template, whose BOS the stock class adds."""
    tokenizer: Any = ours().tokenizer
    questions = [q.prompt for q in tasks.questions("math", "test", count)]
    written = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
        ).removeprefix(tokenizer.bos_token)
        for question in questions
    ]
    return questions, written


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def each(llm: Any, prompts: Sequence[str], **kwargs: Any) -> list[str]:
    return [llm.complete(prompt, **kwargs).text for prompt in prompts]


def together(llm: Any, prompts: Sequence[str], **kwargs: Any) -> list[str]:
    async def gathered() -> list[Any]:
        return await asyncio.gather(*(llm.acomplete(prompt, **kwargs) for prompt in prompts))

    return [response.text for response in asyncio.run(gathered())]


def in_batches(way: Callable[..., list[str]], llm: Any, prompts: Sequence[str], **kw: Any) -> Any:
    """The texts, asked for in batches of the size that is compared."""
    starts = range(0, len(prompts), AT_ONCE)
    return [text for at in starts for text in way(llm, prompts[at : at + AT_ONCE], **kw)]


def speed(count: int, pairs: int) -> None:
    questions, written = prompts_of(count)
    answers = zip(each(ours(), questions), each(stock(), written, formatted=True), strict=True)
    same = sum(mine == theirs for mine, theirs in answers)
    print(f"\n{count} prompts, at most {TOKENS} new tokens, {same} answers are the same text")
    for name, way in (("one by one", each), (f"{AT_ONCE} at once", together)):
        asked: dict[str, Callable[[], Any]] = {
            "ours": partial(in_batches, way, ours(), questions),
            "stock": partial(in_batches, way, stock(), written, formatted=True),
        }
        taken = rounds({who: partial(seconds, work) for who, work in asked.items()}, pairs=pairs)
        ratios = [b / a for a, b in zip(taken["ours"], taken["stock"], strict=True)]
        mine, theirs = (statistics.median(taken[who]) / count for who in asked)
        print(
            f"{name:>12}: BitCalLLM {1000 * mine:.1f} ms, HuggingFaceLLM {1000 * theirs:.1f} ms "
            f"an answer; {statistics.median(ratios):.2f} times as fast "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-suite", action="store_true")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    print(machine(), "|", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    speed(given.prompts, given.pairs)
    if not given.skip_suite:
        conformance()
    os._exit(0)  # the stock class leaves threads that wait for ever


if __name__ == "__main__":
    main()
