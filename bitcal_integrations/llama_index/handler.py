"""Handlers that hear of every answer: one for the CallbackManager, one for the dispatcher.

They collect a Record per answer, by query, and give it to a sink; other llms are scored by their
log-probabilities. They change no answer. What each can do (each line is a test):

| handler                    | hears                      | raise_below, stop_above, policy  |
|----------------------------|----------------------------|----------------------------------|
| ConfidenceCallbackHandler  | llms whose callback        | yes, from the call; a stream     |
|                            | manager it is in           | after its last token was shown   |
| ConfidenceEventHandler     | every llm of the process,  | no: the dispatcher swallows what |
|                            | streams read later too     | a handler raises, exits included |

Both hear drafts that a fallback did not give, and the first hears a stock CustomLLM's chat twice,
as the call of `complete` inside it is an event too. To choose between answers take the fallback
engine or llm: a handler can only watch, and the first one stop.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.dispatcher import Dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler

from bitcal_integrations.chains._why import why_hopeless, why_settled
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.llama_index._heard import Heard, Hearing
from bitcal_integrations.llama_index._records import confidence_keys, joined, record_of, turns_of
from bitcal_integrations.llama_index._responses import streams
from bitcal_integrations.llama_index._spans import SpanLinks, inside
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Record

logger = logging.getLogger(__name__)
Sink = Callable[[Record], None]
UNHEARD = "no llm has answered yet"
STREAMS = 1000  # responses whose stream may still be unread


class ConfidenceCallbackHandler(Hearing, BaseCallbackHandler):
    """Collects the confidence of every answer: `Settings.callback_manager.add_handler(handler)`.

    Or a CallbackManager of your own, set as Settings.callback_manager before the engine is made: a
    synthesizer gives its llm the manager of Settings in place of the llm's.

    `aggregate` makes one number of a query's answers: minimum, product, mean or last.
    `sink(record)` sees every Record. `raise_below` raises LowConfidenceError at the first answer
    less sure than that, `stop_above` EarlyAnswer at the first one as sure, `policy` at the first
    that it accepts, out of the call of the llm: it passes through the default synthesizer to
    whoever asked. `profile` scores other models' answers by their log-probabilities. The last
    `keep` queries are kept.

    LoggedRun.of_chain(handler.trail.records, right=...) after each of many labelled queries, each
    answer of an llm a step, gives the runs from which certify_stop makes a `policy` that ends
    such queries early with a promise.
    """

    def __init__(
        self,
        *,
        aggregate: str = "minimum",
        raise_below: float | None = None,
        stop_above: float | None = None,
        policy: Any = None,
        sink: Sink | None = None,
        profile: Profile | None = None,
        task: str = "default",
        keep: int = 1000,
    ) -> None:
        super().__init__([], [])
        bounds = {"stop_above": stop_above, "stop_below": raise_below, "policy": policy}
        self._heard = Heard(sink, keep, aggregate=aggregate, **bounds)
        self._profile, self._task = profile, task

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        self._heard.link(event_id, parent_id or None)
        if event_type is CBEventType.QUERY:
            self._heard.begin(event_id)
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        said = payload or {}
        answer = said.get(EventPayload.RESPONSE, said.get(EventPayload.COMPLETION))
        if event_type is not CBEventType.LLM or answer is None:
            return
        asked = said.get(EventPayload.MESSAGES, said.get(EventPayload.PROMPT))
        record = _record(answer, asked, self._profile, self._task)
        end(self._heard.tell(record, event_id, record.model))

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing: a query is known by its event."""

    def end_trace(
        self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None
    ) -> None:
        """Nothing: see start_trace."""


def end(trail: Trail) -> None:
    """Raise where the latest answer is certain enough, or too uncertain, to go on."""
    verdict, record = trail.verdict(), trail.records[-1]
    if verdict == "settled":
        raise EarlyAnswer(why_settled(trail), record)
    if verdict == "hopeless":
        raise LowConfidenceError(why_hopeless(trail, "raise_below"), record)


