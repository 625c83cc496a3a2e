"""The same answer and the same confidence on every path: invoke, stream, batch, events, caches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import Generation, LLMResult

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.langchain import BitCalLLM, ChatBitCal
from bitcal_integrations.testing.toy import ToyModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
    # SQLiteCache reads with a default that LangChain will change.
    pytest.mark.filterwarnings(
        "ignore::langchain_core._api.deprecation.LangChainPendingDeprecationWarning"
    ),
]
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def tiny() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint8", deterministic=True, max_new_tokens=24) as model:
        yield model


@pytest.fixture(scope="module")
def chat(tiny: CalibratedModel) -> ChatBitCal:
    return ChatBitCal(model=tiny, logprobs=True, top_logprobs=2)


@pytest.fixture(scope="module")
def reference(chat: ChatBitCal) -> AIMessage:
    return chat.invoke(QUESTION)


def told(metadata: Any) -> dict[str, Any]:
    """What is told of an answer; only the id of its record is another for each one."""
    assert metadata["record_id"]
    return {key: value for key, value in metadata.items() if key != "record_id"}


def assert_same(message: Any, reference: AIMessage) -> None:
    assert message.text == reference.text
    assert message.response_metadata.pop("output_version", "v1") == "v1"
    assert told(message.response_metadata) == told(reference.response_metadata)
    assert message.usage_metadata == reference.usage_metadata


def total(chunks: Any) -> Any:
    return list(itertools.accumulate(chunks))[-1]


def test_the_reference_is_calibrated(reference: AIMessage, tiny: CalibratedModel) -> None:
    bitcal = reference.response_metadata["bitcal"]
    assert bitcal["calibrated"] is True
    assert bitcal == tiny.ask(QUESTION).bitcal()
    assert reference.response_metadata["logprobs"]["content"][0]["top_logprobs"][1]["token"]


def test_stream(chat: ChatBitCal, reference: AIMessage) -> None:
    chunks = list(chat.stream(QUESTION))
    assert_same(total(chunks), reference)
    assert chunks[-1].chunk_position == "last"
    for chunk in chunks[:-1]:
        assert set(chunk.response_metadata) == {"logprobs"}
        assert chunk.usage_metadata is None


def test_batch_and_generate(chat: ChatBitCal, reference: AIMessage) -> None:
    for message in chat.batch([QUESTION] * 3):
        assert_same(message, reference)
    for (generation,) in chat.generate([[HumanMessage(QUESTION)]] * 2).generations:
        assert_same(generation.message, reference)
        assert told(generation.generation_info) == told(reference.response_metadata)


async def test_async(chat: ChatBitCal, reference: AIMessage) -> None:
    assert_same(await chat.ainvoke(QUESTION), reference)
    assert_same(total([chunk async for chunk in chat.astream(QUESTION)]), reference)
    for message in await chat.abatch([QUESTION] * 3):
        assert_same(message, reference)


async def test_events(chat: ChatBitCal, reference: AIMessage) -> None:
    events = [event async for event in chat.astream_events(QUESTION, version="v2")]
    assert events[-1]["event"] == "on_chat_model_end"
    assert_same(events[-1]["data"]["output"], reference)
    stream = await chat.astream_events(QUESTION, version="v3")
    assert_same(await stream.output, reference)


def test_sync_events(chat: ChatBitCal, reference: AIMessage) -> None:
    stream = chat.stream_events(QUESTION, version="v3")
    assert list(stream)
    assert_same(stream.output, reference)


class Ends(BaseCallbackHandler):
    """Keeps what callbacks see at the end of a run, and how many tokens they saw."""

    def __init__(self) -> None:
        self.ends: list[Generation] = []
        self.tokens: list[str] = []

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.ends.append(response.generations[0][0])

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


def test_callbacks_see_it_too(chat: ChatBitCal, reference: AIMessage) -> None:
    seen = Ends()
    chat.invoke(QUESTION, {"callbacks": [seen]})
    assert not seen.tokens
    list(chat.stream(QUESTION, {"callbacks": [seen]}))
    assert "".join(seen.tokens) == reference.text
    for generation in seen.ends:
        assert told(generation.generation_info) == told(reference.response_metadata)


# ---- caches ------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseCache]:
    if request.param == "memory":
        yield InMemoryCache()
        return
    community = pytest.importorskip("langchain_community.cache")
    store = community.SQLiteCache(str(tmp_path / "cache.db"))
    yield store
    store.engine.dispose()


class Counted(ToyModel):
    """Counts how often it was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked = 0
        self.add_sink(self._count)

    def _count(self, record: Any) -> None:
        self.asked += 1


