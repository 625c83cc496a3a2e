"""What a trace is told of an answer, through OpenTelemetry's own SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace

from bitcal_integrations.monitor.spans import _Spans, attributes_of, span_sink
from bitcal_integrations.testing.toy import ToyModel
from bitcal_integrations.types import Decision, Record, Timing


class Traced:
    """The trace API with a tracer of our own, so that nothing global is set."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.SpanKind = trace.SpanKind
        self.get_current_span = trace.get_current_span

    def get_tracer(self, name: str) -> Any:
        return self.provider.get_tracer(name)

    @property
    def spans(self) -> tuple[Any, ...]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.provider.shutdown()


def answered(confidence: float | None = 0.9) -> Record:
    toy = ToyModel({"secret question": ("secret answer", confidence)})
    record = toy.ask("secret question", temperature=0.5, seed=3, stop=["secret stop"])
    return replace(record, timing=Timing(0.0, 0.1, 0.25))


def test_a_span_of_ours_lies_in_the_current_one_and_lasts_as_long_as_the_answer(
    traced: Traced,
) -> None:
    record, tell = answered(), _Spans(traced, own=True)
    with traced.get_tracer("app").start_as_current_span("request") as outer:
        tell(record)
    ours, request = traced.spans
    assert ours.name == "chat toy"
    assert ours.parent.span_id == outer.get_span_context().span_id
    assert (ours.end_time - ours.start_time) / 1e9 == pytest.approx(0.25, abs=1e-6)
    assert dict(ours.attributes) == attributes_of(record)
    assert not request.attributes


def test_the_attributes() -> None:
    record = answered()
    assert attributes_of(record) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "bitcal",
        "gen_ai.request.model": "toy",
        "gen_ai.request.max_tokens": 512,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 3,
        "gen_ai.response.model": "toy",
        "gen_ai.response.id": record.id,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 2,
        "gen_ai.usage.output_tokens": 2,
        "bitcal.record_id": record.id,
        "bitcal.confidence": 0.9,
        "bitcal.calibrated": True,
        "bitcal.low": 0.9,
        "bitcal.high": 0.9,
        "bitcal.raw": pytest.approx(0.9),
        "bitcal.profile": "toy",
        "bitcal.task": "default",
        "bitcal.finish": "stop",
        "bitcal.probe_tokens": 0,
    }
    assert not any("secret" in str(value) for value in attributes_of(record).values())


def test_their_names_are_those_of_the_conventions() -> None:
    names = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    known = {value for name, value in vars(names).items() if name.startswith("GEN_AI_")}
    ours = {name for name in attributes_of(answered()) if name.startswith("gen_ai.")}
    assert ours <= {value for value in known if isinstance(value, str)}


def test_unknown_confidence_is_left_out() -> None:
    found = attributes_of(answered(None))
    assert "bitcal.confidence" not in found
    assert found["bitcal.calibrated"] is False


def test_a_decision_that_comes_later_makes_no_second_span(traced: Traced) -> None:
    record, tell = answered(), _Spans(traced, own=True)
    tell(record)
    with traced.get_tracer("app").start_as_current_span("router"):
        tell(replace(record, decision=Decision("escalate", "0.4 < 0.7")))
    ours, router = traced.spans
    assert ours.name == "chat toy"
    assert router.attributes["bitcal.decision"] == "escalate"
    assert router.attributes["bitcal.record_id"] == record.id
    assert "gen_ai.usage.output_tokens" not in router.attributes  # tokens are counted once


def test_the_current_span_may_carry_them(traced: Traced) -> None:
    record, tell = answered(), _Spans(traced, own=False)
    tell(record)  # no span is current: nothing to tell
    with traced.get_tracer("app").start_as_current_span("request"):
        tell(replace(record, id="other"))
    (request,) = traced.spans
    assert request.attributes["bitcal.confidence"] == 0.9
    assert request.attributes["gen_ai.request.model"] == "toy"


def test_a_watch_tells_the_trace_of_the_caller(
    traced: Traced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitcal_integrations.monitor import watch

    monkeypatch.setattr(trace, "get_tracer", traced.get_tracer)
    toy = ToyModel({}, default=("yes", 0.5))
    with watch(toy, tmp_path / "r.db", spans="current"):
        for name in ("one", "two"):
            with traced.get_tracer("app").start_as_current_span(name):
                toy.ask(name)
    with watch(toy, tmp_path / "r.db", spans=None):
        toy.ask("three")
    assert [span.attributes["bitcal.confidence"] for span in traced.spans] == [0.5, 0.5]


def test_without_the_api_nothing_happens() -> None:
    code = "\n".join(
        (
            "import sys; sys.modules['opentelemetry'] = None",
            "from bitcal_integrations.monitor.spans import span_sink",
            "print(span_sink('own'))",
        )
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "None", run.stderr
    assert span_sink(None) is None
