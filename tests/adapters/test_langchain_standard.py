"""LangChain's own contract tests, offline: on the built-in model, and on one that follows a script.

The built-in model answers questions about countries and sums; whether it calls the right tool
with the right arguments is not what these tests are about, so the cases that look at what was said
run on a scripted model of the same engine, decode loop and grammar.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from adapters.scripted import scripted_model
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from bitcal_integrations import load
from bitcal_integrations.langchain import ChatBitCal

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


def call(name: str, arguments: str) -> str:
    return f'<tool_call>{{"name":"{name}","arguments":{arguments}}}</tool_call>'


JOKE = '{"setup":"Why do cats purr?","punchline":"They are happy."}'
SCRIPT = {
    "magic_function_no_args()": call("magic_function_no_args", "{}"),
    "magic_function(3)": call("magic_function", '{"input":3}'),
    "Pirate greeting": call("greeting_generator", '{"answer_style":"Pirate"}'),
    "3 + 4": call("my_adder_tool", '{"a":3,"b":4}'),
    "San Francisco": call("get_weather", '{"location":"San Francisco, CA"}'),
    "你好啊集团": call(
        "unicode_customer", '{"customer_name":"你好啊集团","description":"Hello Group"}'
    ),
    "こんにちは株式会社": call(
        "unicode_customer", '{"customer_name":"こんにちは株式会社","description":"Hello Corp"}'
    ),
    "joke about cats": JOKE,
}


@pytest.fixture(scope="module", autouse=True)
def _models() -> Iterator[None]:
    """Both models, loaded once for all tests of this file."""
    with load("bitcal-tiny", weights="qint4") as tiny, scripted_model(SCRIPT) as scripted:
        MODELS.update(tiny=tiny, scripted=scripted)
        yield
        MODELS.clear()


MODELS: dict[str, Any] = {}


class TestUnit(ChatModelUnitTests):
    """The unit suite."""

    @property
    def chat_model_class(self) -> type[ChatBitCal]:
        return ChatBitCal

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODELS["tiny"]}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False  # a loaded model answers for itself alone


class TestUnitByName(TestUnit):
    """The unit suite where the model is only named: nothing of it may load weights."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "bitcal-tiny", "weights": "qint4"}


class TestIntegration(ChatModelIntegrationTests):
    """The integration suite on a model that follows its script."""

    @property
    def chat_model_class(self) -> type[ChatBitCal]:
        return ChatBitCal

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODELS["scripted"], "max_tokens": 128}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False


class TestPlumbing(TestIntegration):
    """The same on the built-in model, where it matters not what is said."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODELS["tiny"], "max_tokens": 24}

    @property
    def has_tool_calling(self) -> bool:
        return False  # it would have to name the right arguments

    @property
    def has_structured_output(self) -> bool:
        return False

    @property
    def supports_json_mode(self) -> bool:
        return False
