"""BitCalLLM: LangChain has no suite for text models, so this is ours, on the built-in model.

Sync, async, batch and stream agree in text, tokens and confidence.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import Generation, LLMResult
from langchain_core.prompts import PromptTemplate

from bitcal_integrations import CalibratedModel, load
from bitcal_integrations.errors import BadRequest, BatchError
from bitcal_integrations.langchain import BitCalLLM
from bitcal_integrations.testing.toy import ToyModel

PROMPTS = [f"What is the capital of {land}?" for land in ("France", "Italy", "Peru")]


@pytest.fixture(scope="module")
def tiny() -> Iterator[CalibratedModel]:
    with load("bitcal-tiny", weights="qint8", deterministic=True) as model:
        yield model


@pytest.fixture(scope="module")
def llm(tiny: CalibratedModel) -> BitCalLLM:
    return BitCalLLM(model=tiny, max_tokens=24, logprobs=True, top_logprobs=1)


@pytest.fixture(scope="module")
def expected(llm: BitCalLLM) -> list[Generation]:
    return [llm.generate([prompt]).generations[0][0] for prompt in PROMPTS]


class Sees(BaseCallbackHandler):
    """Every end of a run, and every token."""

    def __init__(self) -> None:
        self.ends: list[LLMResult] = []
        self.tokens: list[str] = []

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.ends.append(response)

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.tokens.append(token)


def plain(generation: Generation) -> tuple[str, Any]:
    info = generation.generation_info or {}
    assert info["record_id"]  # another for each answer
    return generation.text, {key: value for key, value in info.items() if key != "record_id"}


def test_the_expected_is_the_models_own(tiny: CalibratedModel, expected: list[Generation]) -> None:
    for prompt, generation in zip(PROMPTS, expected, strict=True):
        record = tiny.ask(prompt, max_new_tokens=24)
        assert generation.text == record.text
        info = generation.generation_info
        assert info["bitcal"] == record.bitcal()
        assert info["bitcal"]["calibrated"] is True
        assert info["usage_metadata"]["output_tokens"] == record.generation.n_tokens
        tokens = info["logprobs"]["content"]
        assert [t["logprob"] for t in tokens] == [s.logprob for s in record.generation.steps]


def test_invoke_gives_the_text(llm: BitCalLLM, expected: list[Generation]) -> None:
    assert [llm.invoke(prompt) for prompt in PROMPTS] == [g.text for g in expected]


def test_many_prompts(llm: BitCalLLM, expected: list[Generation]) -> None:
    result = llm.generate(PROMPTS)
    assert [plain(g) for (g,) in result.generations] == [plain(g) for g in expected]
    tokens = [g.generation_info["usage_metadata"]["total_tokens"] for g in expected]
    assert result.llm_output["token_usage"]["total_tokens"] == sum(tokens)
    assert result.llm_output["model_name"] == "bitcal-tiny"
    assert llm.batch(PROMPTS) == [g.text for g in expected]


async def test_async(llm: BitCalLLM, expected: list[Generation]) -> None:
    result = await llm.agenerate(PROMPTS)
    assert [plain(g) for (g,) in result.generations] == [plain(g) for g in expected]
    assert await llm.ainvoke(PROMPTS[0]) == expected[0].text
    assert await llm.abatch(PROMPTS) == [g.text for g in expected]


async def test_streams(llm: BitCalLLM, expected: list[Generation]) -> None:
    chunks = list(llm._stream(PROMPTS[0]))
    achunks = [chunk async for chunk in llm._astream(PROMPTS[0])]
    assert plain(reduce(add, chunks)) == plain(reduce(add, achunks)) == plain(expected[0])
    assert "".join(llm.stream(PROMPTS[0])) == expected[0].text
    assert "".join([text async for text in llm.astream(PROMPTS[0])]) == expected[0].text
    for chunk in chunks[:-1]:
        assert set(chunk.generation_info) == {"logprobs"}


async def test_callbacks_see_each_prompt_and_its_confidence(
    llm: BitCalLLM, expected: list[Generation]
) -> None:
    sync, batched, streamed, asynced = Sees(), Sees(), Sees(), Sees()
    llm.invoke(PROMPTS[0], {"callbacks": [sync]})
    llm.batch(PROMPTS, {"callbacks": [batched]})
    list(llm.stream(PROMPTS[0], {"callbacks": [streamed]}))
    await llm.ainvoke(PROMPTS[0], {"callbacks": [asynced]})
    for seen in (sync, streamed, asynced):
        (end,) = seen.ends
        assert plain(end.generations[0][0]) == plain(expected[0])
    found = {plain(end.generations[0][0])[0] for end in batched.ends}
    assert found == {g.text for g in expected}
    assert "".join(streamed.tokens) == expected[0].text


def test_streaming_true_tells_tokens_on_invoke(
    tiny: CalibratedModel, expected: list[Generation]
) -> None:
    seen = Sees()
    llm = BitCalLLM(model=tiny, max_tokens=24, logprobs=True, top_logprobs=1, streaming=True)
    assert llm.invoke(PROMPTS[0], {"callbacks": [seen]}) == expected[0].text
    assert "".join(seen.tokens) == expected[0].text
    assert plain(seen.ends[0].generations[0][0]) == plain(expected[0])


def test_events_of_a_chain(llm: BitCalLLM, expected: list[Generation]) -> None:
    chain = PromptTemplate.from_template("What is the capital of {land}?") | llm
    assert chain.invoke({"land": "Italy"}) == expected[1].text
    assert chain.batch([{"land": "France"}, {"land": "Peru"}]) == [
        expected[0].text, expected[2].text,
    ]  # fmt: skip


def test_messages_become_text(llm: BitCalLLM) -> None:
    assert llm.invoke([("human", "What is the capital of France?")])


def test_a_bare_prompt_without_the_chat_template(tiny: CalibratedModel) -> None:
    bare = BitCalLLM(model=tiny, max_tokens=5, chat=False).generate(["The capital of"])
    record = tiny.ask("The capital of", max_new_tokens=5, chat=False)
    assert bare.generations[0][0].text == record.text


def test_stop_at_init_and_at_a_call() -> None:
    toy = ToyModel({"?": ("one two three", 0.9)})
    assert BitCalLLM(model=toy, stop=["two"]).invoke("?") == "one "
    assert BitCalLLM(model=toy, stop=["two"]).invoke("?", stop=["three"]) == "one two "
    assert "".join(BitCalLLM(model=toy).stream("?", stop=["two"])) == "one "


def test_errors_say_what_is_allowed() -> None:
    toy = ToyModel({})
    with pytest.raises(BadRequest, match="unknown argument 'temp'"):
        BitCalLLM(model=toy, temp=0)
    with pytest.raises(BadRequest, match="unknown option 'temp'"):
        BitCalLLM(model=toy).invoke("?", temp=0)
    toy.close()
    with pytest.raises(BatchError, match="2 of 2 requests failed"):
        BitCalLLM(model=toy).generate(["a", "b"])


def test_tokens_are_counted_with_the_models_tokenizer(llm: BitCalLLM, tiny: Any) -> None:
    ids = tiny._loaded.tokenizer("Lima, Peru", add_special_tokens=False)["input_ids"]
    assert llm.get_token_ids("Lima, Peru") == ids
    assert llm.get_num_tokens("Lima, Peru") == len(ids)


def test_a_bound_model_keeps_its_options_behind_a_router() -> None:
    toy = ToyModel({"?": ("one two", 0.9)})
    bound = BitCalLLM(model=toy).bind(stop=["two"])
    router = bound.with_confidence_fallback([BitCalLLM(model=toy)], min_confidence=0.7)
    assert router.primary is bound
    assert router.invoke("?") == "one "


def test_what_traces_and_caches_see(llm: BitCalLLM) -> None:
    assert llm._get_ls_params()["ls_provider"] == "bitcal"
    assert llm._get_ls_params()["ls_model_name"] == "bitcal-tiny"
    assert llm._identifying_params["weights"] == {"qint8": 28}
    assert "CalibratedModel('bitcal-tiny')" in str(llm)
    assert str(BitCalLLM(model="never/loaded"))
