"""What the tests of the LlamaIndex adapter share: models that are watched or held, and engines."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations.engines._ticket import Outcome
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Request, Step


class Spy(ToyModel):
    """A toy that keeps what it was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[Request] = []
        submit = self._table.submit

        def spied(request: Request, listener: Any, steps: bool = True) -> Any:
            self.requests.append(request)
            return submit(request, listener, steps)

        self._table.submit = spied  # type: ignore[method-assign]


class Saying(ToyModel):
    """A toy that says these things in turn, whatever it is asked."""

    def __init__(self, *entries: Any, **kwargs: Any) -> None:
        super().__init__({}, **kwargs)
        self._entries = iter(entries)
        self._said: list[tuple[Request, Any]] = []
        self._table.look_up = self._next  # type: ignore[method-assign]

    def _next(self, request: Request) -> Any:
        for asked, entry in self._said:
            if asked is request:
                return entry
        self._said.append((request, next(self._entries)))
        return self._said[-1][1]


class Held(ToyModel):
    """A toy whose answers wait until they are released; it notices when a request is cancelled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked, self.cancelled = threading.Event(), threading.Event()
        self.waiting: list[Callable[[], None]] = []
        self._say, self._table.submit = self._table.submit, self._hold  # type: ignore[method-assign]

    def _hold(self, request: Request, listener: Any, steps: bool = True) -> Any:
        """Give the first step of a stream, and keep the rest."""
        events: list[Any] = []
        self._say(request, events.append, steps)
        at = 1 if isinstance(events[0], Step) else 0
        for event in events[:at]:
            listener(event)
        self.waiting.append(lambda: [listener(event) for event in events[at:]] and None)
        self.asked.set()
        return _Ticket(self.cancelled if isinstance(events[-1], Outcome) else None)

    def release(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


class _Ticket:
    def __init__(self, cancelled: threading.Event | None) -> None:
        self._cancelled = cancelled

    def cancel(self) -> None:
        if self._cancelled:
            self._cancelled.set()


class Texts(BaseRetriever):
    """Finds the same texts for every query."""

    def __init__(self, *texts: str) -> None:
        self.nodes = [
            NodeWithScore(node=TextNode(text=text, id_=f"n{i}", metadata={"at": i}), score=0.9)
            for i, text in enumerate(texts)
        ]
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self.nodes


def engine_of(
    llm: Any, *texts: str, streaming: bool = False, mode: str = "compact"
) -> RetrieverQueryEngine:
    """A query engine over these texts, with a synthesizer of LlamaIndex's own."""
    synthesizer = get_response_synthesizer(llm=llm, streaming=streaming, response_mode=mode)
    return RetrieverQueryEngine(Texts(*texts), response_synthesizer=synthesizer)
