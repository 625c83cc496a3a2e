"""ConfidenceFallbackQueryEngine: a query whose answer is unsure is put to the next engine.

RouterQueryEngine chooses before there is an answer; this one looks at the answer first. It knows
engines and the Cascade that chooses; where a confidence comes from is `with_confidence`'s, and
what it is worth the policy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle

from bitcal_integrations.chains.cascade import Cascade, check_handle
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.errors import BadRequest
from bitcal_integrations.llama_index._course import (
    arun,
    check_names,
    given,
    listed,
    live_last,
    policy_of,
    run,
)
from bitcal_integrations.llama_index._records import confidence_keys, record_of, with_keys
from bitcal_integrations.llama_index._responses import Held, ahold, fill, hold, said_like, streams
from bitcal_integrations.llama_index.collector import Call, collect, start_call
from bitcal_integrations.llama_index.wrap import UNREAD, with_confidence
from bitcal_integrations.types import Record


@dataclass(frozen=True)
class _Answer:
    """What one engine gave: read to its end with its record, or a stream without one yet."""

    held: Held
    record: Record | None


class ConfidenceFallbackQueryEngine(BaseQueryEngine):
    """Asks `query_engine`; where its answer fails or is not certain enough, the next engine.

    `policy` is a number, a Certificate or a Policy, `min_confidence` the short form (0.7 without
    either). An engine that asks its llm several times counts with the `aggregate` of these calls.
    `scorer`, a RAGConfidence say, is an object whose `predict(question, response)` and `apredict`
    give another Confidence to go by. `on_exhausted` says what to give when no answer was accepted:
    "best" (an answer of unknown confidence counts as better than one judged too low), "last",
    "raise", "review" (the best, marked so), "abstain", or a sentence of your own. `handle` are the
    errors that pass on to the next engine.

    The chosen engine's own response comes back, nodes and metadata as they were, with
    `metadata["confidence"]` and `["bitcal"]`, whose `route` lists the attempts. Streams are held
    back until they are judged; the last engine's is passed on as it comes, so there "best" means
    "last", and its metadata is filled when it has been read to its end.
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine,
        fallback_query_engines: Sequence[BaseQueryEngine] = (),
        *,
        policy: Any = None,
        min_confidence: float | None = None,
        on_exhausted: str = "best",
        on_unknown: str | None = None,
        aggregate: str = "minimum",
        scorer: Any = None,
        names: Sequence[str] | None = None,
        handle: Sequence[type[Exception]] | type[Exception] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        own = [query_engine, *listed("fallback_query_engines", fallback_query_engines)]
        self._own = own
        self._engines = [with_confidence(checked(engine), aggregate) for engine in own]
        self._names = check_names(names, [type(engine).__name__ for engine in own])
        self._policy = policy_of(policy, min_confidence, on_unknown)
        self._scorer = scorer if scorer is None else _scores(scorer)
        self._handle = {} if handle is None else {"handle": check_handle(handle)}
        self._on_exhausted = on_exhausted
        self._cascade()  # refuses wrong arguments now, not at the first question
        super().__init__(callback_manager or query_engine.callback_manager)

    def _get_prompt_modules(self) -> PromptMixinType:
        """The prompts of every engine's parts, under the engine's name."""
        found: PromptMixinType = {}
        for name, engine in zip(self._names, self._own, strict=True):
            parts = engine._get_prompt_modules()
            found |= {f"{name}.{part}": module for part, module in parts.items()}
            if not parts:
                found[name] = engine
        return found

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The nodes of the first engine; it is the one that is asked first."""
        return self._own[0].retrieve(query_bundle)

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Any:
        """The first engine's answer from these nodes, with its confidence and no fallback."""
        return self._engines[0].synthesize(query_bundle, nodes, additional_source_nodes)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Any:
        """`synthesize` for an event loop."""
        return await self._engines[0].asynthesize(query_bundle, nodes, additional_source_nodes)

    # ---- one question ----------------------------------------------------------------------------

    def _query(self, query_bundle: QueryBundle) -> Any:
        asked: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        with self.callback_manager.event(CBEventType.QUERY, payload=asked) as event:
            with _Course(self, query_bundle) as course, collect(hide=True):
                answers = run(course.cascade, course.ask, _record)
                response = course.response(answers)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        asked: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        with self.callback_manager.event(CBEventType.QUERY, payload=asked) as event:
            with _Course(self, query_bundle) as course, collect(hide=True):
                answers = await arun(course.cascade, course.aask, _record)
                response = course.response(answers)
            event.on_end(payload={EventPayload.RESPONSE: response})
        return response

    def _cascade(self) -> Cascade:
        return Cascade(self._policy, self._names, self._on_exhausted, **self._handle)


