"""ConfidenceCallbackHandler: listens to a chain, keeps its answers' confidence, may end it early.

It collects a Record for every model's answer through the run tree, gives them to a sink, tells
them as custom events `bitcal.confidence`, and ends the chain by raising where told to. It changes
no answer. To choose between answers, take a ConfidenceRouter: a handler can only watch and stop.

What works where (each line is a test):

| the call                           | records, sink, events | raise_below, stop_above, policy     |
|------------------------------------|-----------------------|-------------------------------------|
| invoke, batch of a chat model      | yes                   | yes; in a batch only that item ends |
| stream                             | yes, after the tokens | yes, after the last token was shown |
| ainvoke, astream, abatch           | yes, both handlers    | yes, both handlers                  |
| async handler in a sync call       | yes                   | no: LangChain logs it and goes on   |
| batch of a text-completion LLM     | yes                   | the whole batch fails: use a gate   |
| cache hit of a chat model          | yes                   | yes                                 |
| cache hit of a text-completion LLM | no: nothing is called | no                                  |

An event needs a run to belong to: a model called on its own, outside any chain, sends none, and
neither does LangChain's batch of a chain, which names no run to its steps.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import ensure_config

from bitcal_integrations.chains._why import why_hopeless, why_settled
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.langchain._calls import StepRecord
from bitcal_integrations.langchain._collect import TreeHandler, Watch, trail_of
from bitcal_integrations.langchain._tree import Told
from bitcal_integrations.profile import Profile
from bitcal_integrations.types import Record

logger = logging.getLogger(__name__)
EVENT = "bitcal.confidence"
Aggregate = Literal["minimum", "product", "mean", "last"]


class _Judge:
    """The options and the results that the sync and the async handler share."""

    watch: Watch

    def _set(
        self, aggregate: Aggregate, raise_below: float | None, stop_above: float | None,
        policy: Any, sink: Callable[[Record], Any] | None, profile: Profile | None, task: str,
        keep: int,
    ) -> None:  # fmt: skip
        if sink is not None and not callable(sink):
            raise BadRequest(f"a sink is a callable that takes a Record, not {sink!r:.80}")
        self._options: dict[str, Any] = {
            "aggregate": aggregate, "stop_above": stop_above, "stop_below": raise_below,
            "policy": policy,
        }  # fmt: skip
        Trail(**self._options)  # refuses what is not allowed
        self._sink = sink
        self.watch = Watch(profile, task, keep, each_step=True)
        self.raise_error = (raise_below, stop_above, policy) != (None, None, None)

    @property
    def records(self) -> list[Record]:
        """The Records of the chains that were heard last, in the order they came."""
        return [told.record for told in self.watch.tree.all_answers()]

    @property
    def trail(self) -> Trail:
        """The steps of the chain that answered last."""
        return self.trail_of(None)

    @property
    def confidence(self) -> float | None:
        """That chain's aggregated confidence; None while any of its steps is unknown."""
        return self.trail.value

    def trail_of(self, root: UUID | None) -> Trail:
        """The steps of the chain whose outermost run has this id."""
        return trail_of(self.watch.tree.answers(root), **self._options)

    def _heard(self, told: list[Told]) -> tuple[Trail, dict[str, Any]]:
        """The steps so far, and what is told about the latest one."""
        trail, latest = trail_of(told, **self._options), told[-1].record
        data = {
            "bitcal": latest.bitcal(), "text": latest.text, "model": latest.model,
            "trail": trail.to_dict(),
        }  # fmt: skip
        return trail, data

    def _end(self, trail: Trail) -> None:
        """Raise where the latest answer is certain enough, or too uncertain, to go on."""
        verdict, record = trail.verdict(), trail.records[-1]
        calls = isinstance(record, StepRecord) and bool(record.calls)
        if verdict == "settled" and not calls:  # what the tools say is still to come
            raise EarlyAnswer(why_settled(trail), record)
        if verdict == "hopeless":
            raise LowConfidenceError(why_hopeless(trail, "raise_below"), record)


