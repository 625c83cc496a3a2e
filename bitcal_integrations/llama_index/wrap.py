"""with_confidence: an engine whose responses carry the confidence of what its LLM said.

LlamaIndex passes texts between an LLM and its engine, so the confidence is lost on the way. The
wrapper collects the answers that are given while its engine works, and writes them into the
response's metadata. It changes no answer and decides nothing.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.chat_engine.types import BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index._records import confidence_keys
from bitcal_integrations.llama_index._told import atold_stream, told_chat, told_stream
from bitcal_integrations.llama_index._turns import own_turn
from bitcal_integrations.llama_index.collector import Call, Collector, collect
from bitcal_integrations.types import Confidence, Record

NOBODY = "no BitCalLLM was asked"
UNREAD = "the stream has not been read to its end"
CUT = "the stream was closed before its end"


def with_confidence(engine: Any, aggregate: str = "minimum") -> Any:
    """The engine, whose responses have `metadata["confidence"]` and `metadata["bitcal"]`.

    `engine` is a query engine or a chat engine; `query`, `aquery`, `chat`, `achat` and the
    streams stay what they are. The confidence is a float, or None where it is unknown: no
    BitCalLLM was asked, or a stream has not been read to its end, where it is filled in. An engine
    that asks several times, such as `refine`, gives the `aggregate` of the calls (minimum,
    product, mean, last), which is no calibrated number by itself; `bitcal["trail"]` has each.
    """
    Trail(aggregate)  # refuses an unknown name now
    if isinstance(engine, BaseQueryEngine):
        return ConfidenceQueryEngine(engine, aggregate)
    if isinstance(engine, BaseChatEngine):
        return ConfidenceChatEngine(engine, aggregate)
    raise BadRequest(f"{engine!r:.100} is no query engine and no chat engine of LlamaIndex")


def confidence_of(collector: Collector, aggregate: str = "minimum") -> dict[str, Any]:
    """`confidence` and `bitcal` for the calls that a collector has seen."""
    calls = collector.calls
    if not calls:
        return confidence_keys(unknown_record("", reason=NOBODY))
    if collector.open:
        return confidence_keys(unknown_record("", reason=UNREAD))
    last = calls[-1].record
    if last is None:
        return confidence_keys(unknown_record("", reason=_failure(calls[-1])))
    records = collector.records
    if len(records) == 1:
        return confidence_keys(last, **calls[-1].about)
    trail = Trail(aggregate)
    for index, record in enumerate(records):
        trail.add(record, f"call {index + 1}")
    return confidence_keys(_together(last, trail), trail=trail.to_dict())


def _failure(call: Call) -> str:
    """Why the last call has no answer, though the engine gave a response."""
    if call.error is None or isinstance(call.error, GeneratorExit):
        return CUT
    return f"the last call failed: {type(call.error).__name__}: {call.error}"


def _together(last: Record, trail: Trail) -> Record:
    """The last call's record with the confidence of all calls, which nobody has measured."""
    if trail.aggregate == "last":
        return last
    about = f"the {trail.aggregate} over {len(trail.records)} calls"
    if trail.value is None:
        unknown = next(r for r in trail.records if r.confidence.value is None)
        about += f": one is unknown ({unknown.confidence.reason})"
    old = last.confidence
    confidence = Confidence(trail.value, raw=old.raw, signals=old.signals, reason=about)
    confidence = replace(confidence, profile=old.profile, task=old.task)
    return replace(last, confidence=confidence, decision=None)


