"""ConfidenceRouter: ask the primary, and hand on to the fallbacks what it is not sure enough of.

A Runnable in all its ways (invoke, batch, stream and their async twins). It judges by a policy
and gives the chosen runnable's own output, with every attempt told in it. Knows no model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeAlias, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, PrivateAttr

from bitcal_integrations.errors import EarlyAnswer, EngineError, LowConfidenceError
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._course import Course, Plan, plan_of
from bitcal_integrations.langchain._drive import (
    Closable,
    Draft,
    Many,
    aor_error,
    atold,
    or_error,
    told,
)

Configs: TypeAlias = "RunnableConfig | list[RunnableConfig] | None"


class ConfidenceRouter(RunnableSerializable[Any, Any]):
    """Asks `primary`, then each of `fallbacks` in turn, until an answer is sure enough.

    All are runnables or callables: chat models, chains, a RAG chain. What is sure enough says
    `min_confidence`, or `policy`: a certificate, a router's policy, any object with `decide`. For
    one call, config={"configurable": {"min_confidence": 0.9}} replaces either. Where confidence is
    unknown, `on_unknown` decides: escalate, accept or raise; `scored_by={name or index: Profile}`
    scores other models by their log-probabilities. A chain that ends in text is judged by the
    last model heard in it, or by `aggregate` over all: minimum, product, mean.

    When nobody is left to ask, `on_exhausted` gives the best answer, the last one, raises
    LowConfidenceError, abstains (or gives your own text of several words), or asks a person
    ("review": pauses the LangGraph run; resume with {"action": "accept" | "edit" | "reject",
    "text": ...}; what was asked is asked again then).

    A failure of a kind in `exceptions_to_handle` escalates too; others are raised. A batch
    escalates only the items that need it. A stream shows an answer once it is accepted, in its own
    chunks; with on_exhausted="last" the last fallback, which is given in any case, streams live.

    The output is the chosen runnable's own. A message is a copy whose response_metadata["bitcal"]
    holds the `decision` and under `route` every attempt; for all outputs a custom event
    "bitcal.route" tells the same.

    >>> from langchain_core.messages import AIMessage
    >>> def answers(text, confidence):
    ...     bitcal = {"bitcal": {"confidence": confidence}}
    ...     return lambda question: AIMessage(text, response_metadata=bitcal)
    >>> router = ConfidenceRouter(answers("Lyon", 0.4), [answers("Paris", 0.9)], min_confidence=0.7)
    >>> router.invoke("Capital of France?").content
    'Paris'
    """

    primary: Runnable[Any, Any]
    fallbacks: Sequence[Runnable[Any, Any]]
    policy: Any = None
    min_confidence: float | None = None
    on_exhausted: str = "best"
    on_unknown: str = "escalate"
    scored_by: Mapping[Any, Any]
    names: Sequence[str] | None = None
    exceptions_to_handle: Any = (EngineError, LowConfidenceError)
    aggregate: str = "last"
    task: str = "default"
    _plan: Plan = PrivateAttr()

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(
        self,
        primary: Any,
        fallbacks: Any = (),
        *,
        policy: Any = None,
        min_confidence: Any = None,
        on_exhausted: str = "best",
        on_unknown: str = "escalate",
        scored_by: Mapping[Any, Any] | None = None,
        names: Sequence[str] | None = None,
        exceptions_to_handle: Any = (EngineError, LowConfidenceError),
        aggregate: str = "last",
        task: str = "default",
        name: str | None = None,
    ) -> None:
        others = _run.several(fallbacks)
        runnables = [_run.runnable_of(primary, "the primary")]
        runnables += [_run.runnable_of(f, f"fallback {i}") for i, f in enumerate(others)]
        plan = plan_of(
            runnables, policy=_run.policy_from(policy, min_confidence, on_unknown), names=names,
            on_exhausted=on_exhausted, on_unknown=on_unknown, handle=exceptions_to_handle,
            scored_by=scored_by or {}, task=task, aggregate=aggregate,
        )  # fmt: skip
        fields: dict[str, Any] = {
            "primary": runnables[0], "fallbacks": runnables[1:], "policy": policy,
            "min_confidence": min_confidence, "on_exhausted": on_exhausted,
            "on_unknown": on_unknown, "scored_by": scored_by or {}, "names": names,
            "exceptions_to_handle": exceptions_to_handle, "aggregate": aggregate, "task": task,
        }  # fmt: skip
        super().__init__(name=name, **fields)
        self._plan = plan

    @property
    def InputType(self) -> Any:
        return self.primary.InputType

    @property
    def OutputType(self) -> Any:
        return self.primary.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> Any:
        return self.primary.get_input_schema(config)

    def get_output_schema(self, config: RunnableConfig | None = None) -> Any:
        return self.primary.get_output_schema(config)

    # ---- one input -------------------------------------------------------------------------------

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(cast("Any", self._invoke), input, config, **kwargs)

    def _invoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        course = Course(self._plan, config)
        while course.next is not None:
            runnable, branch = course.branch()
            try:
                output = runnable.invoke(input, branch, **kwargs)
            except Exception as error:
                course.failed(error)
            else:
                course.take(output)
        return told(course).output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._acall_with_config(cast("Any", self._ainvoke), input, config, **kwargs)

    async def _ainvoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        course = Course(self._plan, config)
        while course.next is not None:
            runnable, branch = course.branch()
            try:
                output = await runnable.ainvoke(input, branch, **kwargs)
            except Exception as error:
                course.failed(error)
            else:
                course.take(output)
        return (await atold(course)).output

    # ---- many inputs -----------------------------------------------------------------------------

    def batch(
        self, inputs: list[Any], config: Configs = None, *, return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:  # fmt: skip
        results = self._batch_with_config(
            cast("Any", self._batch), inputs, config, return_exceptions=return_exceptions,
            halt=not return_exceptions, **kwargs,
        )  # fmt: skip
        _run.raise_control(results)
        return results

    def _batch(
        self, inputs: list[Any], config: list[RunnableConfig], halt: bool, **kwargs: Any
    ) -> list[Any]:
        many = Many([Course(self._plan, c) for c in config], halt)
        while asked := many.asked():
            runnable, branches = many.branches(asked)
            outputs = runnable.batch(
                [inputs[i] for i in asked], branches, return_exceptions=True, **kwargs
            )
            many.settle(asked, outputs)
        return [many.broken.get(i) or or_error(c) for i, c in enumerate(many.courses)]

    async def abatch(
        self, inputs: list[Any], config: Configs = None, *, return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:  # fmt: skip
        results = await self._abatch_with_config(
            cast("Any", self._abatch), inputs, config, return_exceptions=return_exceptions,
            halt=not return_exceptions, **kwargs,
        )  # fmt: skip
        _run.raise_control(results)
        return results

    async def _abatch(
        self, inputs: list[Any], config: list[RunnableConfig], halt: bool, **kwargs: Any
    ) -> list[Any]:
        many = Many([Course(self._plan, c) for c in config], halt)
        while asked := many.asked():
            runnable, branches = many.branches(asked)
            outputs = await runnable.abatch(
                [inputs[i] for i in asked], branches, return_exceptions=True, **kwargs
            )
            many.settle(asked, outputs)
        return [many.broken.get(i) or await aor_error(c) for i, c in enumerate(many.courses)]

    # ---- streams ---------------------------------------------------------------------------------

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        yield from self._transform_stream_with_config(
            iter([input]), cast("Any", self._stream), config, **kwargs
        )

    def _stream(
        self, inputs: Iterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> Iterator[Any]:
        (input,) = inputs
        course, shown = Course(self._plan, config), 0
        while course.next is not None:
            runnable, branch = course.branch()
            draft = Draft(course.live)
            try:
                with closing(Closable(runnable.stream(input, branch, **kwargs))) as parts:
                    for chunk in parts:
                        if draft.show(chunk):
                            shown += 1
                            yield chunk
            except Exception as error:
                if shown and not isinstance(error, EarlyAnswer):
                    raise
                course.failed(error, draft.chunks if shown else ())
            else:
                course.take(_run.added(draft.chunks), draft.chunks)
        for chunk in told(course).chunks[shown:]:
            yield chunk

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async def one() -> AsyncIterator[Any]:
            yield input

        stream = self._atransform_stream_with_config(
            one(), cast("Any", self._astream), config, **kwargs
        )
        async with aclosing(Closable(stream)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _astream(
        self, inputs: AsyncIterator[Any], config: RunnableConfig, **kwargs: Any
    ) -> AsyncIterator[Any]:
        (input,) = [part async for part in inputs]
        course, shown = Course(self._plan, config), 0
        while course.next is not None:
            runnable, branch = course.branch()
            draft = Draft(course.live)
            try:
                async with aclosing(Closable(runnable.astream(input, branch, **kwargs))) as parts:
                    async for chunk in parts:
                        if draft.show(chunk):
                            shown += 1
                            yield chunk
            except Exception as error:
                if shown and not isinstance(error, EarlyAnswer):
                    raise
                course.failed(error, draft.chunks if shown else ())
            else:
                course.take(_run.added(draft.chunks), draft.chunks)
        for chunk in (await atold(course)).chunks[shown:]:
            yield chunk
