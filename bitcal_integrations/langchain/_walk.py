"""One input's way through the steps of an early-stop chain, and what its steps have spent.

It judges what each step gave, keeps the count of what was saved, and tells it. It calls no step:
the chain does, in sync and in async.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.runnables import Runnable, RunnableConfig

from bitcal_integrations.chains._why import why_hopeless
from bitcal_integrations.chains.trail import Trail
from bitcal_integrations.errors import EarlyAnswer, LowConfidenceError
from bitcal_integrations.langchain import _run
from bitcal_integrations.langchain._collect import Collector
from bitcal_integrations.langchain.confidence import text_of
from bitcal_integrations.types import Record

if TYPE_CHECKING:
    from bitcal_integrations.langchain.early_stop import EarlyStopChain


class Walk:
    """One input's way through the steps."""

    def __init__(self, chain: EarlyStopChain, input: Any, config: RunnableConfig) -> None:
        self._chain, self._input, self._config = chain, input, config
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
        if verdict != "go_on" and self._chain.log is None:
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
        why = why_hopeless(self._trail)
        raise LowConfidenceError(f"step {name!r}: {why}, and there is no fallback", record)

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
        if self._chain.log is not None:
            self._chain.log(self._input, self._trail.records)
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


class Spent:
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