class _Course:
    """One query under way: asks the engines by number and gives the response in the end.

    For a query around this one it is one call, with the record of the response that is given.
    """

    def __init__(self, owner: ConfidenceFallbackQueryEngine, bundle: QueryBundle) -> None:
        self._engines, self._bundle = owner._engines, bundle
        self._scorer = owner._scorer
        self._live = owner._scorer is None and live_last(owner._policy, owner._on_exhausted)
        self.cascade = owner._cascade()
        self._call: Call = start_call()

    def __enter__(self) -> _Course:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> None:
        if error is not None:
            self._call.end(None, error)

    def ask(self, index: int) -> _Answer:
        response = self._engines[index].query(self._bundle)
        if self._shows(index, response):
            return _Answer(Held(response, response), None)
        held = hold(response)
        record = record_of(held.whole)
        if self._scorer is not None:
            scored = self._scorer.predict(self._bundle.query_str, held.whole)
            record = replace(record, confidence=scored)
        return _Answer(held, record)

    async def aask(self, index: int) -> _Answer:
        response = await self._engines[index].aquery(self._bundle)
        if self._shows(index, response):
            return _Answer(Held(response, response), None)
        held = await ahold(response)
        record = record_of(held.whole)
        if self._scorer is not None:
            scored = await self._scorer.apredict(self._bundle.query_str, held.whole)
            record = replace(record, confidence=scored)
        return _Answer(held, record)

    def _shows(self, index: int, response: Any) -> bool:
        return self._live and index == len(self._engines) - 1 and streams(response)

    def response(self, answers: dict[int, _Answer]) -> Any:
        """The chosen response, the sentence that stands for it, or the stream that is shown."""
        if self.cascade.next is not None:
            return self._shown(answers[self.cascade.next].held.response)
        outcome = self.cascade.outcome()
        record, route = given(self.cascade, outcome), self.cascade.provenance()
        self._call.end(record)
        if outcome.index is None:
            like = answers[max(answers)].held.response if answers else None
            return said_like(like, outcome.text or "", confidence_keys(record, route=route))
        held = answers[outcome.index].held
        return held.again(with_keys(held.whole, record, route=route))

    def _shown(self, response: Any) -> Any:
        """The last engine's stream as it comes; its metadata is filled at its end."""
        self.cascade.on_exhausted = "last"  # what was shown cannot be taken back
        unread = unknown_record("", reason=UNREAD)
        meanwhile = confidence_keys(unread, route=self.cascade.provenance())

        def left(error: BaseException | None) -> None:
            if isinstance(error, Exception):
                shown.metadata.update(self._broken(error))
            self._call.end(None, error)

        shown = fill(response, self._judged, left, meanwhile)
        self._call.reading(shown.response_gen)
        return shown

    def _broken(self, error: Exception) -> dict[str, Any]:
        """What there is to say of a stream that failed while it was read; it raises the error."""
        with suppress(type(error)):  # told, whether it would have been passed over or not
            self.cascade.failed(error)
        record = unknown_record("", reason=f"the stream failed: {type(error).__name__}: {error}")
        return confidence_keys(record, route={**self.cascade.provenance(), "chosen": None})

    def _judged(self, whole: Any) -> Any:
        self.cascade.judge(record_of(whole))
        record = given(self.cascade, self.cascade.outcome())
        self._call.end(record)
        return with_keys(whole, record, route=self.cascade.provenance())


def _record(index: int, answer: _Answer) -> Record | None:
    return answer.record


def _scores(scorer: Any) -> Any:
    """Refuse what gives no Confidence of its own."""
    if all(callable(getattr(scorer, name, None)) for name in ("predict", "apredict")):
        return scorer
    raise BadRequest(f"scorer={scorer!r:.80} has no predict(question, response) and apredict")


def checked(engine: Any) -> BaseQueryEngine:
    """Refuse what is no query engine."""
    if isinstance(engine, BaseQueryEngine):
        return engine
    raise BadRequest(f"{engine!r:.80} is no query engine of LlamaIndex")
