"""Conformance tests for any LLM of LlamaIndex, which has none of its own.

Subclass `LLMConformance`, give it the fixture `llm`, and pytest runs every test: the eight
endpoints, events, callbacks, serialization, concurrency, cancellation, errors, engines, agents.
The tests that look into a local model need `torch_model`. It knows LlamaIndex and no particular
LLM, so that other integrations can be measured by it too.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool

from bitcal_integrations.testing._llama_index_answers import AnswerTests
from bitcal_integrations.testing._llama_index_help import (
    BOTH,
    City,
    asked_of,
    chunks_of,
    double,
    memory,
    query_engine,
    text_of,
)
from bitcal_integrations.testing._probes import PATIENCE_S, QUIET_S, watched, within

__all__ = ["LLMConformance"]

STREAMS = [endpoint for endpoint in BOTH if "stream" in endpoint]
# LlamaIndex's agents use what pydantic and its own workflows call deprecated.
in_agents = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ASYNC = [endpoint for endpoint in BOTH if endpoint.startswith("a")]


class LLMConformance(AnswerTests):
    """All tests. A subclass gives the fixture `llm`, and `torch_model` if it has one.

    >>> class TestMine(LLMConformance):
    ...     @pytest.fixture
    ...     def llm(self):
    ...         return MyLLM()
    ...     def torch_model(self, llm):
    ...         return llm.model  # the module whose forward generates
    """

    # ---- copies ------------------------------------------------------------------------------

    def test_to_dict_round_trip(self, llm: Any) -> None:
        data = json.loads(json.dumps(llm.to_dict()))
        again = type(llm).from_dict(data)
        assert again.to_dict() == llm.to_dict()
        assert again.complete(self.prompt).text == llm.complete(self.prompt).text

    def test_copies_share_the_weights(self, llm: Any) -> None:
        model = self.watched_model(llm)
        for copied in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy()):
            assert self.torch_model(copied) is model

    # ---- many at once ------------------------------------------------------------------------

    def test_calls_at_once_keep_their_answers(self, llm: Any) -> None:
        async def at_once() -> list[Any]:
            return await asyncio.gather(*(llm.acomplete(p) for p in self.prompts))

        alone = [llm.complete(p).text for p in self.prompts]
        assert [r.text for r in asyncio.run(at_once())] == alone

    @pytest.mark.parametrize("endpoint", ASYNC)
    def test_the_loop_runs_while_the_model_works(self, llm: Any, endpoint: str) -> None:
        """The model waits inside a forward until the loop lets it go on."""

        async def held(probe: Any) -> int:
            done = asyncio.create_task(asyncio.to_thread(probe.wait_for, 1))
            response = asyncio.create_task(_aread(llm, endpoint, self.prompt))
            assert await done
            for _ in range(10):  # only a free loop comes to the end of this
                await asyncio.sleep(0)
            finished = response.done()
            probe.release()
            await response
            return finished

        with watched(self.watched_model(llm)) as probe:
            probe.hold()
            assert not within(PATIENCE_S / 4, lambda: asyncio.run(held(probe)))

    def test_queries_at_once_keep_their_answers(self, llm: Any) -> None:
        engine = query_engine(llm)

        async def at_once() -> list[Any]:
            return await asyncio.gather(*(engine.aquery(p) for p in self.prompts))

        alone = [str(engine.query(p)) for p in self.prompts]
        assert [str(r) for r in asyncio.run(at_once())] == alone

    # ---- ends --------------------------------------------------------------------------------

    @pytest.mark.parametrize("endpoint", STREAMS)
    def test_closing_a_stream_stops_the_model(self, llm: Any, endpoint: str) -> None:
        """At most the step under way and one more are made after the reader has gone."""

        async def afirst() -> None:
            chunks = await getattr(llm, endpoint)(asked_of(endpoint, self.prompt))
            await anext(chunks)
            await chunks.aclose()

        def first() -> None:
            chunks = getattr(llm, endpoint)(asked_of(endpoint, self.prompt))
            next(chunks)
            chunks.close()

        with watched(self.watched_model(llm)) as probe:
            probe.hold(2)
            read = (lambda: asyncio.run(afirst())) if endpoint.startswith("a") else first
            within(PATIENCE_S, read)
            made = probe.forwards
            probe.release()
            assert not probe.wait_for(made + 2, QUIET_S)

    @pytest.mark.parametrize("endpoint", BOTH)
    def test_an_error_comes_at_once(self, llm: Any, endpoint: str) -> None:
        model = self.watched_model(llm)
        with (
            watched(model, RuntimeError("no such luck")),
            pytest.raises(Exception, match="no such luck"),
        ):
            within(PATIENCE_S / 4, lambda: chunks_of(llm, endpoint, self.prompt))
        assert text_of(chunks_of(llm, endpoint, self.prompt)[-1]).strip()

    # ---- engines and agents ------------------------------------------------------------------

    def test_query_engines(self, llm: Any) -> None:
        engine, streaming = query_engine(llm), query_engine(llm, streaming=True)
        text = str(engine.query(self.prompt))
        assert text.strip()
        assert str(asyncio.run(engine.aquery(self.prompt))) == text
        assert str(streaming.query(self.prompt)) == text
        assert asyncio.run(_astreamed(streaming, self.prompt)) == text

    @pytest.mark.parametrize("mode", ["refine", "tree_summarize", "simple_summarize"])
    def test_response_modes(self, llm: Any, mode: str) -> None:
        assert str(query_engine(llm, response_mode=mode).query(self.prompt)).strip()

    def test_chat_engines(self, llm: Any) -> None:
        whole, streamed = (
            SimpleChatEngine.from_defaults(llm=llm, memory=memory()) for _ in range(2)
        )
        text = str(whole.chat(self.prompt))
        assert text.strip()
        assert "".join(streamed.stream_chat(self.prompt).response_gen) == text
        assert len(whole.chat_history) == len(streamed.chat_history) == 2

    @in_agents
    @pytest.mark.parametrize("streaming", [False, True])
    def test_react_agent(self, llm: Any, streaming: bool) -> None:
        tool = FunctionTool.from_defaults(double)
        assert _answer(ReActAgent(tools=[tool], llm=llm, streaming=streaming), self.prompt)

    @in_agents
    @pytest.mark.parametrize("streaming", [False, True])
    def test_function_agent(self, llm: Any, streaming: bool) -> None:
        if not llm.metadata.is_function_calling_model:
            pytest.skip("no function calling model")
        tool = FunctionTool.from_defaults(double, return_direct=True)
        assert _answer(FunctionAgent(tools=[tool], llm=llm, streaming=streaming), self.prompt)

    def test_a_required_tool_is_called(self, llm: Any) -> None:
        if not llm.metadata.is_function_calling_model:
            pytest.skip("no function calling model")
        tool = FunctionTool.from_defaults(double)
        response = llm.chat_with_tools([tool], "Double 4.", tool_required=True)
        (call,) = llm.get_tool_calls_from_response(response)
        assert call.tool_name == "double"
        assert isinstance(call.tool_kwargs["x"], int)

    def test_structured_predict(self, llm: Any) -> None:
        prompt = PromptTemplate("Name the capital of {country}.")
        assert isinstance(llm.structured_predict(City, prompt, country="France"), City)
        found = asyncio.run(llm.astructured_predict(City, prompt, country="France"))
        assert isinstance(found, City)
        assert prompt.output_parser is None  # the caller's prompt is as it was


async def _aread(llm: Any, endpoint: str, prompt: str) -> Any:
    response = await getattr(llm, endpoint)(asked_of(endpoint, prompt))
    return [chunk async for chunk in response] if "stream" in endpoint else response


async def _astreamed(engine: Any, prompt: str) -> str:
    response = await engine.aquery(prompt)
    return "".join([text async for text in response.async_response_gen()])


def _answer(agent: Any, prompt: str) -> str:
    async def run() -> str:
        return str(await agent.run(prompt, memory=memory(), max_iterations=4))

    return asyncio.run(run()).strip()
