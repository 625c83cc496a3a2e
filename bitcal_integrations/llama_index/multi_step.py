"""ConfidenceMultiStepQueryEngine: a question in steps that ends when a step settles it.

It knows the steps and their confidence: it stops when one is certain enough and gives up when one
is hopeless. The stock engine can do the same by `make_stop_fn`, with less to say about it
afterwards. What a step asks is the query transform's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.indices.query.query_transform.base import StepDecomposeQueryTransform
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.query_engine.multistep_query_engine import MultiStepQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from bitcal_integrations.chains._why import why_hopeless
from bitcal_integrations.chains.records import unknown_record
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.decide._stop_policy import StopPolicy
from bitcal_integrations.errors import BadRequest, LowConfidenceError
from bitcal_integrations.llama_index._records import confidence_keys, joined, record_of, with_keys
from bitcal_integrations.llama_index._responses import ahold, fill, hold
from bitcal_integrations.llama_index._tracker import Count, StepTracker, make_stop_fn
from bitcal_integrations.llama_index.collector import collect, start_call
from bitcal_integrations.llama_index.wrap import UNREAD, with_confidence
from bitcal_integrations.types import Record

StopFn = Callable[[dict[str, Any]], bool]
Log: TypeAlias = Callable[[str, Sequence[Record]], Any]

ANSWER_WITH = ("synthesizer", "step")


class _Steps:
    """One query under way: what was asked and said so far, and why it ended.

    For a query around this one it is one call, with the record of the answer.
    """

    def __init__(self, bundle: QueryBundle, trail: Trail) -> None:
        self.bundle, self.trail = bundle, trail
        self.said: list[tuple[str, Any]] = []
        self.count = Count()
        self.stopped = ""
        self.call = start_call()

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, *_: object) -> None:
        if error is not None:
            self.call.end(None, error)

    @property
    def reasoning(self) -> str:
        return "".join(f"- {question}\n- {answer!s}\n" for question, answer in self.said)

    @property
    def nodes(self) -> list[NodeWithScore]:
        texts = [f"\nQuestion: {question}\nAnswer: {answer!s}" for question, answer in self.said]
        return [NodeWithScore(node=TextNode(text=text)) for text in texts]

    @property
    def sources(self) -> list[NodeWithScore]:
        return [node for _, answer in self.said for node in answer.source_nodes]


class ConfidenceMultiStepQueryEngine(MultiStepQueryEngine):
    """MultiStepQueryEngine that looks at each step's confidence.

    The steps end with one of at least `stop_above`, or that `policy` accepts: what is known is
    then put together. Below `stop_below` they are given up: `fallback_query_engine` gets the
    question, and without one LowConfidenceError is raised with the step's record. `stop_fn` is
    asked as before; with `early_stopping=False` nothing stops before `num_steps`. Where every step
    asks for the whole answer, `answer_with="step"` gives the answer of the step that settled it,
    with that step's confidence, and saves the call that puts the steps together.

    A rule with a promise comes from logged runs: with `log`, which needs answer_with="step" too,
    no confidence ends the steps, and log(question, records) gets the Record of each and of the
    answer. LoggedRun.of_chain(records, right, right_at) of many, through certify_stop(runs), gives
    the certificate that `policy` takes; `fallback_query_engine` gets what it gives up.

    The answer's confidence is the `aggregate` over the steps and the call that put them together,
    None while one is unknown. Metadata keeps the nodes' and `sub_qa`, whose pairs of a question and
    a Response are the stock engine's and no JSON, as the rest is; `bitcal["trail"]` has every step,
    why it stopped, and the steps saved. Without a `response_synthesizer` one is made with `llm`, or
    the transform's own.
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine,
        query_transform: Any,
        response_synthesizer: BaseSynthesizer | None = None,
        num_steps: int | None = 3,
        early_stopping: bool = True,
        index_summary: str = "None",
        stop_fn: StopFn | None = None,
        *,
        stop_above: float | None = None,
        stop_below: float | None = None,
        policy: Any = None,
        aggregate: str = "minimum",
        fallback_query_engine: BaseQueryEngine | None = None,
        answer_with: str = "synthesizer",
        llm: LLM | None = None,
        log: Log | None = None,
    ) -> None:
        if answer_with not in ANSWER_WITH:
            raise BadRequest(f"answer_with={answer_with!r} is not one of {', '.join(ANSWER_WITH)}")
        if response_synthesizer is None:  # the stock one would ask Settings for an llm
            response_synthesizer = get_response_synthesizer(
                llm=llm or getattr(query_transform, "_llm", None),
                callback_manager=query_engine.callback_manager,
            )
        super().__init__(
            with_confidence(query_engine), query_transform, response_synthesizer, num_steps,
            early_stopping, index_summary, stop_fn,
        )  # fmt: skip
        self._by_step = answer_with == "step"
        self._trail: Callable[[], Trail] = lambda: Trail(aggregate, stop_above, stop_below, policy)
        self._log = log
        self._check(self._trail())  # refuses wrong arguments now, not at the first question
        self._fallback = fallback_query_engine and with_confidence(fallback_query_engine)
        self._together = with_confidence(_Together(response_synthesizer))

    def _check(self, trail: Trail) -> None:
        if self._log is not None and not callable(self._log):
            raise BadRequest(f"log={self._log!r:.80} must be a callable (question, records)")
        if not self._by_step and (self._log is not None or isinstance(trail.policy, StopPolicy)):
            raise BadRequest(
                "log= and a StopCertificate speak of the answers of single steps, so they need "
                "answer_with='step'"
            )

    def _query(self, query_bundle: QueryBundle) -> Any:
        asked: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        with self.callback_manager.event(CBEventType.QUERY, payload=asked) as event:
            with _Steps(query_bundle, self._trail()) as steps, collect(hide=True) as heard:
                steps.count.of(heard)
                while self._goes_on(steps):
                    bundle = self._combine_queries(query_bundle, steps.reasoning)
                    if self._goes_to(steps, bundle):
                        self._take(steps, bundle, hold(self._query_engine.query(bundle)).whole)
                if self._is_answered(steps):
                    response = steps.said[-1][1]
                elif steps.stopped == "hopeless":
                    response = self._instead(steps).query(query_bundle)
                else:
                    response = self._together.synthesize(query_bundle, steps.nodes, steps.sources)
                final = self._final(steps, response)
            event.on_end(payload={EventPayload.RESPONSE: final})
        return final

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        asked: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        with self.callback_manager.event(CBEventType.QUERY, payload=asked) as event:
            with _Steps(query_bundle, self._trail()) as steps, collect(hide=True) as heard:
                steps.count.of(heard)
                while self._goes_on(steps):
                    bundle = await self._acombine_queries(query_bundle, steps.reasoning)
                    if self._goes_to(steps, bundle):
                        response = await self._query_engine.aquery(bundle)
                        self._take(steps, bundle, (await ahold(response)).whole)
                if self._is_answered(steps):
                    response = steps.said[-1][1]
                elif steps.stopped == "hopeless":
                    response = await self._instead(steps).aquery(query_bundle)
                else:
                    response = await self._together.asynthesize(
                        query_bundle, steps.nodes, steps.sources
                    )
                final = self._final(steps, response)
            event.on_end(payload={EventPayload.RESPONSE: final})
        return final

    async def _acombine_queries(self, bundle: QueryBundle, reasoning: str) -> QueryBundle:
        """`_combine_queries` without blocking the loop, cancelled with its task."""
        transform = self._query_transform
        if type(transform) is not StepDecomposeQueryTransform:
            return await asyncio.to_thread(self._combine_queries, bundle, reasoning)
        text = await transform._llm.apredict(
            transform._step_decompose_query_prompt,
            prev_reasoning=f"\n{reasoning}" if reasoning else "None",
            query_str=bundle.query_str,
            context_str=self._index_summary,
        )
        return QueryBundle(text, custom_embedding_strs=bundle.custom_embedding_strs)

    def _goes_on(self, steps: _Steps) -> bool:
        full = self._num_steps is not None and len(steps.said) >= self._num_steps
        if not steps.stopped and full:
            steps.stopped = "num_steps"
        return not steps.stopped

    def _goes_to(self, steps: _Steps, bundle: QueryBundle) -> bool:
        if self._early_stopping and self._stop_fn({"query_bundle": bundle}):
            steps.stopped = "stop_fn"
        return not steps.stopped

    def _take(self, steps: _Steps, bundle: QueryBundle, response: Any) -> None:
        steps.said.append((bundle.query_str, response))
        record = steps.count.told(record_of(response, prompt=bundle.query_str))
        steps.trail.add(record, bundle.query_str)
        verdict = steps.trail.verdict()
        if self._early_stopping and self._log is None and verdict != "go_on":
            steps.stopped = verdict

    def _is_answered(self, steps: _Steps) -> bool:
        return self._by_step and steps.stopped == "settled"

    def _instead(self, steps: _Steps) -> BaseQueryEngine:
        """Who gets the question when the steps are given up, or the error that says: nobody."""
        if self._fallback is not None:
            return self._fallback
        why = f"step {len(steps.said)} is given up: {why_hopeless(steps.trail)}"
        raise LowConfidenceError(why, steps.trail.records[-1])

    def _final(self, steps: _Steps, response: Any) -> Any:
        unread = unknown_record("", reason=UNREAD)
        meanwhile = {**confidence_keys(unread, trail=self._about(steps)), "sub_qa": steps.said}
        return fill(
            response,
            lambda whole: self._filled(steps, whole),
            lambda error: steps.call.end(None, error),
            meanwhile,
        )

    def _filled(self, steps: _Steps, whole: Any) -> Any:
        record = record_of(whole, prompt=steps.bundle.query_str)
        # A fallback's answer, and that of one step, has no part in the (other) steps.
        if steps.stopped != "hopeless" and not self._is_answered(steps):
            steps.trail.add(steps.count.told(record), "answer")
            record = joined(record, steps.trail)
        if self._log is not None:
            self._log(steps.bundle.query_str, steps.trail.records)
        steps.call.end(record)
        full = with_keys(whole, record, trail=self._about(steps))
        full.metadata["sub_qa"] = steps.said
        return full

    def _about(self, steps: _Steps) -> dict[str, Any]:
        """The steps as JSON, why they ended, and how many were saved."""
        saved = None if self._num_steps is None else self._num_steps - len(steps.said)
        return {**steps.trail.to_dict(), "stopped": steps.stopped, "steps_saved": saved}


class _Together(BaseQueryEngine):
    """A synthesizer in the shape that `with_confidence` takes."""

    def __init__(self, synthesizer: BaseSynthesizer) -> None:
        super().__init__(synthesizer.callback_manager)
        self._synthesizer = synthesizer

    def _get_prompt_modules(self) -> PromptMixinType:
        return {"response_synthesizer": self._synthesizer}

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Any:
        return self._synthesizer.synthesize(query_bundle, nodes, additional_source_nodes)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> Any:
        return await self._synthesizer.asynthesize(query_bundle, nodes, additional_source_nodes)

    def _query(self, query_bundle: QueryBundle) -> Any:
        return self.synthesize(query_bundle, [])

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        return await self.asynthesize(query_bundle, [])


__all__ = ["ConfidenceMultiStepQueryEngine", "StepTracker", "make_stop_fn"]