def test_a_cache_hit_keeps_the_confidence(cache: BaseCache) -> None:
    model = Counted({QUESTION: ("Paris", 0.9)})
    chat = ChatBitCal(model=model, cache=cache)
    first = chat.invoke(QUESTION)
    first.response_metadata["bitcal"]["confidence"] = "spoilt by its user"
    hit = chat.invoke(QUESTION)
    hit.response_metadata["bitcal"]["confidence"] = "spoilt again"
    again = chat.generate([[HumanMessage(QUESTION)]]).generations[0][0]
    assert model.asked == 1
    assert again.message.response_metadata["bitcal"]["confidence"] == 0.9
    assert again.generation_info["bitcal"] == again.message.response_metadata["bitcal"]
    assert again.message.usage_metadata["total_tokens"] == 7


async def test_a_cache_hit_keeps_the_confidence_async(cache: BaseCache) -> None:
    model = Counted({QUESTION: ("Paris", 0.9)})
    chat = ChatBitCal(model=model, cache=cache)
    await chat.ainvoke(QUESTION)
    hit = await chat.ainvoke(QUESTION)
    assert model.asked == 1
    assert hit.response_metadata["bitcal"]["confidence"] == 0.9


def test_an_llm_cache_hit_keeps_the_confidence(cache: BaseCache) -> None:
    model = Counted({QUESTION: ("Paris", 0.9)})
    llm = BitCalLLM(model=model, cache=cache)
    first = llm.generate([QUESTION]).generations[0][0]
    first.generation_info["bitcal"]["confidence"] = "spoilt by its user"
    hit = llm.generate([QUESTION, QUESTION]).generations
    assert model.asked == 1
    assert [g.generation_info["bitcal"]["confidence"] for (g,) in hit] == [0.9, 0.9]
    assert hit[0][0].generation_info["usage_metadata"]["total_tokens"] == 7


@pytest.mark.parametrize("kind", [ChatBitCal, BitCalLLM])
def test_other_options_are_another_key(kind: Any) -> None:
    model, cache = Counted({QUESTION: ("It is Paris", 0.9)}), InMemoryCache()
    kind(model=model, cache=cache).invoke(QUESTION)
    kind(model=model, cache=cache).invoke(QUESTION)
    assert model.asked == 1
    kind(model=model, cache=cache, max_tokens=2).invoke(QUESTION)
    kind(model=model, cache=cache).invoke(QUESTION, max_tokens=1)
    kind(model=model, cache=cache, stop=["is"]).invoke(QUESTION)
    kind(model=model, cache=cache).invoke(QUESTION, parser=lambda text, ended: None)
    assert model.asked == 5
    other = Counted({QUESTION: ("Lyon", 0.2)})
    kind(model=other, cache=cache).invoke(QUESTION)
    assert other.asked == 1


def test_other_weights_and_profiles_are_another_key(tiny: CalibratedModel) -> None:
    with load("bitcal-tiny", weights="qint4", dtype="float32") as smaller:
        keys = [
            ChatBitCal(model=model)._get_llm_string()
            for model in (tiny, smaller, smaller.without_profile())
        ]
    assert len(set(keys)) == 3