class _Writer:
    """Writes both keys into a response's metadata, for a stream again and again until its end."""

    def __init__(self, response: Any, collector: Collector, aggregate: str) -> None:
        self.metadata: dict[str, Any] = dict(getattr(response, "metadata", None) or {})
        # An engine inside that has written them has said more than could be said here.
        self._keep = "bitcal" in self.metadata
        self._collector, self._aggregate = collector, aggregate
        self._lock = threading.Lock()

    def write(self, unread: str = "") -> None:
        if self._keep:
            return
        with self._lock:  # a stream may end in a thread of its own while this is first written
            found = confidence_of(self._collector, self._aggregate)
            if unread and not any(call.ended for call in self._collector.calls):
                found = confidence_keys(unknown_record("", reason=unread))
            self.metadata.update(found)


def _written(response: Any, collector: Collector, aggregate: str) -> Any:
    """The response with the confidence in its metadata; a stream's is filled in at its end."""
    writer = _Writer(response, collector, aggregate)
    if isinstance(response, StreamingAgentChatResponse):  # its writer thread holds this object
        collector.watch(writer.write)
        writer.write(UNREAD)
        response.metadata = writer.metadata  # type: ignore[attr-defined]
        return response
    streams: dict[type, Callable[..., Any]] = {
        StreamingResponse: told_stream,
        AsyncStreamingResponse: atold_stream,
    }
    told = streams.get(type(response))
    if told is None:
        writer.write()
        return replace(response, metadata=writer.metadata)
    writer.write(UNREAD)
    stream = told(response.response_gen, collector, writer.write)
    return replace(response, metadata=writer.metadata, response_gen=stream)


class ConfidenceQueryEngine(BaseQueryEngine):
    """A query engine round another one; made by `with_confidence`."""

    def __init__(self, engine: BaseQueryEngine, aggregate: str = "minimum") -> None:
        self._engine = engine
        self._aggregate = aggregate
        super().__init__(callback_manager=engine.callback_manager)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"query_engine": self._engine}

    def _query(self, query_bundle: QueryBundle) -> Any:
        with collect() as collector:
            return self._said(self._engine.query(query_bundle), collector)

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        await own_turn()
        with collect() as collector:
            return self._said(await self._engine.aquery(query_bundle), collector)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._engine.retrieve(query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Any:
        with collect() as collector:
            response = self._engine.synthesize(query_bundle, nodes, additional_source_nodes)
            return self._said(response, collector)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Any:
        with collect() as collector:
            response = await self._engine.asynthesize(query_bundle, nodes, additional_source_nodes)
            return self._said(response, collector)

    def _said(self, response: Any, collector: Collector) -> Any:
        return _written(response, collector, self._aggregate)


class ConfidenceChatEngine(BaseChatEngine):
    """A chat engine round another one; made by `with_confidence`."""

    def __init__(self, engine: BaseChatEngine, aggregate: str = "minimum") -> None:
        self._engine = engine
        self._aggregate = aggregate

    @property
    def chat_history(self) -> list[ChatMessage]:
        return self._engine.chat_history

    def reset(self) -> None:
        self._engine.reset()

    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> Any:
        with collect() as collector:
            return self._said(self._engine.chat(message, chat_history), collector)

    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> Any:
        await own_turn()
        with collect() as collector:
            return self._said(await self._engine.achat(message, chat_history), collector)

    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> Any:
        with collect() as collector:
            engine = self._told(collector)
            return self._said(engine.stream_chat(message, chat_history), collector)

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> Any:
        with collect() as collector:
            engine = self._told(collector)
            return self._said(await engine.astream_chat(message, chat_history), collector)

    def _told(self, collector: Collector) -> Any:
        """The engine with everything it asks for a stream seen, a query engine of its own too."""
        engine = told_chat(self._engine, collector)
        queries = getattr(engine, "_query_engine", None)
        if isinstance(queries, BaseQueryEngine):
            engine = copy.copy(engine)
            engine._query_engine = ConfidenceQueryEngine(queries, self._aggregate)
        return engine

    def _said(self, response: Any, collector: Collector) -> Any:
        return _written(response, collector, self._aggregate)


__all__ = ["ConfidenceChatEngine", "ConfidenceQueryEngine", "confidence_of", "with_confidence"]
