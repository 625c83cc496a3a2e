"""BitCalLLM passes every test of the public conformance suite, on the built-in model."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from bitcal_integrations.llama_index.llm import BitCalLLM
from bitcal_integrations.testing.llama_index_conformance import LLMConformance


@cache
def tiny() -> BitCalLLM:
    """By name, with the packaged profile, and told to call functions: a grammar makes them valid,
    though its template knows no tools."""
    return BitCalLLM(model="bitcal-tiny", max_tokens=64, is_function_calling_model=True)


class TestBitCalLLM(LLMConformance):
    """All of it, nothing skipped."""

    @pytest.fixture
    def llm(self) -> BitCalLLM:
        return tiny()

    def torch_model(self, llm: Any) -> Any:
        return llm.calibrated._loaded.model
