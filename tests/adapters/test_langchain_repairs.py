"""What is bound stays bound, empty and cut answers lose, early answers hold, models load once."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from lc_chain_help import always
from pydantic import BaseModel

from bitcal_integrations.langchain import (
    AdaptiveSampler,
    BitCalLLM,
    ChatBitCal,
    ConfidenceCallbackHandler,
    ConfidenceRouter,
    early_stop_chain,
    get_confidence,
)
from bitcal_integrations.langchain.confidence import find_record
from bitcal_integrations.testing.toy import ToyModel


class P(BaseModel):
    """A number."""

    a: int


class Starts(BaseCallbackHandler):
    """Counts the questions."""

    def __init__(self) -> None:
        self.n = 0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.n += 1


def hosted(text: str, **metadata: Any) -> Any:
    return RunnableLambda(lambda _: AIMessage(text, response_metadata=metadata))


# ---- what is bound ---------------------------------------------------------------------------


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def chat(asked: list[Any]) -> ChatBitCal:
    toy = ToyModel({"q": ('{"a": 3}', 0.9)})
    toy.add_sink(lambda record: asked.append(record.request))
    return ChatBitCal(model=toy)


@pytest.mark.parametrize("way", ["structured", "tools"])
def test_bound_options_stay_bound(chat: ChatBitCal, asked: list[Any], way: str) -> None:
    bound = chat.bind(seed=5, stop=["zz"], max_tokens=9)
    (bound.with_structured_output(P) if way == "structured" else bound.bind_tools([P])).invoke("q")
    assert (asked[-1].seed, asked[-1].stop, asked[-1].max_new_tokens) == (5, ("zz",), 9)
    assert bool(asked[-1].tools) is (way == "tools")


def test_a_bound_handler_is_called(chat: ChatBitCal) -> None:
    heard = Starts()
    bound = chat.with_config(callbacks=[heard])
    bound.bind_tools([P]).invoke("q")
    assert bound.with_structured_output(P).invoke("q") == P(a=3)
    assert heard.n == 2


# ---- answers that are none -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("", {"finish_reason": "content_filter"}),
        ("", {}),
        ("The answ", {"finish_reason": "length"}),
        ("The answ", {"stop_reason": "max_tokens"}),
    ],
)
def test_a_measured_answer_is_better_than_none(text: str, metadata: Any) -> None:
    router = ConfidenceRouter(always("Lyon", 0.6), [hosted(text, **metadata)], min_confidence=0.7)
    assert router.invoke("q").text == "Lyon"


def test_an_empty_answer_is_not_accepted_as_unknown() -> None:
    router = ConfidenceRouter(
        hosted("", finish_reason="length"), [always("Rome", 0.9)],
        min_confidence=0.7, on_unknown="accept",
    )  # fmt: skip
    assert router.invoke("q").text == "Rome"


@pytest.mark.parametrize(
    ("word", "finish"), [("MAX_TOKENS", "length"), ("content_filter", "error"), ("stop", "stop")]
)
def test_the_hosted_models_own_word_for_the_end(word: str, finish: str) -> None:
    scores = {"content": [{"token": "abc", "logprob": -0.1}]}
    for metadata in ({"finish_reason": word}, {"finish_reason": word, "logprobs": scores}):
        record = find_record(AIMessage("abc", response_metadata=metadata))
        assert record is not None
        assert record.generation.finish == finish


@pytest.mark.parametrize("word", ["length", "content_filter"])
def test_a_cut_sample_has_no_vote(word: str) -> None:
    from langchain_core.language_models import FakeMessagesListChatModel

    cut = AIMessage("I think the", response_metadata={"finish_reason": word})
    model = FakeMessagesListChatModel(responses=[cut])
    votes = AdaptiveSampler(model, 3).invoke("q").response_metadata["bitcal"]["votes"]
    assert (votes["leader"], votes["counts"]) == (None, {})


@pytest.mark.parametrize(
    "token", [{"tok": "abc"}, {"token": "abc", "logprob": None}, {"token": None, "logprob": 0.0}]
)
def test_malformed_log_probabilities_are_unknown(token: Any) -> None:
    metadata = {"logprobs": {"content": [token]}}
    confidence = get_confidence(AIMessage("abc", response_metadata=metadata))
    assert confidence.value is None
    assert confidence.reason.startswith("malformed log-probabilities")


# ---- chains that end early -------------------------------------------------------------------


async def test_a_handler_ends_the_fallback_of_a_chain() -> None:
    chain = early_stop_chain([always("a", 0.1)], stop_below=0.3, fallback=always("c", 0.95))
    for handler in (ConfidenceCallbackHandler(stop_above=0.9),):
        answers = [
            chain.invoke("q", {"callbacks": [handler]}),
            await chain.ainvoke("q", {"callbacks": [handler]}),
        ]
        assert [answer.text for answer in answers] == ["c", "c"]
        assert answers[0].response_metadata["bitcal"]["confidence"] == 0.95


def test_a_chain_is_copied() -> None:
    chain = early_stop_chain([always("a", 0.9), always("b", 0.9)], stop_above=0.8)
    chain.invoke("q")
    assert copy.deepcopy(chain).invoke("q").text == "a"


# ---- a named model is loaded once ------------------------------------------------------------


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    def load(source: Any, **arguments: Any) -> ToyModel:
        found.append(source)
        return ToyModel({"q": ("Paris", 0.65)})

    monkeypatch.setattr("bitcal_integrations.shared.load", load)
    return found


def _bound(llm: BitCalLLM) -> None:
    llm.bind(max_tokens=5).invoke("q")


WAYS: dict[str, Any] = {
    "bind": _bound,
    "option": lambda llm: llm.invoke("q", max_tokens=5),
    "batch": lambda llm: llm.batch(["q"] * 3, max_tokens=5),
    "copy": lambda llm: llm.model_copy(update={"max_tokens": 5}).invoke("q"),
    "deepcopy": lambda llm: copy.deepcopy(llm).invoke("q"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_text_model_is_loaded_once(loads: list[Any], way: str) -> None:
    llm = BitCalLLM(model=f"some/{way}")
    for _ in range(3):
        WAYS[way](llm)
        gc.collect()
    assert loads == [f"some/{way}"]


def test_a_configured_chat_model_is_loaded_once(loads: list[Any]) -> None:
    chat = ChatBitCal(model="some/chat").configurable_fields(temperature=ConfigurableField(id="t"))
    for heat in (0.5, 0.7):
        chat.invoke("q", {"configurable": {"t": heat}})
        gc.collect()
    assert loads == ["some/chat"]


def test_other_arguments_are_another_model(loads: list[Any]) -> None:
    llm = BitCalLLM(model="some/other")
    llm.invoke("q")
    llm.model_copy(update={"weights": "qint8"}).invoke("q")
    assert len(loads) == 2


def test_a_folder_with_a_dangling_link_is_no_error(tmp_path: Any, loads: list[Any]) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert BitCalLLM(model=str(tmp_path)).invoke("q") == "Paris"