class ConfidenceEventHandler(Hearing, BaseEventHandler):
    """Collects the confidence of every answer in the process: `with handler.attached(): ...`.

    It follows the spans from an answer up to its queries, so queries under way at once do not mix,
    and a stream that is read later still counts for the query that asked it. With `write` it puts
    `confidence` and `bitcal` into the metadata of responses that have none yet: so engines whose
    llm is not ours get them too. The other options are those of ConfidenceCallbackHandler;
    `raise_below`, `stop_above` and `policy` are refused: the dispatcher would swallow the error.
    """

    _heard: Heard = PrivateAttr()
    _links: SpanLinks = PrivateAttr()
    _profile: Profile | None = PrivateAttr()
    _task: str = PrivateAttr()
    _write: bool = PrivateAttr()
    _attached: Counter[int] = PrivateAttr(default_factory=Counter)
    _streams: OrderedDict[str, dict[str, Any]] = PrivateAttr(default_factory=OrderedDict)

    def __init__(
        self,
        *,
        aggregate: str = "minimum",
        raise_below: float | None = None,
        stop_above: float | None = None,
        policy: Any = None,
        sink: Sink | None = None,
        profile: Profile | None = None,
        task: str = "default",
        keep: int = 1000,
        write: bool = True,
    ) -> None:
        super().__init__()
        ends = {"raise_below": raise_below, "stop_above": stop_above, "policy": policy}
        for name, value in ends.items():
            if value is not None:
                raise BadRequest(
                    f"{name}={value!r:.80} cannot be kept: the dispatcher swallows what a handler "
                    "raises. ConfidenceCallbackHandler, the gates and the engines can end a query"
                )
        self._heard = Heard(sink, keep, aggregate=aggregate)
        self._links = SpanLinks(self._heard)
        self._profile, self._task, self._write = profile, task, write

    @classmethod
    def class_name(cls) -> str:
        return "ConfidenceEventHandler"

    @contextmanager
    def attached(self, dispatcher: Dispatcher | None = None) -> Iterator[ConfidenceEventHandler]:
        """Hear what goes through the dispatcher, the root's without one, inside the block."""
        to = dispatcher or get_dispatcher()
        if not self._attached[id(to)]:
            to.add_event_handler(self)
            to.add_span_handler(self._links)
        self._attached[id(to)] += 1
        try:
            yield self
        finally:
            self._attached[id(to)] -= 1
            if not self._attached[id(to)]:
                to.event_handlers = [h for h in to.event_handlers if h is not self]
                to.span_handlers = [h for h in to.span_handlers if h is not self._links]

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        try:
            self._hear(event)
        except Exception:  # the dispatcher would swallow it without a word
            logger.exception("the event %s could not be heard", event.class_name())

    def _hear(self, event: BaseEvent) -> None:
        if isinstance(event, QueryStartEvent) and event.span_id is not None:
            self._heard.begin(event.span_id)
        elif isinstance(event, QueryEndEvent) and event.span_id is not None:
            self._ended(event.span_id, event.response)
        elif isinstance(event, (LLMChatEndEvent, LLMCompletionEndEvent)):
            asked = event.messages if isinstance(event, LLMChatEndEvent) else event.prompt
            if event.response is not None and not self._heard.told(event.span_id):
                record = _record(event.response, asked, self._profile, self._task)
                self._heard.tell(record, event.span_id, record.model)
                self._complete(event.span_id)

    def _ended(self, query: str, response: Any) -> None:
        """Write into the response of a query, now and again while its stream is read."""
        if not self._write or "bitcal" in (response.metadata or {}):
            return
        if response.metadata is None:
            response.metadata = {}
        response.metadata.update(self._keys(query))
        if streams(response):
            inside(query, response)
            self._streams[query] = response.metadata
            while len(self._streams) > STREAMS:
                self._streams.popitem(last=False)

    def _complete(self, span: str | None) -> None:
        for query in self._heard.above(span):
            if query in self._streams:
                self._streams[query].update(self._keys(query))

    def _keys(self, query: str) -> dict[str, Any]:
        trail = self._heard.trail(query)
        if not trail.records:
            return confidence_keys(unknown_record("", reason=UNHEARD))
        last = joined(trail.records[-1], trail)
        more = {"trail": trail.to_dict()} if len(trail.records) > 1 else {}
        return confidence_keys(last, **more)


def _record(answer: Any, asked: Any, profile: Profile | None, task: str) -> Record:
    return record_of(answer, prompt=turns_of(asked), profile=profile, task=task)
