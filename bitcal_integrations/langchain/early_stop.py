"""early_stop_chain: steps one after the other, ended as soon as one is certain, or hopeless.

It feeds each step the output of the one before, judges after every step, and reports what it
saved. It knows no model; a certificate for chains plugs in as its policy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, PrivateAttr

from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import BadRequest, EarlyAnswer, LowConfidenceError
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._collect import Collector
from bitcal_integrations.langchain.confidence import text_of
from bitcal_integrations.types import Record

EVENT = "bitcal.steps"


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
    _spent: _Spent = PrivateAttr()

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
        name: str | None = None,
    ) -> None:
        if (stop_above, stop_below, policy) == (None, None, None):
            raise BadRequest("early_stop_chain needs stop_above=, stop_below= or policy=")
        Trail(aggregate, stop_above, stop_below, policy)  # refuses what is not allowed
        runnables = [_run.runnable_of(step, f"step {i}") for i, step in enumerate(steps)]
        if not runnables:
            raise BadRequest("early_stop_chain needs at least one step")
        if names is not None and (isinstance(names, str) or len(names) != len(runnables)):
            raise BadRequest(f"names={names!r:.80}: it must be {len(runnables)} names, one a step")
        if carry is not None and not callable(carry):
            raise BadRequest(f"carry={carry!r:.80} must be a callable (previous output, input)")
        fields: dict[str, Any] = {
            "carry": carry,
            "steps": runnables, "stop_above": stop_above, "stop_below": stop_below,
            "policy": policy, "names": names, "aggregate": aggregate,
            "fallback": None if fallback is None else _run.runnable_of(fallback, "the fallback"),
        }  # fmt: skip
        super().__init__(name=name, **fields)
        self._spent = _Spent(len(runnables))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._call_with_config(cast("Any", self._invoke), input, config, **kwargs)

    def _invoke(self, input: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        walk, output = _Walk(self, config), input
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
        walk, output = _Walk(self, config), input
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


class _Walk:
    """One input's way through the steps."""

    def __init__(self, chain: EarlyStopChain, config: RunnableConfig) -> None:
        self._chain, self._config = chain, config
        self._trail = Trail(chain.aggregate, chain.stop_above, chain.stop_below, chain.policy)
        names = chain.names or [_run.name_of(step) for step in chain.steps]
        self._names = _run.distinct(names)
        self._run = 0  # steps that have run
        self._ended: Literal["finished", "settled", "hopeless"] | None = None
        self._heard: Collector | None = None
        self._record: Record | None = None
        self._error: LowConfidenceError | None = None

    @property
    def next(self) -> int | None:
        """The step to run now; None when the chain has ended."""
        return self._run if self._ended is None else None

    @property
    def hopeless(self) -> bool:
        return self._ended == "hopeless"

    def branch(self, tag: str) -> RunnableConfig:
        config, self._heard = _run.listening(self._config, f"bitcal:{tag}")
        return config

    def take(self, output: Any) -> None:
        """A step has given its output: judge it."""
        assert self._heard is not None
        self._judge(_run.record_from(output, self._heard))
        verdict = self._trail.verdict()
        if verdict != "go_on":
            self._ended = verdict
        elif self._run == len(self._chain.steps):
            self._ended = "finished"

    def ended_by(self, error: EarlyAnswer | LowConfidenceError) -> Any:
        """A handler or a gate inside a step has ended it; what to give, if it was certain."""
        if error.record is None:
            raise error
        step = self._chain.steps[self._run]
        self._judge(error.record)
        if isinstance(error, LowConfidenceError):
            self._ended, self._error = "hopeless", error
            return None
        self._ended = "settled"
        return _run.worded(error.record.text, error.record, {}, [_run.output_type(step)])

    def _judge(self, record: Record) -> None:
        assert self._heard is not None
        self._chain._spent.add(self._run, self._heard.tokens)
        self._trail.add(record, self._names[self._run])
        self._record, self._run = record, self._run + 1

    def fallback(self) -> Runnable[Any, Any]:
        """Whom to ask instead; without one, LowConfidenceError."""
        if self._chain.fallback is not None:
            return self._chain.fallback
        if self._error is not None:
            raise self._error
        name, record = self._names[self._run - 1], self._trail.records[-1]
        value, below = record.confidence.value, self._chain.stop_below
        raise LowConfidenceError(
            f"step {name!r} gave a confidence of {value}, below stop_below={below}, "
            "and there is no fallback", record,
        )  # fmt: skip

    def fell_back(self, output: Any) -> None:
        assert self._heard is not None
        self._record = _run.record_from(output, self._heard)

    def fell_back_early(self, error: EarlyAnswer) -> Any:
        """A handler has ended the fallback with an answer that was certain."""
        if error.record is None:
            raise error
        self._record = error.record
        like = [_run.output_type(self.fallback())]
        return _run.worded(error.record.text, error.record, {}, like)

    def given(self, output: Any) -> tuple[Any, Mapping[str, Any]]:
        """The output with the steps told in it, and the event about them."""
        assert self._record is not None
        skipped = range(self._run, len(self._chain.steps))
        saved = {"steps": len(skipped), "tokens": self._chain._spent.expected(skipped)}
        steps = {
            **self._trail.to_dict(), "of": len(self._chain.steps), "ended": self._ended,
            "saved": saved,
        }  # fmt: skip
        told = _run.with_bitcal(output, self._record, {"steps": steps})
        event = {
            **steps, "text": text_of(output), "model": self._record.model,
            "bitcal": self._record.bitcal(),
        }  # fmt: skip
        return told, event


class _Spent:
    """Mean tokens of each step over the times it has run; from any thread."""

    def __init__(self, steps: int) -> None:
        self._lock = threading.Lock()
        self._times, self._tokens = [0] * steps, [0] * steps

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {name: value for name, value in vars(self).items() if name != "_lock"}
            return {name: list(value) for name, value in state.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def add(self, step: int, tokens: int) -> None:
        with self._lock:
            self._times[step] += 1
            self._tokens[step] += tokens

    def expected(self, steps: Sequence[int]) -> int | None:
        """What these steps would have spent; None while one of them has never run."""
        with self._lock:
            if any(self._times[i] == 0 for i in steps):
                return None
            return round(sum(self._tokens[i] / self._times[i] for i in steps))


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
) -> EarlyStopChain:
    """A chain that returns as soon as a step's answer is certain enough.

    Each step (a runnable or a callable) gets the output of the one before, of a message its text;
    with `carry`, what carry(that output, the chain's input) makes of it. A step at least as sure
    as `stop_above`, or accepted by `policy` (a certificate, any policy), ends the chain with its
    output; one less sure than `stop_below` ends it too: `fallback` then gets the chain's input, and
    without one LowConfidenceError is raised. Unknown confidence goes on. EarlyAnswer and
    LowConfidenceError raised inside a step, by a handler or a gate, count as these two ends.

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
        names=names, aggregate=aggregate, carry=carry,
    )  # fmt: skip
