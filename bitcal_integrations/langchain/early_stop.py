"""early_stop_chain: steps one after the other, ended as soon as one is certain, or hopeless.

It feeds each step the output of the one before, judges after every step, and reports what it
saved. It knows no model; a certificate for chains plugs in as its policy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, PrivateAttr

from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._walk import Spent, Walk
from bitcal_integrations.langchain.confidence import text_of
from bitcal_integrations.types import Record

EVENT = "bitcal.steps"
Log: TypeAlias = Callable[[Any, Sequence[Record]], Any]


class EarlyStopChain(RunnableSerializable[Any, Any]):
    """What `early_stop_chain` gives; see there."""

    steps: Sequence[Runnable[Any, Any]]
    stop_above: float | None = None
    stop_below: float | None = None
    policy: Any = None
    fallback: Runnable[Any, Any] | None = None
    names: Sequence[str] | None = None
    aggregate: str = "minimum"
    carry: Callable[[Any, Any], Any] | None = None
    log: Log | None = None
    _spent: Spent = PrivateAttr()

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(
        self,
        steps: Sequence[Any],
        *,
        stop_above: float | None = None,
        stop_below: float | None = None,
        policy: Any = None,
        fallback: Any = None,
        names: Sequence[str] | None = None,
        aggregate: str = "minimum",
        carry: Callable[[Any, Any], Any] | None = None,
        log: Log | None = None,
        name: str | None = None,
    ) -> None:
        if (stop_above, stop_below, policy, log) == (None, None, None, None):
            raise BadRequest("early_stop_chain needs stop_above=, stop_below=, policy= or log=")
        Trail(aggregate, stop_above, stop_below, policy)  # refuses what is not allowed
        runnables = [_run.runnable_of(step, f"step {i}") for i, step in enumerate(steps)]
        if not runnables:
            raise BadRequest("early_stop_chain needs at least one step")
        if names is not None and (isinstance(names, str) or len(names) != len(runnables)):
            raise BadRequest(f"names={names!r:.80}: it must be {len(runnables)} names, one a step")
        if carry is not None and not callable(carry):
            raise BadRequest(f"carry={carry!r:.80} must be a callable (previous output, input)")
        if log is not None and not callable(log):
            raise BadRequest(f"log={log!r:.80} must be a callable (input, records of the steps)")
        fields: dict[str, Any] = {
            "carry": carry, "log": log,
            "steps": runnables, "stop_above": stop_above, "stop_below": stop_below,
            "policy": policy, "names": names, "aggregate": aggregate,
            "fallback": None if fallback is None else _run.runnable_of(fallback, "the fallback"),
        }  # fmt: skip
        super().__init__(name=name, **fields)
        self._spent = Spent(len(runnables))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(cast("Any", self._invoke), input, config, **kwargs)

    def _invoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        walk, output = Walk(self, input, config), input
        while (at := walk.next) is not None:
            try:
                given = self._carried(at, output, input)
                output = self.steps[at].invoke(given, walk.branch(f"step:{at + 1}"), **kwargs)
            except (EarlyAnswer, LowConfidenceError) as error:
                output = walk.ended_by(error)
            else:
                walk.take(output)
        if walk.hopeless:
            fallback = walk.fallback()
            try:
                output = fallback.invoke(input, walk.branch("fallback"), **kwargs)
            except EarlyAnswer as error:
                output = walk.fell_back_early(error)
            else:
                walk.fell_back(output)
        output, event = walk.given(output)
        dispatch_custom_event(EVENT, event, config=config)
        return output

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._acall_with_config(cast("Any", self._ainvoke), input, config, **kwargs)

    async def _ainvoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        walk, output = Walk(self, input, config), input
        while (at := walk.next) is not None:
            branch = walk.branch(f"step:{at + 1}")
            try:
                given = self._carried(at, output, input)
                output = await self.steps[at].ainvoke(given, branch, **kwargs)
            except (EarlyAnswer, LowConfidenceError) as error:
                output = walk.ended_by(error)
            else:
                walk.take(output)
        if walk.hopeless:
            fallback = walk.fallback()
            try:
                output = await fallback.ainvoke(input, walk.branch("fallback"), **kwargs)
            except EarlyAnswer as error:
                output = walk.fell_back_early(error)
            else:
                walk.fell_back(output)
        output, event = walk.given(output)
        await adispatch_custom_event(EVENT, event, config=config)
        return output

    def _carried(self, at: int, previous: Any, input: Any) -> Any:
        """What a step is asked with."""
        if at == 0:
            return input
        if self.carry is not None:
            return self.carry(previous, input)
        return text_of(previous) if isinstance(previous, BaseMessage) else previous


def early_stop_chain(
    steps: Sequence[Any],
    *,
    stop_above: float | None = None,
    stop_below: float | None = None,
    policy: Any = None,
    fallback: Any = None,
    names: Sequence[str] | None = None,
    aggregate: str = "minimum",
    carry: Callable[[Any, Any], Any] | None = None,
    log: Log | None = None,
) -> EarlyStopChain:
    """A chain that returns as soon as a step's answer is certain enough.

    Each step (a runnable or a callable) gets the output of the one before, of a message its text;
    with `carry`, what carry(that output, the chain's input) makes of it. A step at least as sure
    as `stop_above`, or accepted by `policy` (a certificate, any policy), ends the chain with its
    output; one less sure than `stop_below`, or given up by a StopCertificate, ends it too:
    `fallback` then gets the chain's input, and without one LowConfidenceError is raised. Unknown
    confidence goes on. EarlyAnswer and LowConfidenceError raised inside a step, by a handler or a
    gate, count as these two ends.

    With `log` every step runs, and log(input, records) gets the steps' Records after each run. Such
    runs, judged, certify a rule for ending the chain early:

        runs = []  # log=lambda question, records: runs.append(LoggedRun.of_chain(records, ...))
        certificate = certify_stop(runs, max_loss=0.02)
        chain = early_stop_chain(steps, policy=certificate)

    The output is the step's own; a message is a copy whose response_metadata["bitcal"]["steps"]
    holds each step's confidence, their `aggregate` (minimum, product, mean, last), how it ended and
    what was `saved`: the steps not run, and the tokens they would have taken, estimated by the mean
    of their earlier runs in this chain (None while a skipped step has never run). For all outputs
    a custom event "bitcal.steps" tells the same.

    >>> from langchain_core.messages import AIMessage
    >>> def step(text, confidence):
    ...     bitcal = {"bitcal": {"confidence": confidence}}
    ...     return lambda previous: AIMessage(text, response_metadata=bitcal)
    >>> chain = early_stop_chain([step("4", 0.6), step("5", 0.97), step("6", 0.9)], stop_above=0.95)
    >>> answer = chain.invoke("2 + 3?")
    >>> answer.content, answer.response_metadata["bitcal"]["steps"]["saved"]
    ('5', {'steps': 1, 'tokens': None})
    """
    return EarlyStopChain(
        steps, stop_above=stop_above, stop_below=stop_below, policy=policy, fallback=fallback,
        names=names, aggregate=aggregate, carry=carry, log=log,
    )  # fmt: skip
