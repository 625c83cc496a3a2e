"""make_stop_fn: the confidence of the latest step, for the stock MultiStepQueryEngine.

Its `stop_fn` is told the next question only, so the tracker stands round the engine that answers
and remembers, per query, what it gave. Which query is under way is read from the span that
LlamaIndex opens for each: state that outlived its query would stop the next one before its first
step.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.query_engine.multistep_query_engine import default_stop_fn
from llama_index.core.schema import QueryBundle

from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index._records import record_of
from bitcal_integrations.llama_index._responses import Held, ahold, hold
from bitcal_integrations.llama_index.collector import Collector, collect
from bitcal_integrations.llama_index.wrap import with_confidence
from bitcal_integrations.types import Record

StopFn = Callable[[dict[str, Any]], bool]


class Count:
    """The tokens that a collector hears of, step by step: an engine's response does not tell."""

    def __init__(self, heard: Collector | None = None) -> None:
        self._heard, self._before = heard, 0

    def of(self, heard: Collector) -> None:
        self._heard = heard

    def told(self, record: Record) -> Record:
        """The record with the tokens spent since the last one, on its answer and on the way."""
        answers = [] if self._heard is None else [r.generation for r in self._heard.records]
        total = sum(answer.n_tokens + answer.probe_tokens for answer in answers)
        spent, self._before = total - self._before, total
        return replace(record, generation=replace(record.generation, n_tokens=spent))


@dataclass
class _Seen:
    """The records given so far to one query, which its span names."""

    query: str | None
    records: list[Record] = field(default_factory=list)


class StepTracker(BaseQueryEngine):
    """A query engine that remembers the records it gave to the query around it.

    Streams are read to their end, since the next step is asked with the whole answer.
    """

    def __init__(self, query_engine: BaseQueryEngine, aggregate: str = "minimum") -> None:
        self._engine = with_confidence(query_engine, aggregate)
        self._seen: ContextVar[_Seen | None] = ContextVar("bitcal_steps", default=None)
        super().__init__(query_engine.callback_manager)

    def under_way(self) -> list[Record]:
        """What was given in the query whose `stop_fn` asks; a query that is new begins anew."""
        seen, query = self._seen.get(), active_span_id.get()
        if seen is None or query is None or seen.query != query:
            seen = _Seen(query)
            self._seen.set(seen)
        return seen.records

    def _query(self, query_bundle: QueryBundle) -> Any:
        with collect() as heard:
            held = hold(self._engine.query(query_bundle))
        return self._remembered(held, Count(heard))

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        with collect() as heard:
            held = await ahold(await self._engine.aquery(query_bundle))
        return self._remembered(held, Count(heard))

    def _remembered(self, held: Held, count: Count) -> Any:
        seen = self._seen.get()
        if seen is not None:
            seen.records.append(count.told(record_of(held.whole)))
        return held.again(held.whole)

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"query_engine": self._engine}


def make_stop_fn(
    tracker: StepTracker,
    *,
    stop_above: float | None = None,
    stop_below: float | None = None,
    policy: Any = None,
    stop_fn: StopFn = default_stop_fn,
) -> StopFn:
    """A `stop_fn` for MultiStepQueryEngine(query_engine=tracker, ...).

    It stops after a step of at least `stop_above` (or accepted by `policy`), after one below
    `stop_below`, and where `stop_fn` says so. Queries under way at once, and one after the other,
    do not see each other's steps. The stock engine asks it even with `early_stopping=False`.

    A StopCertificate as the `policy` keeps its promise where the logged runs were judged by what
    this engine puts together after so many steps (num_steps=1, 2, ...), not by the steps' answers.
    """
    if not isinstance(tracker, StepTracker):
        raise BadRequest(f"{tracker!r:.80} is no StepTracker: give it the engine, and this the two")
    Trail("last", stop_above, stop_below, policy)  # refuses wrong arguments now

    def stops(about: dict[str, Any]) -> bool:
        if stop_fn(about):
            return True
        trail = Trail("last", stop_above, stop_below, policy)
        for record in tracker.under_way():
            trail.add(record)
        return trail.verdict() != "go_on"

    return stops
