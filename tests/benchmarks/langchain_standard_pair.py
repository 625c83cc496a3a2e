"""LangChain's standard tests on the stock Hugging Face chat model, beside ours.

    python tests/benchmarks/langchain_standard_pair.py

It needs the environment of langchain_huggingface_pair.py, with langchain-tests. The stock class is
tested as it comes, on the built-in model with qint4 weights; only the cases for a model that is
named anew per call are off for both, since both are made from a loaded one. Ours are the classes of
tests/adapters/test_langchain_standard.py: the integration cases on a model that follows a script,
so that tool calls can be right.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from langchain_huggingface import ChatHuggingFace
from langchain_huggingface_pair import theirs
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from bitcal_integrations import load
from bitcal_integrations.bench._machine import machine

OURS = Path(__file__).parents[1] / "adapters" / "test_langchain_standard.py"
ROWS = {
    "stock, unit": "TestStockUnit",
    "stock, integration": "TestStockIntegration",
    "ours, unit": "TestUnit",
    "ours, integration": "TestIntegration",
}
PACKAGES = ("langchain-tests", "langchain-core", "langchain-huggingface")
KINDS = ("passed", "failed", "skipped")


@cache
def stock() -> ChatHuggingFace:
    return theirs(load("bitcal-tiny", weights="qint4", profile=None))


class TestStockUnit(ChatModelUnitTests):
    """The unit suite."""

    @property
    def chat_model_class(self) -> type[ChatHuggingFace]:
        return ChatHuggingFace

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"llm": stock().llm, "tokenizer": stock().tokenizer}

    @property
    def supports_model_override(self) -> bool:
        return False


class TestStockIntegration(ChatModelIntegrationTests):
    """The integration suite."""

    @property
    def chat_model_class(self) -> type[ChatHuggingFace]:
        return ChatHuggingFace

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"llm": stock().llm, "tokenizer": stock().tokenizer}

    @property
    def supports_model_override(self) -> bool:
        return False


class Verdicts:
    """A pytest plugin that counts what the tests of each class gave."""

    def __init__(self) -> None:
        self.found: dict[str, Counter[str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
            kind = report.nodeid.split("::")[1]
            self.found.setdefault(kind, Counter())[report.outcome] += 1


def main() -> None:
    verdicts, here = Verdicts(), Path(__file__)
    pytest.main(
        [
            str(here), str(OURS), "-q", "--tb=no", "--no-summary", "-W", "ignore",
            "--benchmark-disable", "-p", "no:cacheprovider", "-c", os.devnull,
            "--rootdir", str(OURS.parents[1]), "--import-mode=importlib", "-o", "asyncio_mode=auto",
            "-o", f"pythonpath={here.parent} {OURS.parents[1]}",
        ],
        plugins=[verdicts],
    )  # fmt: skip
    print("\n" + machine() + "; " + "; ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"\n| class and suite | {' | '.join(KINDS)} |\n|---|---|---|---|")
    for row, kind in ROWS.items():
        counts = verdicts.found.get(kind, Counter())
        print(f"| {row} | {' | '.join(str(counts[outcome]) for outcome in KINDS)} |")


if __name__ == "__main__":
    main()
