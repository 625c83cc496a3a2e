"""Conformance of an LLM of LlamaIndex, first part: what one call answers, says and fires.

Knows LlamaIndex and no particular LLM.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from llama_index.core.base.llms.types import MessageRole
from llama_index.core.callbacks import TokenCountingHandler
from llama_index.core.instrumentation.events import llm as llm_events
from llama_index.core.prompts import PromptTemplate

from bitcal_integrations.testing._llama_index_help import (
    BOTH,
    CHAT_ENDPOINTS,
    ENDPOINTS,
    Callbacks,
    called_back,
    chunks_of,
    events,
    text_of,
)
from bitcal_integrations.testing._probes import watched


class AnswerTests:
    """One call at a time. A subclass gives the fixture `llm`, and `torch_model` if it has one.

    `prompt` is answered in a few tokens of text, `prompts` are different ones; decoding must be
    greedy, so that one prompt has one answer.
    """

    prompt: str = "What is the capital of France?"
    prompts: Sequence[str] = tuple(
        f"What is the capital of {c}?" for c in ("France", "Italy", "Spain", "Japan")
    )

    @pytest.fixture
    def llm(self) -> Any:
        pytest.fail("a suite gives a fixture `llm`: the LLM to be tested")

    def torch_model(self, llm: Any) -> Any:
        """The torch module that generates, or None: then the tests that watch it are skipped."""
        return None

    def watched_model(self, llm: Any) -> Any:
        model = self.torch_model(llm)
        if model is None:
            pytest.skip("there is no torch_model to look into")
        return model

    # ---- the eight endpoints -----------------------------------------------------------------

    def test_is_a_base_llm(self, llm: Any) -> None:
        assert "BaseLLM" in [base.__name__ for base in type(llm).__mro__]

    def test_metadata_is_filled_in(self, llm: Any) -> None:
        metadata = llm.metadata
        assert 0 < metadata.num_output < metadata.context_window
        assert metadata.model_name

    @pytest.mark.parametrize("endpoints", [ENDPOINTS, CHAT_ENDPOINTS], ids=["complete", "chat"])
    def test_endpoints_agree(self, llm: Any, endpoints: Sequence[str]) -> None:
        texts = {e: text_of(chunks_of(llm, e, self.prompt)[-1]) for e in endpoints}
        assert len(set(texts.values())) == 1, texts
        assert texts[endpoints[0]].strip()

    def test_chat_models_complete_as_they_chat(self, llm: Any) -> None:
        if not llm.metadata.is_chat_model:
            pytest.skip("no chat model")
        chatted = chunks_of(llm, "chat", self.prompt)[-1]
        assert text_of(chatted) == llm.complete(self.prompt).text
        assert chatted.message.role == MessageRole.ASSISTANT

    @pytest.mark.parametrize("endpoint", [e for e in BOTH if "stream" in e])
    def test_deltas_add_up(self, llm: Any, endpoint: str) -> None:
        chunks = chunks_of(llm, endpoint, self.prompt)
        assert "".join(c.delta or "" for c in chunks) == text_of(chunks[-1])
        for before, after in pairwise(chunks):
            assert text_of(after) == text_of(before) + (after.delta or "")

    def test_a_system_prompt_reaches_every_endpoint(self, llm: Any) -> None:
        model = self.watched_model(llm)
        before, llm.system_prompt = llm.system_prompt, "Answer in one word only."
        try:
            lengths = {e: self._prompt_length(model, llm, e) for e in BOTH}
        finally:
            llm.system_prompt = before
        bare = self._prompt_length(model, llm, "complete")
        assert min(lengths.values()) > bare
        assert len(set(lengths.values())) == 1, lengths

    def _prompt_length(self, model: Any, llm: Any, endpoint: str) -> int:
        with watched(model) as probe:
            chunks_of(llm, endpoint, self.prompt)
        return len(probe.inputs[0])

    def test_one_bos(self, llm: Any) -> None:
        model = self.watched_model(llm)
        with watched(model) as probe:
            chunks_of(llm, "chat", self.prompt)
        bos = model.config.bos_token_id
        assert bos is None or probe.inputs[0].count(bos) == 1

    # ---- what a response says ----------------------------------------------------------------

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_responses_are_json(self, llm: Any, endpoint: str) -> None:
        last = chunks_of(llm, endpoint, self.prompt)[-1]
        last.model_dump_json()
        json.dumps(last.raw, allow_nan=False)

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_logprobs_spell_the_text(self, llm: Any, endpoint: str) -> None:
        last = chunks_of(llm, endpoint, self.prompt)[-1]
        assert "".join(row[0].token for row in last.logprobs) == text_of(last)
        assert all(c.logprob <= 0 for row in last.logprobs for c in row)

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_usage_is_counted_not_estimated(self, llm: Any, endpoint: str) -> None:
        counter = TokenCountingHandler(tokenizer=lambda text: [])  # whose estimate is always 0
        with called_back(llm, counter):
            chunks_of(llm, endpoint, self.prompt)
        assert counter.prompt_llm_token_count > 0
        assert counter.completion_llm_token_count > 0

    @pytest.mark.parametrize("endpoint", CHAT_ENDPOINTS)
    def test_nothing_leaks_into_later_prompts(self, llm: Any, endpoint: str) -> None:
        last = chunks_of(llm, endpoint, self.prompt)[-1]
        assert last.message.additional_kwargs == {}

    # ---- events ------------------------------------------------------------------------------

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_events_fire_once(self, llm: Any, endpoint: str) -> None:
        kind = "LLMChat" if "chat" in endpoint else "LLMCompletion"
        with events() as seen:
            chunks = chunks_of(llm, endpoint, self.prompt)
        start, middle, end = (
            getattr(llm_events, f"{kind}{part}Event") for part in ("Start", "InProgress", "End")
        )
        assert (seen.count(start), seen.count(end)) == (1, 1)
        assert seen.count(middle) == (len(chunks) if "stream" in endpoint else 0)
        (last,) = [event for event in seen.seen if isinstance(event, end)]
        assert text_of(last.response) == text_of(chunks[-1])

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_callbacks_fire_once(self, llm: Any, endpoint: str) -> None:
        with called_back(llm, Callbacks()) as handler:
            chunks_of(llm, endpoint, self.prompt)
        assert (handler.started, handler.ended) == (1, 1)

    def test_predict_fires_once(self, llm: Any) -> None:
        with events() as seen, called_back(llm, Callbacks()) as handler:
            text = llm.predict(PromptTemplate("{q}"), q=self.prompt)
        ends = (llm_events.LLMChatEndEvent, llm_events.LLMCompletionEndEvent)
        assert text.strip()
        assert (sum(map(seen.count, ends)), handler.started, handler.ended) == (1, 1, 1)

    # ---- keywords ----------------------------------------------------------------------------

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_max_tokens_of_a_call(self, llm: Any, endpoint: str) -> None:
        whole = text_of(chunks_of(llm, endpoint, self.prompt)[-1])
        short = text_of(chunks_of(llm, endpoint, self.prompt, max_tokens=1)[-1])
        assert len(short) < len(whole)
        assert whole.startswith(short)

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_stop_of_a_call(self, llm: Any, endpoint: str) -> None:
        whole = text_of(chunks_of(llm, endpoint, self.prompt)[-1])
        stop = whole[len(whole) // 2 :][:2]
        cut = text_of(chunks_of(llm, endpoint, self.prompt, stop=[stop])[-1])
        assert cut == whole[: whole.index(stop)]

    def test_temperature_and_seed_of_a_call(self, llm: Any) -> None:
        def sampled(seed: int) -> str:
            return str(llm.complete(self.prompt, temperature=3.0, seed=seed, max_tokens=12).text)

        assert sampled(1) == sampled(1)
        assert len({sampled(seed) for seed in range(4)}) > 1

    def test_an_unknown_keyword_is_refused(self, llm: Any) -> None:
        with pytest.raises(Exception, match="no_such_keyword"):
            llm.complete(self.prompt, no_such_keyword=1)
