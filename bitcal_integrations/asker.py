"""Asks an engine, one prompt or many, at once, async or as a stream, and judges what comes.

Every answer becomes a Record: further samples and extra passes that its features need are asked
first, then the assessor gives the confidence, then the sinks see it. Knows engines and profiles,
no weights and no framework.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar, overload

from bitcal_integrations import budget as budgets
from bitcal_integrations.assess import Assessor, Extras, extras_of
from bitcal_integrations.decide._stop_asked import plan_of
from bitcal_integrations.engines import _ticket as tickets
from bitcal_integrations.engines._layers import tuned_in, with_layer
from bitcal_integrations.errors import BadRequest, BatchError
from bitcal_integrations.features import TUNED, Schema, make_schema, measure_all, with_agreement
from bitcal_integrations.request import SoftRequest
from bitcal_integrations.types import (
    Confidence,
    Generation,
    Observation,
    Record,
    Request,
    Step,
    make_prompt,
    make_request,
)

logger = logging.getLogger(__name__)
Sink = Callable[[Record], None]
A = TypeVar("A", bound="Asker")


SWAPPING = threading.Lock()


class Asker:
    """What CalibratedModel and every stand-in for it share: ask, aask, stream, astream, sinks."""

    def __init__(
        self,
        engine: tickets.Engine,
        name: str,
        system: str | None = None,
        defaults: dict[str, Any] | None = None,
        assessor: Assessor | None = None,
    ) -> None:
        self.name = name
        self._engine = engine
        self._system = system
        self._defaults = defaults or {}
        self._assessor = assessor or Assessor(None, {})
        self._verdict: Any = None  # a SoftPrompt
        self._sinks: list[Sink] = []

    @overload
    def ask(self, prompt: str, **options: Any) -> Record: ...
    @overload
    def ask(self, prompt: Sequence[Any], **options: Any) -> Any: ...
    def ask(self, prompt: Any, **options: Any) -> Any:
        """A Record for one prompt (a string or messages), a list of Records for a list of them.

        Options: max_new_tokens, temperature, top_p, seed, stop, parser, loop_stop, top_logprobs,
        chat, chat_template_kwargs, task, tools, tool_choice, response_schema, early_stop,
        hidden_layer, and `features`, names to measure besides the profile's.
        If some of a list fail, BatchError holds what the others gave; with `return_errors=True`
        each error stands in its place instead.

        With `total_tokens`, a list has one budget: all answers together have at most so many new
        tokens, spent where they bring most answers to their end (see budget.py). `closing`, such as
        "#### ", then asks those that are cut for their answer. No further samples or passes are
        asked for, and an answer that was cut has no confidence.
        """
        call = self._call(prompt, options, budget=True)
        if call.budget is not None:
            results = call.budget.collect(lambda r: tickets.collect(self._engine, r))
        else:
            results = tickets.collect(self._engine, call.requests)
        extras = self._extras(call, results)
        return self._fold(call, results, extras, tickets.collect(self._engine, _flat(extras)))

    def ask_each(self, prompts: Sequence[Any], **options: Any) -> Iterator[tuple[int, Any]]:
        """(index, Record or error) of each prompt of a list as it is answered, in any order.

        Leaving the loop cancels what is not answered yet.
        """
        call = self._call(list(prompts), options)
        return self._each(call)

    def _each(self, call: _Call) -> Iterator[tuple[int, Any]]:
        with closing(tickets.each(self._engine, call.requests)) as events:
            for index, result in events:
                one = replace(call, requests=(call.requests[index],), return_errors=True)
                extras = self._extras(one, [result])
                more = tickets.collect(self._engine, _flat(extras))
                yield index, self._fold(one, [result], extras, more)[0]

    async def aask(self, prompt: Any, **options: Any) -> Any:
        """`ask` for an event loop; cancelling the task stops the model."""
        return await self._answers(self._call(prompt, options, budget=True))

    async def _answers(self, call: _Call) -> Any:
        if call.budget is not None:
            results = await call.budget.acollect(lambda r: tickets.acollect(self._engine, r))
        else:
            results = await tickets.acollect(self._engine, call.requests)
        extras = self._extras(call, results)
        return self._fold(
            call, results, extras, await tickets.acollect(self._engine, _flat(extras))
        )

    def ask_requests(self, requests: Sequence[Request]) -> Iterator[tuple[int, Any]]:
        """`ask_each` for requests that were made by `request_of`, each with its own options."""
        return self._each(_Call(True, tuple(requests), True, None))

    async def aask_requests(self, requests: Sequence[Request]) -> list[Any]:
        """What came of each of these requests, a Record or an error, for an event loop."""
        return list(await self._answers(_Call(True, tuple(requests), True, None)))

    def through(self: A, wrap: Callable[[tickets.Engine], tickets.Engine]) -> A:
        """The same model, sinks and profile, asking by way of what `wrap` makes of its engine."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, _engine=wrap(self._engine))
        return other

    def stream(self, prompt: Any, **options: Any) -> Iterator[Step | Record]:
        """Every Step as it comes, then the Record; closing it stops the model."""
        return self._stream(self._call([prompt], options))

    def _stream(self, call: _Call) -> Iterator[Step | Record]:
        for event in tickets.stream(self._engine, call.requests[0]):
            if isinstance(event, tickets.Outcome):
                extras = self._extras(call, [event])
                more = tickets.collect(self._engine, _flat(extras))
                yield self._record(call, call.requests[0], event, extras[0], more)
            else:
                yield event

    def astream(self, prompt: Any, **options: Any) -> AsyncIterator[Step | Record]:
        """`stream` for an event loop."""
        return self._astream(self._call([prompt], options))

    async def _astream(self, call: _Call) -> AsyncIterator[Step | Record]:
        async with aclosing(tickets.astream(self._engine, call.requests[0])) as events:
            async for event in events:
                if isinstance(event, tickets.Outcome):
                    extras = self._extras(call, [event])
                    more = await tickets.acollect(self._engine, _flat(extras))
                    yield self._record(call, call.requests[0], event, extras[0], more)
                else:
                    yield event

    def _call(self, prompt: Any, options: dict[str, Any], budget: bool = False) -> _Call:
        options = dict(options)
        spend = {name: options.pop(name) for name in budgets.OPTIONS if budget and name in options}
        return_errors = bool(options.pop("return_errors", False))
        features = options.pop("features", None)
        schema = features if isinstance(features, Schema | None) else make_schema(features)
        if schema is not None and TUNED in schema.names:
            tuned_in(self)
        many = isinstance(prompt, (list, tuple)) and not _is_messages(prompt)
        requests = tuple(self._request(p, options, schema) for p in (prompt if many else [prompt]))
        tokenizer = getattr(self, "tokenizer", None)
        return _Call(
            many, requests, return_errors, schema, budgets.as_budget(requests, tokenizer, **spend)
        )

    @property
    def verdict(self) -> Any:
        """The tuned verdict prompt in use, a SoftPrompt, which `p_true_tuned` needs; or None."""
        return self._verdict

    def request_of(self, prompt: Any, **options: Any) -> Request:
        """The Request that `ask` would make, with the model's defaults and its task's parser."""
        return self._request(prompt, options)

    def _request(self, prompt: Any, options: dict[str, Any], more: Schema | None = None) -> Request:
        request = make_request(self._with_system(prompt), **{**self._defaults, **options})
        request = self._assessor.resolve(request)
        if plan_of(request.early_stop) and not getattr(self._engine, "stops_early", False):
            raise BadRequest(
                f"early_stop is not allowed: only a model in this process can be asked for trial "
                f"answers, and {self.name!r} is none"
            )
        return with_layer(request, (self._assessor.schema(request), more), self._engine, self.name)

    def _with_system(self, prompt: Any) -> Any:
        if self._system is None:
            return prompt
        checked = make_prompt(prompt)
        turns = ({"role": "user", "content": checked},) if isinstance(checked, str) else checked
        if turns[0]["role"] == "system":
            return turns
        return ({"role": "system", "content": self._system}, *turns)

    def _extras(self, call: _Call, results: Sequence[Any]) -> list[Extras]:
        """What must be asked beside each answer, for the profile's features and the caller's."""
        found = [
            Extras((), ())
            if isinstance(result, Exception) or call.budget is not None
            else extras_of(
                (self._assessor.schema(request, result.generation), call.schema),
                request,
                result.generation,
            )
            for request, result in zip(call.requests, results, strict=True)
        ]
        return [replace(e, requests=tuple(map(self._behind_verdict, e.requests))) for e in found]

    def _behind_verdict(self, request: Request) -> Request:
        """The request with the tuned soft tokens, where a signal asks for them."""
        if isinstance(request, SoftRequest) and self._verdict is not None:
            return replace(request, soft=self._verdict.soft)
        return request

    def _fold(self, call: _Call, results: list[Any], extras: list[Extras], more: list[Any]) -> Any:
        records, at = [], 0
        for request, result, extra in zip(call.requests, results, extras, strict=True):
            got, at = more[at : at + len(extra.requests)], at + len(extra.requests)
            failed = isinstance(result, Exception)
            records.append(result if failed else self._record(call, request, result, extra, got))
        failures = [r for r in records if isinstance(r, Exception)]
        if failures and not call.return_errors:
            if not call.many:
                raise failures[0]
            raise BatchError(records) from failures[0]
        return records if call.many else records[0]

    def _record(
        self, call: _Call, request: Request, outcome: tickets.Outcome, extras: Extras, more: Any
    ) -> Record:
        samples, passes, spent = extras.gather(more)
        said = self._assessor.noted(request, outcome.generation)
        generation = replace(said, probe_tokens=said.probe_tokens + spent)
        observation = Observation.of(generation, samples, passes)
        confidence = self._confidence(request, generation, observation)
        if call.budget is not None:
            confidence = budgets.as_told(generation, confidence)
        if call.schema is not None:
            schema = call.schema.behind(request.hidden_layer)
            signals = {**confidence.signals, **measure_all(observation, schema)}
            confidence = with_agreement(replace(confidence, signals=signals))
        record = Record(request, generation, confidence, timing=outcome.timing, model=self.name)
        for sink in tuple(self._sinks):
            try:
                sink(record)
            except Exception:  # an answer must not be lost because a log cannot be written
                logger.exception("the sink %r failed", sink)
        return record

    def _confidence(
        self, request: Request, generation: Generation, observation: Observation
    ) -> Confidence:
        return self._assessor.confidence(request, generation, observation)

    def swap_assessor(self, old: Assessor, new: Assessor) -> bool:
        """Judge by `new` from here on if `old` still judges; whether it did."""
        with SWAPPING:
            if self._assessor is not old:
                return False
            self._assessor = new
            return True

    def add_sink(self, sink: Sink) -> Callable[[], None]:
        """Call `sink(record)` after every answer; the returned function takes it out again."""
        if not callable(sink):
            raise BadRequest(f"a sink is a callable that takes a Record, not {sink!r}")
        self._sinks.append(sink)
        return lambda: self._sinks.remove(sink) if sink in self._sinks else None


@dataclass(frozen=True)
class _Call:
    """One call of ask or stream: its requests, and what it measures beyond the profile."""

    many: bool
    requests: tuple[Request, ...]
    return_errors: bool
    schema: Schema | None
    budget: budgets.Budget | None = None


def _flat(extras: Sequence[Extras]) -> list[Request]:
    return [request for extra in extras for request in extra.requests]


def _is_messages(prompt: Sequence[Any]) -> bool:
    return bool(prompt) and all(isinstance(m, dict) for m in prompt)
