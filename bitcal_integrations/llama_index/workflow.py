"""ConfidenceFallbackWorkflow: a question through a primary, its fallbacks, and a person.

Built of what workflows have for it: a step that is tried again when its engine fails,
`@catch_error` for what is too uncertain, a step that asks the fallbacks, InputRequiredEvent for a
person. It knows how to ask and keeps what came; the Cascade decides. `gate` is for your own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from inspect import isawaitable
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import Response
from llama_index.core.llms.llm import LLM
from llama_index.core.workflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from workflows import catch_error
from workflows.events import StepFailedEvent
from workflows.retry_policy import (
    retry_if_exception,
    retry_policy,
    stop_after_attempt,
    wait_none,
)

from bitcal_integrations.chains.cascade import Cascade, Outcome
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.errors import BadRequest, EngineError, LowConfidenceError, PromptTooLong
from bitcal_integrations.llama_index._attempted import Attempted
from bitcal_integrations.llama_index._course import check_names, given, listed, policy_of
from bitcal_integrations.llama_index._gate import ConfidenceEvent, ConfidenceGate, gate
from bitcal_integrations.llama_index._records import (
    as_mapping,
    confidence_keys,
    record_of,
    text_of,
    with_keys,
)
from bitcal_integrations.llama_index._responses import ahold
from bitcal_integrations.llama_index.wrap import with_confidence
from bitcal_integrations.types import Record


def _passing(error: BaseException) -> bool:
    """Whether an engine's failure may be gone the next time; a prompt never gets shorter."""
    return isinstance(error, EngineError) and not isinstance(error.__cause__, PromptTooLong)


# The stock policy waits five seconds between attempts.
AGAIN = retry_policy(
    retry=retry_if_exception(_passing), stop=stop_after_attempt(2), wait=wait_none()
)
HANDLED = (EngineError, LowConfidenceError)
ATTEMPTS = "bitcal_attempts"
BY_A_PERSON = "a person gave this answer"


class AskFallback(Event):
    """The primary's answer is not enough: ask the next one."""

    question: str


class ReviewEvent(InputRequiredEvent):
    """Nobody was certain enough: what does a person say? Send a ReviewAnswer back."""

    question: str
    answer: str
    confidence: float | None
    reason: str
    route: dict[str, Any]


class ReviewAnswer(HumanResponseEvent):
    """What a person says: an answer of their own, or None to let the model's stand."""

    answer: str | None = None


