"""An answer's confidence in an OpenTelemetry trace, beside the names that GenAI traces have.

The attributes `gen_ai.*` are those of OpenTelemetry's semantic conventions; ours begin with
`bitcal.`. No text of a prompt or an answer is among them. Nothing happens where the API
(`opentelemetry-api`, extra `otel`) is not installed. It configures no exporter: the app does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from bitcal_integrations.errors import BadRequest
from bitcal_integrations.monitor._rows import reason_word
from bitcal_integrations.types import Record

WHERE = ("own", "current", None)
REMEMBERED = 1024  # answers whose decision may come later
Value: TypeAlias = "str | bool | int | float | tuple[str, ...]"

__all__ = ["attributes_of", "span_sink"]


def attributes_of(record: Record) -> dict[str, Value]:
    """What a trace is told of an answer; what is unknown is left out, an unknown confidence too.

    >>> from bitcal_integrations.testing.toy import ToyModel
    >>> attributes_of(ToyModel({"Why?": ("So.", 0.9)}).ask("Why?"))["bitcal.confidence"]
    0.9
    """
    generation = record.generation
    asked: dict[str, Any] = {
        "gen_ai.operation.name": "text_completion" if record.request.chat is False else "chat",
        "gen_ai.provider.name": "bitcal",
        "gen_ai.request.model": record.model,
        "gen_ai.request.max_tokens": record.request.max_new_tokens,
        "gen_ai.request.temperature": record.request.temperature,
        "gen_ai.request.top_p": record.request.top_p,
        "gen_ai.request.seed": record.request.seed,
        "gen_ai.response.model": record.model,
        "gen_ai.response.id": record.id,
        "gen_ai.response.finish_reasons": (generation.finish_reason,),
        "gen_ai.usage.input_tokens": generation.prompt_tokens,
        "gen_ai.usage.output_tokens": generation.n_tokens,
    }
    known = {name: value for name, value in asked.items() if value is not None}
    return {**known, **_judged(record)}


def _judged(record: Record) -> dict[str, Value]:
    """The attributes of ours."""
    confidence, decision = record.confidence, record.decision
    found: dict[str, Any] = {
        "bitcal.record_id": record.id,
        "bitcal.confidence": confidence.value,
        "bitcal.calibrated": confidence.calibrated,
        "bitcal.low": confidence.low,
        "bitcal.high": confidence.high,
        "bitcal.raw": confidence.raw,
        "bitcal.reason": reason_word(confidence.reason) or None,
        "bitcal.profile": confidence.profile,
        "bitcal.task": confidence.task,
        "bitcal.finish": record.generation.finish,
        "bitcal.probe_tokens": record.generation.probe_tokens,
        "bitcal.decision": decision.action if decision else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def span_sink(where: str | None = "own") -> Callable[[Record], None] | None:
    """A sink that tells a trace of every answer; None where there is nothing to tell it to.

    "own" makes a span per answer, inside the current one, as long as the answer took; "current"
    puts the attributes on the span that is current, the last answer's where it has several.
    """
    if where not in WHERE:
        raise BadRequest(f"spans={where!r} is not allowed: use 'own', 'current' or None")
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return None if where is None else _Spans(trace, own=where == "own")


class _Spans:
    """Tells one trace API; an answer that comes again with its decision gets no second span."""

    def __init__(self, trace: Any, own: bool) -> None:
        self._trace, self._own = trace, own
        self._tracer = trace.get_tracer("bitcal_integrations")
        self._told: dict[str, None] = {}

    def __call__(self, record: Record) -> None:
        current = self._trace.get_current_span()
        if record.id in self._told or not self._own:
            if current.is_recording():
                again = record.id in self._told
                current.set_attributes(_judged(record) if again else attributes_of(record))
        else:
            self._span_of(record)
        self._remember(record.id)

    def _span_of(self, record: Record) -> None:
        end = time.time_ns()
        attributes: Mapping[str, Any] = attributes_of(record)
        span = self._tracer.start_span(
            f"{attributes['gen_ai.operation.name']} {record.model}",
            kind=self._trace.SpanKind.INTERNAL,
            attributes=attributes,
            start_time=end - int(1e9 * record.timing.total),
        )
        span.end(end)

    def _remember(self, record_id: str) -> None:
        self._told[record_id] = None
        while len(self._told) > REMEMBERED:
            self._told.pop(next(iter(self._told)), None)
