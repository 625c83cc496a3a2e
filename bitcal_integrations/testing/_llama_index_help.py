"""What the conformance tests of an LLM of LlamaIndex share: endpoints by name, events, engines.

Knows LlamaIndex and no particular LLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import BaseModel

ENDPOINTS = ("complete", "stream_complete", "acomplete", "astream_complete")
CHAT_ENDPOINTS = ("chat", "stream_chat", "achat", "astream_chat")
BOTH = (*ENDPOINTS, *CHAT_ENDPOINTS)


class City(BaseModel):
    """A city."""

    name: str


def asked_of(endpoint: str, prompt: str) -> Any:
    """The prompt in the form that this endpoint takes."""
    return [ChatMessage(prompt)] if "chat" in endpoint else prompt


def chunks_of(llm: Any, endpoint: str, prompt: str, **kwargs: Any) -> list[Any]:
    """What an endpoint gives: the chunks of a stream, or its one response."""
    asked = asked_of(endpoint, prompt)
    if endpoint.startswith("a"):
        return asyncio.run(_achunks(llm, endpoint, asked, kwargs))
    response = getattr(llm, endpoint)(asked, **kwargs)
    return list(response) if "stream" in endpoint else [response]


async def _achunks(llm: Any, endpoint: str, asked: Any, kwargs: dict[str, Any]) -> list[Any]:
    response = await getattr(llm, endpoint)(asked, **kwargs)
    return [chunk async for chunk in response] if "stream" in endpoint else [response]


def text_of(response: Any) -> str:
    return response.message.content or "" if hasattr(response, "message") else str(response.text)


class Events(BaseEventHandler):
    seen: list[Any] = []  # noqa: RUF012  (a pydantic field, copied for each handler)

    @classmethod
    def class_name(cls) -> str:
        return "conformance"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(event)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.seen)


@contextmanager
def events() -> Iterator[Events]:
    """The instrumentation events of a block."""
    handler, root = Events(), get_dispatcher()
    root.add_event_handler(handler)
    try:
        yield handler
    finally:
        root.event_handlers.remove(handler)


class Callbacks(BaseCallbackHandler):
    def __init__(self) -> None:
        super().__init__([], [])
        self.started = self.ended = 0

    def on_event_start(self, event_type: Any, *args: Any, **kwargs: Any) -> str:
        self.started += event_type == CBEventType.LLM
        return ""

    def on_event_end(self, event_type: Any, *args: Any, **kwargs: Any) -> None:
        self.ended += event_type == CBEventType.LLM

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing is kept per trace."""

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        """Nothing is kept per trace."""


@contextmanager
def called_back(llm: Any, handler: Any) -> Iterator[Any]:
    """The LLM with one legacy callback handler."""
    before, llm.callback_manager = llm.callback_manager, CallbackManager([handler])
    try:
        yield handler
    finally:
        llm.callback_manager = before


class Fixed(BaseRetriever):
    """A retriever that always finds the same text."""

    def __init__(self, text: str = "The capital of France is Paris.") -> None:
        self._nodes = [NodeWithScore(node=TextNode(text=text), score=0.9)]
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._nodes


def query_engine(llm: Any, streaming: bool = False, **kwargs: Any) -> RetrieverQueryEngine:
    """A query engine with one fixed text and the default synthesizer."""
    synthesizer = get_response_synthesizer(llm=llm, streaming=streaming, **kwargs)
    return RetrieverQueryEngine(Fixed(), response_synthesizer=synthesizer)


def memory() -> ChatMemoryBuffer:
    """A memory in plain lists: the default one leaves its database open."""
    return ChatMemoryBuffer(token_limit=3000, tokenizer_fn=str.split)


def double(x: int) -> int:
    """Twice a number."""
    return 2 * x