class ConfidenceFallbackWorkflow(Workflow):
    """`await ConfidenceFallbackWorkflow(primary, [stronger]).run(question="...")` -> Response.

    Whom to ask is a query engine, an llm, or an async function of the question that gives an
    answer with a confidence. `policy`, `min_confidence`, `on_unknown` and `on_exhausted` are
    those of ConfidenceFallbackQueryEngine; with "review", or a policy that says so, a ReviewEvent
    comes on the stream and the workflow waits for a ReviewAnswer. Every attempt puts a
    ConfidenceEvent on the stream. A primary whose engine failed is tried once more before the
    next is asked; a fallback is not. Where a person may be asked there is no `timeout` unless you
    give one: it would run on while they think.
    """

    def __init__(
        self,
        primary: Any,
        fallbacks: Sequence[Any] = (),
        *,
        policy: Any = None,
        min_confidence: float | None = None,
        on_unknown: str | None = None,
        on_exhausted: str = "best",
        names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self._policy = policy_of(policy, min_confidence, on_unknown)
        if "review" in (on_exhausted, getattr(self._policy, "below", "review")):
            kwargs.setdefault("timeout", None)
        super().__init__(**kwargs)
        asked = [primary, *listed("fallbacks", fallbacks)]
        self._ask = [asker(what) for what in asked]
        self._names = check_names(names, [_name(what) for what in asked])
        self._gate = ConfidenceGate(self._policy)
        self._on_exhausted = on_exhausted
        self._replayed([])  # refuses wrong arguments now, not at the first question

    @step(retry_policy=AGAIN)
    async def ask_primary(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """The primary's answer, if it is accepted."""
        question = ev.get("question")
        if not isinstance(question, str):
            raise BadRequest(f"run(question=...) takes a text, not {question!r:.80}")
        await ctx.store.set("question", question)
        await ctx.store.set(ATTEMPTS, [])  # an earlier run's are of another question
        record = await self._asked(ctx, 0, question)
        cascade = self._replayed(await self._attempts(ctx))
        if cascade.next is not None or cascade.outcome().action != "accept":
            raise LowConfidenceError("the primary's answer is not accepted", record)
        return StopEvent(result=await self._result(ctx, cascade, cascade.outcome()))

    @catch_error(for_steps=["ask_primary"])
    async def primary_failed(
        self, ctx: Context, ev: StepFailedEvent
    ) -> AskFallback | ReviewEvent | StopEvent:
        """The primary failed for good, or its answer was not accepted."""
        if not isinstance(ev.exception, HANDLED):
            raise ev.exception
        if not await self._attempts(ctx):
            await self._keep(ctx, Attempted.failed(ev.exception))
        return await self._further(ctx)

    @step
    async def ask_fallback(
        self, ctx: Context, ev: AskFallback
    ) -> AskFallback | ReviewEvent | StopEvent:
        """The next one that has not been asked."""
        try:
            await self._asked(ctx, len(await self._attempts(ctx)), ev.question)
        except HANDLED as error:
            await self._keep(ctx, Attempted.failed(error))
        return await self._further(ctx)

    @step
    async def reviewed(self, ctx: Context, ev: ReviewAnswer) -> StopEvent:
        """What a person said, or the answer they let stand."""
        cascade = self._replayed(await self._attempts(ctx))
        result = await self._result(ctx, cascade, cascade.outcome())
        if ev.answer is not None:
            record = unknown_record(ev.answer, reason=BY_A_PERSON)
            keys = confidence_keys(record, route=cascade.provenance())
            result = Response(ev.answer, result.source_nodes, {**(result.metadata or {}), **keys})
        return StopEvent(result=result)

    # ---- what was asked so far, in the store -----------------------------------------------------

    async def _asked(self, ctx: Context, index: int, question: str) -> Record:
        response = await self._ask[index](question)
        record = record_of(response, prompt=question, model=self._names[index])
        self._gate.tell(ctx, record)
        await self._keep(ctx, Attempted.of(record, response))
        return record

    async def _attempts(self, ctx: Context) -> list[Attempted]:
        found: list[Attempted] = await ctx.store.get(ATTEMPTS, default=[])
        return found

    async def _keep(self, ctx: Context, attempt: Attempted) -> None:
        await ctx.store.set(ATTEMPTS, [*await self._attempts(ctx), attempt])

    def _replayed(self, attempts: Sequence[Attempted]) -> Cascade:
        """The course so far: only plain data is kept, so that a waiting workflow can be saved."""
        cascade = Cascade(self._policy, self._names, self._on_exhausted)
        for attempt in attempts:
            if attempt.error is not None or attempt.record is None:
                cascade.failed(attempt.raised())
            else:
                cascade.judge(Record.from_dict(attempt.record))
        return cascade

    async def _further(self, ctx: Context) -> AskFallback | ReviewEvent | StopEvent:
        question = await ctx.store.get("question", default="")
        cascade = self._replayed(await self._attempts(ctx))
        if cascade.next is not None:
            return AskFallback(question=question)
        outcome = cascade.outcome()
        result = await self._result(ctx, cascade, outcome)
        if outcome.action != "review":
            return StopEvent(result=result)
        return ReviewEvent(
            question=question, answer=result.response or "",
            confidence=(result.metadata or {}).get("confidence"),
            reason=outcome.reason, route=cascade.provenance(),
        )  # fmt: skip

    async def _result(self, ctx: Context, cascade: Cascade, outcome: Outcome) -> Response:
        record, route = given(cascade, outcome), cascade.provenance()
        if outcome.index is None:
            return Response(outcome.text, metadata=confidence_keys(record, route=route))
        kept = (await self._attempts(ctx))[outcome.index]
        filled: Response = with_keys(kept.response(), record, route=route)
        return filled


def asker(what: Any) -> Callable[[str], Awaitable[Response]]:
    """How to ask an engine, an llm or a function, as one function that gives a Response."""
    if isinstance(what, BaseQueryEngine):
        return _ask_engine(with_confidence(what))
    if isinstance(what, LLM):
        return _ask_llm(what)
    if callable(what) and not isinstance(what, type):
        return _ask_function(what)
    raise BadRequest(f"{what!r:.80} cannot be asked: it is no query engine, llm or async function")


def _ask_engine(engine: BaseQueryEngine) -> Callable[[str], Awaitable[Response]]:
    async def ask(question: str) -> Response:
        held = await ahold(await engine.aquery(question))
        return Response(text_of(held.whole), held.whole.source_nodes, held.whole.metadata)

    return ask


def _ask_llm(llm: LLM) -> Callable[[str], Awaitable[Response]]:
    async def ask(question: str) -> Response:
        answer = await llm.acomplete(question)
        raw = as_mapping(answer.raw)
        keys = ("confidence", "bitcal", "record_id")
        kept: dict[str, Any] = {key: raw[key] for key in keys if key in raw}
        return Response(answer.text, metadata=kept or confidence_keys(record_of(answer)))

    return ask


def _ask_function(function: Callable[[str], Any]) -> Callable[[str], Awaitable[Response]]:
    async def ask(question: str) -> Response:
        coming = function(question)
        if not isawaitable(coming):
            raise BadRequest(f"{_name(function)} gave {coming!r:.80}: it must be an async function")
        answer = await coming
        if isinstance(answer, Response):
            return answer
        return Response(text_of(answer), metadata=confidence_keys(record_of(answer)))

    return ask


def _name(what: Any) -> str:
    if isinstance(what, LLM):
        return what.metadata.model_name
    return getattr(what, "__name__", type(what).__name__)


__all__ = [
    "ConfidenceEvent",
    "ConfidenceFallbackWorkflow",
    "ConfidenceGate",
    "ReviewAnswer",
    "ReviewEvent",
    "gate",
]