class ConfidenceCallbackHandler(_Judge, TreeHandler):
    """Collects the confidence of every answer in a chain; pass it as `callbacks=[handler]`.

    `aggregate` makes one number of a chain's steps: minimum, product, mean or last. `sink(record)`
    sees every Record. `raise_below` raises LowConfidenceError at the first answer less sure than
    that, `stop_above` raises EarlyAnswer at the first one as sure, `policy` at the first that it
    accepts: early_stop_chain and ConfidenceRouter catch both, elsewhere they are yours to catch.
    `profile` scores other models' answers by their log-probabilities. The last `keep` chains are
    kept. Not for use in async code whose sink is slow: there, take AsyncConfidenceCallbackHandler.

    To end a chain of your own early with a promise, hear it run to its end on labelled questions:
    after each, LoggedRun.of_chain(handler.trail.records, right=...) is one run, every model's
    answer a step. `policy=certify_stop(runs)` then ends it, and may give it up.

    >>> from langchain_core.messages import AIMessage
    >>> from langchain_core.language_models import FakeMessagesListChatModel
    >>> sure = AIMessage("Paris", response_metadata={"bitcal": {"confidence": 0.9}})
    >>> handler = ConfidenceCallbackHandler()
    >>> model = FakeMessagesListChatModel(responses=[sure])
    >>> _ = model.invoke("Capital of France?", {"callbacks": [handler]})
    >>> handler.confidence, handler.records[0].text
    (0.9, 'Paris')
    """

    def __init__(
        self,
        *,
        aggregate: Aggregate = "minimum",
        raise_below: float | None = None,
        stop_above: float | None = None,
        policy: Any = None,
        sink: Callable[[Record], None] | None = None,
        profile: Profile | None = None,
        task: str = "default",
        keep: int = 1000,
    ) -> None:
        self._set(aggregate, raise_below, stop_above, policy, sink, profile, task, keep)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        trail, data = self._heard(self.watch.answered(response, run_id))
        if self._sink is not None:
            try:
                self._sink(trail.records[-1])
            except Exception:  # an answer must not be lost because a log cannot be written
                logger.exception("the sink %r failed", self._sink)
        if _in_a_run():
            dispatch_custom_event(EVENT, data)
        self._end(trail)


class AsyncConfidenceCallbackHandler(_Judge, AsyncCallbackHandler):
    """ConfidenceCallbackHandler for async code: `sink` may be a plain or an async callable.

    In a sync call LangChain runs it too, but logs and drops what it raises: use the sync one there.
    """

    def __init__(
        self,
        *,
        aggregate: Aggregate = "minimum",
        raise_below: float | None = None,
        stop_above: float | None = None,
        policy: Any = None,
        sink: Callable[[Record], Any] | None = None,
        profile: Profile | None = None,
        task: str = "default",
        keep: int = 1000,
    ) -> None:
        self._set(aggregate, raise_below, stop_above, policy, sink, profile, task, keep)
        self._files = TreeHandler(self.watch)

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self._files.on_chat_model_start(*args, **kwargs)

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self._files.on_llm_start(*args, **kwargs)

    async def _starts(self, *args: Any, **kwargs: Any) -> None:
        self._files.on_chain_start(*args, **kwargs)

    async def _ends(self, *args: Any, **kwargs: Any) -> None:
        self._files.on_chain_end(*args, **kwargs)

    on_chain_start = on_tool_start = on_retriever_start = _starts
    on_chain_end = on_tool_end = on_retriever_end = _ends
    on_chain_error = on_llm_error = on_tool_error = on_retriever_error = _ends

    async def on_custom_event(self, name: str, data: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._files.on_custom_event(name, data, run_id=run_id)

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        trail, data = self._heard(self.watch.answered(response, run_id))
        if self._sink is not None:
            try:
                if inspect.isawaitable(waits := self._sink(trail.records[-1])):
                    await waits
            except Exception:
                logger.exception("the sink %r failed", self._sink)
        if _in_a_run():
            await adispatch_custom_event(EVENT, data)
        self._end(trail)


def _in_a_run() -> bool:
    """Whether the call stands beneath a run that an event could belong to."""
    return getattr(ensure_config().get("callbacks"), "parent_run_id", None) is not None
